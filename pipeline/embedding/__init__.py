"""Embedding: decode every image, pass it through the teacher once, store columns and features."""
