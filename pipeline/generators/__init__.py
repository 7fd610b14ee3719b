"""Generators: what learns to generate images of the teacher's classes from a curated shard set."""
