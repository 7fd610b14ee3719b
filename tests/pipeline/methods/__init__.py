"""Tests of pipeline/methods."""
