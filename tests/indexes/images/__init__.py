"""Tests of indexes/images."""
