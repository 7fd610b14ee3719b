"""Where a student's images came from: a summary of its shards, kept in its record for later."""

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

# Fields of a shard set's card that say in a few lines what was chosen, from where and how.
FIELDS = ("corpus", "method", "config", "seed", "num_samples", "funnel", "teacher", "generator")
DIGESTS = ("shards_digest", "mix_digest")


@dataclass(frozen=True)
class Origin:
    """A shard set that a student was trained on; `directory` is None where it is not found."""

    digest: str
    directory: Path | None
    summary: dict[str, Any]


def summarize_shards(shards: Shards, mix: Mix | None) -> list[dict[str, Any]]:
    """The summaries of the shard sets of a training, for the student's record."""
    sets = [shards, *([mix.shards] if mix else [])]
    return [_summary(shard_set.directory, shard_set.card) for shard_set in sets]


def _summary(directory: Path, card: Mapping[str, Any]) -> dict[str, Any]:
    fields = {name: card[name] for name in FIELDS if card.get(name) is not None}
    return {"name": directory.resolve().name, "digest": artifact.digest(card), **fields}


def find_origins(record: Mapping[str, Any], runs: Path) -> list[Origin]:
    """The shard sets that a student's record names: as found under RUNS/shards, else as recorded.

    Empty for a teacher that was imported or trained: its record names none.
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
    """The shard set under RUNS/shards whose card has this digest; None where there is none."""
    for path in sorted((runs / "shards").glob(f"*/{artifact.CARD}")):
        # A damaged or foreign card beside it is not our matter.
        with contextlib.suppress(artifact.ArtifactError):
            if artifact.digest(artifact.read_card(path.parent, "shards")) == digest:
                return path.parent
    return None
