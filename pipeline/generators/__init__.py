"""Generators, one per file, which learn to generate images of the teacher's classes from shards."""
