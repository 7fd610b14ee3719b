"""Benchmarks that are run by hand: each script compares winnow with a floor in the same run."""
