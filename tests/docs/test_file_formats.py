"""docs/reference/file-formats.md against the code: schema versions, files and columns."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from distill.exporters import formats, quantize
from distill.exporters.directory import MODEL_CARD
from indexes import artifact, checkpoint, embeddings
from indexes.logits import FULL_LOGITS, STORED_LOGITS
from indexes.models.teacher import WEIGHTS
from indexes.shards import sidecar
from indexes.vectors.build import PARTS, TRAINED, TRAINING
from indexes.vectors.index import INDEX
from pipeline import key_list
from pipeline.pool import REASONS
from pipeline.write_shards import SHARD_SAMPLES

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "file-formats.md"
TEXT = PAGE.read_text(encoding="utf-8")
NAMES = {
    "exports": [*formats.FILES.values(), quantize.FILE, MODEL_CARD],
    "teachers": [WEIGHTS, artifact.CARD, checkpoint.LOG],
    "vectors": [INDEX, TRAINED, TRAINING],
    "embedding columns": [*embeddings.COLUMNS],
    "side-car columns": [*sidecar.COLUMNS],
    "key list columns": key_list.schema().names,
    "drop reasons": REASONS[1:],
}


def test_the_schema_versions_are_those_of_the_code() -> None:
    written = re.findall(r"^\| `(\w+)` \| Schema `(\d+)` \|", TEXT, flags=re.MULTILINE)
    assert len(written) == len(dict(written))
    assert {kind: int(schema) for kind, schema in written} == artifact.SCHEMAS


@pytest.mark.parametrize("group", NAMES)
def test_the_page_names_the_files_and_columns_of_the_code(group: str) -> None:
    missing = [name for name in NAMES[group] if f"`{name}`" not in TEXT]
    assert not missing, f"{group}: {missing}"


def test_the_page_gives_the_limits_of_the_code() -> None:
    limits = f"all up to {FULL_LOGITS} classes, else the {STORED_LOGITS} largest"
    assert limits in TEXT
    assert f"at most {SHARD_SAMPLES:,} images" in TEXT
    assert f"`{PARTS}/HASH.lists`" in TEXT
