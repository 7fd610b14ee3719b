"""Tests of distill/evaluation."""
