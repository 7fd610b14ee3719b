"""Curated WebDataset shards, the contract between the two stages: writer, reader and checks."""
