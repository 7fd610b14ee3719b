"""A student records the origin of its training images."""

from __future__ import annotations

from pathlib import Path

from distill import provenance
from indexes import artifact
from tests.support import distillation


def test_a_student_stores_its_lineage(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    teacher = distillation.make_teacher(tmp_path / "teacher")
    shards = distillation.make_shards(runs / "shards" / "demo", teacher)
    digest = artifact.digest(shards.card)
    record = {
        "inputs": {"shards_digest": digest},
        "lineage": provenance.summarize_shards(shards, None),
    }
    (origin,) = provenance.find_origins(record, runs)
    assert origin.directory == runs / "shards" / "demo"
    (recorded,) = provenance.find_origins(record, tmp_path)
    assert recorded.directory is None
    assert recorded.summary == origin.summary
    assert recorded.summary["num_samples"] == 60
    assert recorded.summary["name"] == "demo"
    assert provenance.find_origins({}, runs) == []
    old = {"inputs": {"shards_digest": "12", "mix_digest": digest}}
    unknown, mixed = provenance.find_origins(old, runs)
    assert (unknown.summary, mixed.summary) == ({"digest": "12"}, origin.summary)
    funnel = {"in": 9, "dropped": {"empty": 2}, "kept": 7}
    shards.card.update(corpus="crawl", method="random", config={"floor": 2.0}, funnel=funnel)
    (summary,) = provenance.summarize_shards(shards, None)
    assert (summary["corpus"], summary["funnel"]) == ("crawl", funnel)
    assert summary["config"] == {"floor": 2.0}
