"""Tests of distill/teachers."""
