"""Tests of indexes/vectors."""
