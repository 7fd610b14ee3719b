"""Deduplication: drop copies, near duplicates and evaluation images before any scoring."""
