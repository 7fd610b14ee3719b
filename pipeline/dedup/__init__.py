"""Duplicates and evaluation images leave before anything is scored."""
