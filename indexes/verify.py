"""Verify: shards against their card, and once through stock webdataset."""

from __future__ import annotations

from pathlib import Path

from indexes import artefact
from indexes.artefact import ArtefactError
from indexes.shards import Shards, open_shards


def verify_shards(directory: str | Path) -> int:
    """The number of samples, all checked; ArtefactError names the first thing that is wrong."""
    shards = open_shards(directory)
    funnel = shards.card["funnel"]
    lost = funnel["in"] - funnel["kept"] - sum(funnel["dropped"].values())
    if lost or funnel["kept"] != shards.card["num_samples"]:
        raise ArtefactError(f"{directory}: the funnel does not add up ({lost} unaccounted for)")
    for file, tar in zip(shards.card["files"], shards.tars, strict=True):
        sidecar = tar.with_suffix(".parquet")
        for path, expected in ((tar, file["sha256"]), (sidecar, file["sidecar_sha256"])):
            artefact.check_sha256(path, expected, "the shards")
    _read_by_webdataset(shards)
    return len(shards)


def _read_by_webdataset(shards: Shards) -> None:
    from webdataset.tariterators import group_by_keys, tar_file_expander

    row = 0
    for tar in shards.tars:
        with tar.open("rb") as stream:
            for sample in group_by_keys(tar_file_expander([{"url": str(tar), "stream": stream}])):
                expected = str(shards.keys[row]) if row < len(shards) else "nothing more"
                if sample["__key__"] != expected or not {"json", "logits.npy"} <= sample.keys():
                    raise ArtefactError(
                        f"{tar}: webdataset reads {sample['__key__']!r}, not {expected!r}"
                    )
                row += 1
    if row != len(shards):
        raise ArtefactError(f"{shards.directory}: webdataset reads {row}, not {len(shards)}")
