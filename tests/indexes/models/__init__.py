"""Tests of indexes/models."""
