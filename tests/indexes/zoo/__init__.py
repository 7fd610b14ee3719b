"""Tests of indexes/zoo."""
