"""Tests of pipeline/scores."""
