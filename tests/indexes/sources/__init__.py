"""Tests of indexes/sources."""
