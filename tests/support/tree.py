"""The root of the repository, and the files of its packages."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("pipeline", "indexes", "distill")


def files(*packages: str) -> list[Path]:
    """Return the Python files of `packages` (default: all three packages)."""
    return [
        file for package in packages or PACKAGES for file in sorted((ROOT / package).rglob("*.py"))
    ]
