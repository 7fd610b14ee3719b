"""Tests of pipeline/weighting."""
