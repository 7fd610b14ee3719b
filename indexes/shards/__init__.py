"""The contract between the two stages: curated WebDataset shards, their writer and their reader."""
