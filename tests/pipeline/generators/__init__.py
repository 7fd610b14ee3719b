"""Tests of pipeline/generators."""
