"""Tests of the benchmarks: what is pure in them, and each once on something tiny."""
