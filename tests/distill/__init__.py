"""Tests: this folder mirrors the package of the same name."""
