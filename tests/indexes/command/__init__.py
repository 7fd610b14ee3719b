"""Tests of indexes/command."""
