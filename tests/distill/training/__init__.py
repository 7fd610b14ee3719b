"""Tests of distill/training."""
