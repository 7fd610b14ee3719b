"""Tests of pipeline/corpora."""
