"""Verify: artifacts against their cards; shards once through stock webdataset, too."""

from __future__ import annotations

from pathlib import Path

from indexes import artifact
from indexes.artifact import ArtifactError
from indexes.shards.reader import Shards, open_shards


def verify(directory: Path) -> str:
    """What is whole in `directory`, in words; ArtifactError names the first thing that is not."""
    if not artifact.is_done(directory):
        raise ArtifactError(
            f"{directory} has no {artifact.CARD}: its making was cut off, or it is no artifact; "
            "run the command that makes it again, it goes on where it stopped"
        )
    card = artifact.read_json(directory / artifact.CARD)
    kind = str(card.get("kind"))
    if kind == "shards":
        return f"{verify_shards(directory):,} samples, every digest and count as the card says"
    files = [card["weights"]] if kind == "teacher" else card.get("files")
    if not files:
        raise ArtifactError(
            f"{directory} holds {kind!r}, whose card has no digests: shards, nets, cached targets "
            "and exports can be verified"
        )
    artifact.read_card(directory, kind)  # of another schema: refused
    for file in files:
        if not (directory / file["name"]).is_file():
            raise ArtifactError(f"{directory / file['name']} is missing: make it again")
        artifact.check_sha256(directory / file["name"], file["sha256"], "it")
    return f"{kind}, {len(files)} files, every digest as the card says"


def verify_shards(directory: str | Path) -> int:
    """The number of samples, all checked; ArtifactError names the first thing that is wrong."""
    shards = open_shards(directory)
    funnel = shards.card["funnel"]
    lost = funnel["in"] - funnel["kept"] - sum(funnel["dropped"].values())
    if lost or funnel["kept"] != shards.card["num_samples"]:
        raise ArtifactError(f"{directory}: the funnel does not add up ({lost} unaccounted for)")
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
