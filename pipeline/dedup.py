"""Duplicates of the pool: why a row is no candidate."""

from __future__ import annotations

REASONS = ("candidate", "duplicate_content", "near_duplicate", "protected")
