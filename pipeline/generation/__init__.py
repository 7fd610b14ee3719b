"""Generation: train a generator on selected shards and write synthetic shards."""
