"""The top N of a pool by score and class, at any size."""
