"""Verify artifacts against their cards, and read shards once through stock webdataset."""

from __future__ import annotations

from pathlib import Path

from indexes import artifact
from indexes.artifact import ArtifactError
from indexes.shards.reader import Shards, open_shards


def verify(directory: Path) -> str:
    """Check an artifact against its card; return a sentence about what was checked.

    Raises ArtifactError, which names the first file that is missing or differs.

    Example: `verify(Path("runs/teachers/r18"))`
    """
    artifact.check_done(directory)
    card = artifact.read_json(directory / artifact.CARD)
    kind = str(card.get("kind"))
    if kind == "shards":
        return f"{verify_shards(directory):,} samples; every digest and count matches the card"
    files = [card["weights"]] if kind == "teacher" else card.get("files")
    if not files:
        raise ArtifactError(
            f"{directory} holds {kind!r}, and its card has no digests: only shards, teachers, "
            "students, cached targets and exports can be verified"
        )
    artifact.read_card(directory, kind)  # refuses another schema
    for file in files:
        if not (directory / file["name"]).is_file():
            raise ArtifactError(f"{directory / file['name']} is missing: make it again")
        artifact.check_sha256(directory / file["name"], file["sha256"], "it")
    return f"{kind}, {len(files)} files; every digest matches the card"


def verify_shards(directory: str | Path) -> int:
    """Check every file and count of a set of shards; return the number of samples.

    Raises ArtifactError, which names the first thing that is wrong.
    """
    shards = open_shards(directory)
    funnel = shards.card["funnel"]
    lost = funnel["in"] - funnel["kept"] - sum(funnel["dropped"].values())
    if lost or funnel["kept"] != shards.card["num_samples"]:
        raise ArtifactError(
            f"{directory}: the counts of the funnel do not add up ({lost} images unaccounted for)"
        )
    for file, tar in zip(shards.card["files"], shards.tars, strict=True):
        sidecar = tar.with_suffix(".parquet")
        for path, expected in ((tar, file["sha256"]), (sidecar, file["sidecar_sha256"])):
            artifact.check_sha256(path, expected, "the shards")
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
                    raise ArtifactError(
                        f"{tar}: webdataset reads {sample['__key__']!r}, not {expected!r}"
                    )
                row += 1
    if row != len(shards):
        raise ArtifactError(f"{shards.directory}: webdataset reads {row}, not {len(shards)}")
