"""Verification finds every kind of damage in a shard set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from indexes.artifact import ArtifactError
from indexes.shards.verify import verify_shards
from tests.support.shards import write_shards


@pytest.mark.parametrize("damage", ["cut", "missing", "flipped", "sidecar", "card"])
def test_verify_finds_every_damage(tmp_path: Path, damage: str) -> None:
    write_shards(tmp_path)
    tar = tmp_path / "shard-000001.tar"
    data = tar.read_bytes()
    if damage == "cut":
        tar.write_bytes(data[:-1024])
    elif damage == "missing":
        tar.unlink()
    elif damage == "flipped":
        tar.write_bytes(data[:600] + bytes([data[600] ^ 1]) + data[601:])
    elif damage == "sidecar":
        tar.with_suffix(".parquet").unlink()
    else:
        card = json.loads((tmp_path / "card.json").read_text())
        card["funnel"]["dropped"]["corrupt"] = 2
        (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(ArtifactError):
        verify_shards(tmp_path)
