"""Stored images, and the views of a step, which are functions of seed, key and view number."""
