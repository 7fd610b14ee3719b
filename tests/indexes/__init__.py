"""Tests of the package `indexes`, in the same folders."""
