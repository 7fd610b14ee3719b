"""Importance weights: one weight per selected image, with mean 1."""
