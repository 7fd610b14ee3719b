"""Tests of the package `distill`, in the same folders."""
