"""Tests of distill/targets."""
