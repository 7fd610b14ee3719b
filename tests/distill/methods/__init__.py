"""Tests of distill/methods."""
