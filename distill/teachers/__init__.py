"""Directories of teachers: imported from elsewhere, or trained on a labeled set."""
