"""The origin of a student's images: a summary of its shards, stored in its record."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexes import artifact

if TYPE_CHECKING:
    from distill.recipe import Mix
    from indexes.shards.reader import Shards

# Fields of a shard set's card that summarize what was selected, from where and how.
FIELDS = ("corpus", "method", "config", "seed", "num_samples", "funnel", "teacher", "generator")
DIGESTS = ("shards_digest", "mix_digest")


@dataclass(frozen=True)
class Origin:
    """A shard set that a student was trained on; `directory` is None if it was not found."""

    digest: str
    directory: Path | None
    summary: dict[str, Any]


def summarize_shards(shards: Shards, mix: Mix | None) -> list[dict[str, Any]]:
    """Return the summaries of a training's shard sets, for the student's record."""
    sets = [shards, *([mix.shards] if mix else [])]
    return [_summary(shard_set.directory, shard_set.card) for shard_set in sets]


def _summary(directory: Path, card: Mapping[str, Any]) -> dict[str, Any]:
    fields = {name: card[name] for name in FIELDS if card.get(name) is not None}
    return {"name": directory.resolve().name, "digest": artifact.digest(card), **fields}


def find_origins(record: Mapping[str, Any], runs: Path) -> list[Origin]:
    """Return the shard sets that a student's record names.

    Each is summarized from its card under RUNS/shards or, if it is not there, from the record. The
    list is empty for a teacher that was imported or trained, because its record names none.
    """
    inputs = record.get("inputs")
    inputs = inputs if isinstance(inputs, Mapping) else {}
    recorded = {summary["digest"]: summary for summary in record.get("lineage") or []}
    origins = []
    for name in DIGESTS:
        digest = inputs.get(name)
        if not digest:
            continue
        directory = find_shards(str(digest), runs)
        if directory is None:
            origins.append(Origin(digest, None, recorded.get(digest, {"digest": digest})))
        else:
            card = artifact.read_card(directory, "shards")
            origins.append(Origin(digest, directory, _summary(directory, card)))
    return origins


def find_shards(digest: str, runs: Path) -> Path | None:
    """Return the shard set under RUNS/shards whose card has this digest, or None."""
    for path in sorted((runs / "shards").glob(f"*/{artifact.CARD}")):
        # Skip a damaged or foreign card.
        with contextlib.suppress(artifact.ArtifactError):
            if artifact.digest(artifact.read_card(path.parent, "shards")) == digest:
                return path.parent
    return None
