"""Tests of distill/data."""
