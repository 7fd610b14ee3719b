"""Tests of pipeline/dedup."""
