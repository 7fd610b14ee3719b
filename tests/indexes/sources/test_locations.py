"""The locations of an embedded corpus are written without secrets and can be opened again."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexes.sources import locations
from indexes.sources.sample import SourceError


def test_locations_with_secrets_and_custom_parts_are_not_recorded(tmp_path: Path) -> None:
    from indexes.sources.tar import TarPart
    from pipeline.corpora import demo

    secret = TarPart("x", "https://user:word@host/x.tar")
    signed = TarPart("y", "https://host/y.tar?signature=abc")
    plain = TarPart("z", "https://host/z.tar")
    locations.save(tmp_path, "c", [secret, signed, plain, demo.corpus()[0]], None)
    text = (tmp_path / "locations" / "c.json").read_text()
    assert "word" not in text
    assert "abc" not in text
    assert locations.open_part(tmp_path, "c", 2).fingerprint
    for number in (0, 1, 3):
        with pytest.raises(SourceError, match="cannot be read again"):
            locations.open_part(tmp_path, "c", number)
