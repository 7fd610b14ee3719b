"""Tests of winnow: the three rooms, the command and the architecture."""
