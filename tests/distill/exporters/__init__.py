"""Tests of distill/exporters: programs, 8 bits, model cards."""
