"""Tests of indexes/shards."""
