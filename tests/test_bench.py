"""Tests on real images, skipped without the benchmark data: a teacher and part of a pool."""

from __future__ import annotations

import json
import os
import tarfile
from itertools import islice
from pathlib import Path

import pytest
import webdataset
from typer.testing import CliRunner

import winnow
from distill.evaluation.accuracy import evaluate_net
from indexes.models.teacher import load_teacher
from indexes.shards.reader import open_shards
from indexes.shards.tar_writer import HashedTar
from indexes.sources.spec import open_parts

BENCH = Path(os.environ.get("WINNOW_BENCH", "")) / "cifar10"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not os.environ.get("WINNOW_BENCH") or not BENCH.is_dir(),
        reason="WINNOW_BENCH does not name the benchmark images",
    ),
]


def head(source: Path, out: Path, count: int) -> Path:
    """Write the first `count` samples of a tar to a new tar."""
    with out.open("wb") as file:
        tar = HashedTar(file)
        for sample in islice(open_parts(str(source))[0], count):
            tar.add(f"{sample.key}.{sample.ext}", sample.data)
            for name, data in sample.extras.items():
                tar.add(f"{sample.key}.{name}", data)
        tar.close()
    return out


def invoke(*words: object) -> str:
    result = CliRunner().invoke(winnow.app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bench")
    card = json.loads((BENCH / "teacher" / "teacher.json").read_text())
    names = directory / "names.txt"
    names.write_text("\n".join(card["classes"]))
    weights = BENCH / "teacher" / "model.safetensors"
    mean, std = (",".join(map(str, card[key])) for key in ("mean", "std"))
    invoke(
        "import-teacher", "--builder", "resnet18", "--weights", weights, "--classes", names,
        "--mean", mean, "--std", std, "--input-size", 32, directory / "runs" / "teachers" / "r18",
    )  # fmt: skip
    return directory / "runs"


def test_the_teacher_reaches_its_published_accuracy(runs: Path, tmp_path: Path) -> None:
    test = head(BENCH / "original" / "test-0000.tar.gz", tmp_path / "test.tar", 400)
    result = evaluate_net(load_teacher(runs / "teachers" / "r18"), str(test))
    assert result.num_images == 400
    assert result.top1 > 0.83, "the accuracy on the full set is 0.877"


def test_select_works_on_the_pool(runs: Path, tmp_path: Path) -> None:
    pool = head(BENCH / "openworld" / "shard-00000.tar.gz", tmp_path / "pool.tar", 800)
    invoke("select", "--corpus", pool, "--runs", runs, "-n", 200, "--workers", 0)
    shards = open_shards(json.loads((runs / "last-shards.json").read_text())["shards"])
    funnel = shards.card["funnel"]
    assert funnel["in"] == 800
    assert funnel["kept"] == 200 == 800 - sum(funnel["dropped"].values())
    urls = [str(tar) for tar in shards.tars]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert len(samples) == 200
    with tarfile.open(pool) as tar:
        for sample in samples[:20]:
            file = tar.extractfile(f"{sample['__key__']}.jpg")
            assert file is not None
            assert sample["jpg"] == file.read()
