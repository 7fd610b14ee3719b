"""Tests of winnow: the three packages, the command and the architecture."""
