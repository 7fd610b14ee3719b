"""A generator learns from curated shards and writes synthetic ones."""
