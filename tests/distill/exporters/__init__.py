"""Tests of distill/exporters: programs, 8-bit files and model cards."""
