"""Generators: what learns to paint images of the teacher's classes from a curated shard set."""
