"""Tests of the benchmarks: their pure functions, and the contests on small data."""
