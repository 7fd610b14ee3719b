"""Stored images and the views that a step trains on: pure functions of seed, key and number."""
