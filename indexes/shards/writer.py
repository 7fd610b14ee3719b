"""Write curated shards, each with its sidecar, and their card; an interrupted run can resume.

indexes.shards.reader describes the layout. N samples, n samples of one shard, K stored logits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes import artifact
from indexes.artifact import ArtifactError
from indexes.shards import sidecar
from indexes.shards.reader import shard_name
from indexes.shards.tar_writer import HashedTar, npy_rows

Array = npt.NDArray[Any]


class ShardWriter:
    """Writes shards into `directory`, each atomically; `finish` then writes the card of the set.

    `plan` is the digest of everything that determines the bytes. Shards that an interrupted run of
    the same plan has left are kept. Raises ArtifactError for shards of another plan.
    """

    def __init__(self, directory: Path, plan: str, classes: Sequence[str]) -> None:
        self.directory, self.plan, self.classes = Path(directory), plan, tuple(classes)
        self.directory.mkdir(parents=True, exist_ok=True)
        for table in sorted(self.directory.glob("shard-*.parquet")):
            other = sidecar.manifest(table).get("plan")
            if other != plan:
                raise ArtifactError(
                    f"{self.directory} holds shards of another run ({table.name}: plan {other}); "
                    "delete it or name another directory"
                )

    def has(self, number: int) -> bool:
        """Return whether this shard has been written completely."""
        tar = self.directory / shard_name(number)
        table = tar.with_suffix(".parquet")
        return (
            table.is_file()
            and tar.is_file()
            and tar.stat().st_size == int(sidecar.manifest(table)["bytes"])
        )

    def write(
        self,
        number: int,
        *,
        keys: Sequence[str],
        exts: Sequence[str],
        images: Iterable[bytes],
        columns: Mapping[str, Array],
        logits: Array,
        logit_classes: Array | None = None,
        sources: Sequence[str] | None = None,
    ) -> None:
        """Write one shard of n samples.

        `columns` holds label, weight, any others of COLUMNS, and float32 scores, each [n]. `logits`
        is float16 [n, K]. `logit_classes` is int32 [n, K], or None if K = C and column c is class
        c. The tar is written first. The sidecar, which holds the tar's sha256, marks it as done.
        """
        tar = self.directory / shard_name(number)
        check_keys(keys)
        sources = sources if sources is not None else [""] * len(keys)
        table = {name: np.asarray(column) for name, column in columns.items()}
        table["key_hash"] = np.array([artifact.hash64(key.encode()) for key in keys], np.uint64)
        for name in ("logsumexp", "source_offset"):
            table.setdefault(name, np.zeros(len(keys), sidecar.COLUMNS[name]))
        offsets, sizes = np.zeros(len(keys), np.int64), np.zeros(len(keys), np.int64)
        targets = {"logits.npy": npy_rows(np.asarray(logits, np.float16))}
        if logit_classes is not None:
            targets["classes.npy"] = npy_rows(np.asarray(logit_classes, np.int32))
        notes = self._notes(table, sources)
        with artifact.writing(tar) as aside, aside.open("wb") as file:
            stream = HashedTar(file)
            for row, image in enumerate(images):
                offsets[row] = stream.add(f"{keys[row]}.{exts[row]}", image)
                sizes[row] = len(image)
                stream.add(f"{keys[row]}.json", notes[row])
                for name, blobs in targets.items():
                    stream.add(f"{keys[row]}.{name}", blobs[row])
            stream.close()
        table |= {"offset": offsets, "size": sizes}
        note = {"plan": self.plan, "bytes": str(stream.size), "sha256": stream.sha256.hexdigest()}
        strings = {"key": list(keys), "ext": list(exts), "source": list(sources)}
        sidecar.write(tar.with_suffix(".parquet"), strings, table, logits, logit_classes, note)

    def _notes(self, table: Mapping[str, Array], sources: Sequence[str]) -> list[bytes]:
        labels, weights = table["label"].tolist(), table["weight"].astype(np.float64).tolist()
        tails = table["logsumexp"].astype(np.float64).tolist()
        return [
            json.dumps(
                {
                    "label": label,
                    "class": self.classes[label],
                    "weight": round(weight, 6),
                    "logsumexp": round(tail, 6),
                    "source": source,
                }
            ).encode()
            for label, weight, tail, source in zip(labels, weights, tails, sources, strict=True)
        ]

    def contents(self, num_shards: int) -> dict[str, Any]:
        """Return the card's fields for shards 0..num_shards-1.

        Raises ArtifactError if a shard is incomplete.
        """
        files: list[dict[str, Any]] = []
        labels, weights = [], []
        for number in range(num_shards):
            if not self.has(number):
                raise ArtifactError(f"{self.directory / shard_name(number)} is incomplete")
            table = (self.directory / shard_name(number)).with_suffix(".parquet")
            columns = sidecar.read_columns(table, ["label", "weight"])
            labels.append(columns["label"])
            weights.append(columns["weight"])
            manifest = sidecar.manifest(table)
            files.append(
                {
                    "name": shard_name(number),
                    "bytes": int(manifest["bytes"]),
                    "sha256": manifest["sha256"],
                    "num_samples": len(columns["label"]),
                    "sidecar_sha256": artifact.sha256(table),
                }
            )
        label, weight = np.concatenate(labels), np.concatenate(weights).astype(np.float64)
        return {
            "plan": self.plan,
            "num_samples": len(label),
            "num_shards": num_shards,
            "num_bytes": sum(file["bytes"] for file in files),
            "classes": self.classes,
            "class_histogram": np.bincount(label, minlength=len(self.classes)),
            "effective_sample_size": effective_sample_size(weight),
            "files": files,
        }

    def finish(self, num_shards: int, body: Mapping[str, Any]) -> None:
        """Write card.json for shards 0..num_shards-1: `body` and their contents."""
        artifact.write_card(self.directory, "shards", {**body, **self.contents(num_shards)})


def check_keys(keys: Sequence[str]) -> None:
    """Check that webdataset reads every key back and that no key leads out of its folder.

    Raises ValueError for the first bad key, or if a key occurs twice.
    """
    for key in keys:
        *folders, base = key.split("/")
        if not base or "." in base or "\0" in key or {"", ".", ".."} & set(folders):
            raise ValueError(
                f"{key!r} cannot be a key: a key is a relative path without '..' and has no dot in "
                "its base name"
            )
    if len(set(keys)) < len(keys):
        raise ValueError("a key occurs twice in one shard")


def effective_sample_size(weight: Array) -> float:
    """Return (sum w)^2 / sum w^2 of weights [N], in samples.

    Example:
        >>> effective_sample_size(np.array([1.0, 1.0, 0.0, 0.0]))
        2.0
    """
    total = float(np.square(weight).sum())
    return float(weight.sum()) ** 2 / total if total > 0 else 0.0
