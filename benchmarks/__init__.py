"""What is measured, by hand: one script a row, ours against the floor in the same run."""
