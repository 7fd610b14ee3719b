"""Tests of each loss: a slow double loop, a second implementation, properties, bad shapes."""
