"""The stored outputs of the teacher; only new parts of a corpus are embedded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from indexes.embeddings import open_embeddings
from indexes.logits import STORED_LOGITS
from indexes.models.teacher import Teacher, load_teacher
from indexes.sources.spec import open_parts
from pipeline.embedding.embed import Embedder, embed_parts, teacher_columns
from tests.support import corpora
from tests.support.corpora import select


@pytest.fixture
def forwarded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the number of images in every forward of the teacher."""
    sizes: list[int] = []
    forward: Any = Teacher.__call__

    def counting(self: Teacher, pixels: Any) -> Any:
        sizes.append(len(pixels))
        return forward(self, pixels)

    monkeypatch.setattr(Teacher, "__call__", counting)
    return sizes


def embedded(runs: Path) -> list[Path]:
    return sorted((runs / "embeddings").iterdir(), key=lambda path: path.stat().st_mtime_ns)


def test_only_a_replaced_part_is_embedded_again(
    tmp_path: Path, forwarded: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipeline")
    corpus, runs = tmp_path / "c", tmp_path / "runs"
    for number in range(3):
        corpora.good_tar(corpus / f"{number}.tar", 10, first=100 * number)
    assert select(corpus, runs, "-n", "5").exit_code == 0
    assert sum(forwarded) == 30
    forwarded.clear()
    corpora.good_tar(corpus / "1.tar", 12, first=500)
    result = select(corpus, runs, "-n", "5")
    assert result.exit_code == 0, result.output
    assert sum(forwarded) == 12
    assert "2 of 3 parts are embedded already" in caplog.text
    first, second = (open_embeddings(directory) for directory in embedded(runs))
    assert len(second) == 32
    for old, new in ((0, 0), (2, 2)):
        old_block, new_block = first.blocks[old], second.blocks[new]
        assert (old_block.matrix("features") == new_block.matrix("features")).all()
        assert old_block.strings("key") == new_block.strings("key")
    assert second.blocks[1].strings("key")[0] == "im00500"


def test_a_new_first_part_shifts_the_other_parts(tmp_path: Path, forwarded: list[int]) -> None:
    corpus, runs = tmp_path / "c", tmp_path / "runs"
    corpora.good_tar(corpus / "b.tar", 10)
    assert select(corpus, runs, "-n", "5").exit_code == 0
    forwarded.clear()
    corpora.good_tar(corpus / "a.tar", 4, first=50)
    assert select(corpus, runs, "-n", "5").exit_code == 0
    assert sum(forwarded) == 4
    fresh_runs = tmp_path / "fresh"
    assert select(corpus, fresh_runs, "-n", "5", teacher=runs / "teachers" / "t").exit_code == 0
    linked, rebuilt = open_embeddings(embedded(runs)[-1]), open_embeddings(embedded(fresh_runs)[0])
    assert linked.card["parts"] == rebuilt.card["parts"]
    for block, expected in zip(linked.blocks, rebuilt.blocks, strict=True):
        np.testing.assert_array_equal(block.matrix("logits"), expected.matrix("logits"))


def test_parts_of_an_interrupted_run_are_reused(tmp_path: Path, forwarded: list[int]) -> None:
    corpus, runs = tmp_path / "c", tmp_path / "runs"
    for number in range(3):
        corpora.good_tar(corpus / f"{number}.tar", 10, first=100 * number)
    assert select(corpus, runs, "-n", "5").exit_code == 0
    (cut,) = embedded(runs)
    (cut / "card.json").unlink()
    (cut / "part-000002.json").unlink()
    forwarded.clear()
    corpora.good_tar(corpus / "0.tar", 7, first=900)
    assert select(corpus, runs, "-n", "5").exit_code == 0
    assert sum(forwarded) == 17


def test_another_teacher_reuses_nothing(tmp_path: Path, forwarded: list[int]) -> None:
    corpus, runs = tmp_path / "c.tar", tmp_path / "runs"
    corpora.good_tar(corpus, 10)
    assert select(corpus, runs, "-n", "5").exit_code == 0
    forwarded.clear()
    other_teacher = corpora.small_teacher(tmp_path / "other", seed=1)
    assert select(corpus, runs, "-n", "5", teacher=other_teacher).exit_code == 0
    assert sum(forwarded) == 10


def test_teacher_columns_are_finite_for_extreme_logits() -> None:
    logits = torch.tensor([[70000.0, -70000.0, 0.0], [1.0, 1.0, 1.0], [1e-3, 0.0, -1e-3]])
    matrices, columns = teacher_columns(logits, torch.zeros(3, 2))
    assert all(np.isfinite(column).all() for column in (*columns.values(), *matrices.values()))
    assert columns["label"].tolist() == [0, 0, 0]
    assert columns["entropy"][1] == pytest.approx(np.log(3), rel=1e-5)
    assert columns["log_odds"][1] == pytest.approx(-np.log(2), rel=1e-5)
    wide_logits = torch.randn(4, 1000)
    matrices, _ = teacher_columns(wide_logits, torch.zeros(4, 2))
    assert matrices["logits"].shape == (4, STORED_LOGITS)
    picked = wide_logits.gather(1, torch.from_numpy(matrices["classes"]).long())
    np.testing.assert_allclose(matrices["logits"], picked, atol=5e-3)


def test_small_blocks_give_the_same_result(tmp_path: Path) -> None:
    parts = open_parts(str(corpora.good_tar(tmp_path / "c.tar", 300)))
    teacher = load_teacher(corpora.small_teacher(tmp_path / "t"))
    results = []
    for name, block_rows in (("whole", 1000), ("cut", 64)):
        embedder = Embedder(teacher=teacher, workers=0, batch_size=32, block_rows=block_rows)
        embed_parts(parts, embedder, tmp_path / name, settings=name, body={})
        results.append(open_embeddings(tmp_path / name))
    assert [len(result.blocks) for result in results] == [1, 5]
    for matrix in ("features", "logits", "thumb"):
        full, split = (np.concatenate([b.matrix(matrix) for b in w.blocks]) for w in results)
        np.testing.assert_array_equal(full, split)
    rows = np.arange(300)
    assert results[0].keys_of(rows) == results[1].keys_of(rows)
