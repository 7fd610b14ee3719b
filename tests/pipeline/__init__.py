"""Tests of the package `pipeline`, in the same folders."""
