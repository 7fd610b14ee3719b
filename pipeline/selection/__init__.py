"""Selection of the top N rows of a pool by score and class, for pools of any size."""
