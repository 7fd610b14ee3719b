"""Edits of the cards of teachers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from indexes import artifact

CLASSES = ("cat", "dog", "ship")


def edit_card(directory: Path, **changes: Any) -> None:
    """Edit a card without updating its digest."""
    body = json.loads((directory / "card.json").read_text())
    (directory / "card.json").write_text(json.dumps({**body, **changes}))


def resign(directory: Path, **changes: Any) -> None:
    """Edit a card and update its digests, as an attacker or a vendor would."""
    body = {**json.loads((directory / "card.json").read_text()), **changes}
    weights = directory / "model.safetensors"
    body["weights"]["sha256"] = artifact.sha256(weights)
    body["weights"]["bytes"] = weights.stat().st_size
    unsigned = ("kind", "schema", "digest", "weights", "accuracy", "note", "record")
    defining = {key: value for key, value in body.items() if key not in unsigned}
    body["digest"] = artifact.digest({**defining, "weights": body["weights"]["sha256"]})
    (directory / "card.json").write_text(json.dumps(body))
