"""The contract: curated WebDataset shards with the teacher's answers inside, writer and reader.

A directory holds `shard-000000.tar` (image, json, npy members; stock webdataset reads them),
`shard-000000.parquet` (the side-car: every column, targets and tar offsets, so that analysis and
re-weighting never touch a tar) and `card.json`, written last. N: samples, K: stored logits.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexes import artefact, sidecars
from indexes.artefact import ArtefactError
from indexes.tarwriter import HashedTar, npy_rows

Array = npt.NDArray[Any]
FULL_LOGITS = 128  # up to this many classes every logit is kept, above it the top ones
MAX_OPEN = 64


def shard_name(number: int) -> str:
    """`shard-000000.tar` for 0."""
    return f"shard-{number:06d}.tar"


class ShardWriter:
    """Writes shards into `directory`, each once whole; `finish` declares the set.

    `plan` is the digest of all that determines the bytes: a shard left by a cut-off run of the
    same plan is kept, of another plan refused by name (ArtefactError).
    """

    def __init__(self, directory: Path, plan: str, classes: Sequence[str]) -> None:
        self.directory, self.plan, self.classes = Path(directory), plan, tuple(classes)
        self.directory.mkdir(parents=True, exist_ok=True)
        for sidecar in sorted(self.directory.glob("shard-*.parquet")):
            found = sidecars.note(sidecar).get("plan")
            if found != plan:
                raise ArtefactError(
                    f"{self.directory} holds shards of another run ({sidecar.name}: plan {found}); "
                    "delete it or name another directory"
                )

    def has(self, number: int) -> bool:
        """Whether this shard is already there, whole."""
        tar = self.directory / shard_name(number)
        sidecar = tar.with_suffix(".parquet")
        return (
            sidecar.is_file()
            and tar.is_file()
            and tar.stat().st_size == int(sidecars.note(sidecar)["bytes"])
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
        """One shard of n samples.

        columns: label, weight and any of COLUMNS and float32 scores, each [n]; logits float16
        [n, K]; logit_classes int32 [n, K], or None where K = C and column c is class c.
        The tar comes first, the side-car (which bears the tar's sha256) is the done-marker.
        """
        tar = self.directory / shard_name(number)
        check_keys(keys)
        sources = sources if sources is not None else [""] * len(keys)
        table = {name: np.asarray(column) for name, column in columns.items()}
        table["key_hash"] = np.array([artefact.hash64(key.encode()) for key in keys], np.uint64)
        for name in ("logsumexp", "source_offset"):
            table.setdefault(name, np.zeros(len(keys), sidecars.COLUMNS[name]))
        offsets, sizes = np.zeros(len(keys), np.int64), np.zeros(len(keys), np.int64)
        targets = {"logits.npy": npy_rows(np.asarray(logits, np.float16))}
        if logit_classes is not None:
            targets["classes.npy"] = npy_rows(np.asarray(logit_classes, np.int32))
        notes = self._notes(table, sources)
        with artefact.writing(tar) as aside, aside.open("wb") as file:
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
        sidecars.write(tar.with_suffix(".parquet"), strings, table, logits, logit_classes, note)

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

    def finish(self, num_shards: int, body: Mapping[str, Any]) -> None:
        """Writes card.json over shards 0..num_shards-1; ArtefactError if one is not whole."""
        files: list[dict[str, Any]] = []
        labels, weights = [], []
        for number in range(num_shards):
            if not self.has(number):
                raise ArtefactError(f"{self.directory / shard_name(number)} is not whole")
            sidecar = (self.directory / shard_name(number)).with_suffix(".parquet")
            columns = sidecars.read_columns(sidecar, ["label", "weight"])
            labels.append(columns["label"])
            weights.append(columns["weight"])
            note = sidecars.note(sidecar)
            files.append(
                {
                    "name": shard_name(number),
                    "bytes": int(note["bytes"]),
                    "sha256": note["sha256"],
                    "num_samples": len(columns["label"]),
                    "sidecar_sha256": artefact.sha256(sidecar),
                }
            )
        label, weight = np.concatenate(labels), np.concatenate(weights).astype(np.float64)
        counts = np.bincount(label, minlength=len(self.classes))
        artefact.write_card(
            self.directory,
            "shards",
            {
                "plan": self.plan,
                "num_samples": len(label),
                "num_shards": num_shards,
                "num_bytes": sum(file["bytes"] for file in files),
                "classes": self.classes,
                "class_histogram": counts,
                "effective_sample_size": effective_sample_size(weight),
                **body,
                "files": files,
            },
        )


def check_keys(keys: Sequence[str]) -> None:
    """ValueError unless webdataset reads every key back and no tar leads out of its folder."""
    for key in keys:
        *folders, base = key.split("/")
        if not base or "." in base or "\0" in key or {"", ".", ".."} & set(folders):
            raise ValueError(f"{key!r} cannot be a key: relative, no '..', no dot in its base name")
    if len(set(keys)) < len(keys):
        raise ValueError("a key occurs twice in one shard")


def effective_sample_size(weight: Array) -> float:
    """(sum w)^2 / sum w^2 of weights [N], in samples."""
    total = float(np.square(weight).sum())
    return float(weight.sum()) ** 2 / total if total > 0 else 0.0


class Shards:
    """A whole shard set, opened: columns in memory, images read by tar offset.

    keys: [N] str; columns: name -> [N]; logits: float16 [N, K]; logit_classes: int32 [N, K], or
    None where K = C. Targets are the teacher's answers to the canonical view (centre crop).
    """

    def __init__(self, directory: Path, card: dict[str, Any]) -> None:
        self.directory, self.card = Path(directory), card
        self.classes = tuple(card["classes"])
        self.teacher_digest = str(card["teacher"]["digest"])
        self.input_size = int(card["teacher"]["input_size"])
        self.tars = [self.directory / file["name"] for file in card["files"]]
        sizes = [int(file["num_samples"]) for file in card["files"]]
        self._shard_of = np.repeat(np.arange(len(sizes)), sizes)
        self._open: OrderedDict[int, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._shard_of)

    def check_teacher(self, digest: str) -> None:
        """ArtefactError unless the teacher of this digest labelled these shards."""
        if self.teacher_digest != digest:
            raise ArtefactError(
                f"{self.directory} was labelled by another teacher ({self.teacher_digest[:12]}, "
                f"not {digest[:12]}): name that teacher, or select again with this one"
            )

    @cached_property
    def keys(self) -> Array:
        """[N] str, in shard order."""
        return self._strings("key")

    @cached_property
    def sources(self) -> Array:
        """[N] str: the corpus part that each image came from."""
        return self._strings("source")

    def _strings(self, name: str) -> Array:
        import pyarrow.parquet as pq

        parts = [pq.read_table(self._sidecar(tar), columns=[name])[name] for tar in self.tars]
        values = [value for part in parts for value in part.to_pylist()]
        return np.array(values, dtype=np.dtypes.StringDType())

    @cached_property
    def columns(self) -> dict[str, Array]:
        """Every numeric column, [N] each: label, weight, key_hash, logsumexp, scores, offsets."""
        import pyarrow.parquet as pq

        schema = pq.read_schema(self._sidecar(self.tars[0]))
        skip = {"key", "ext", "source", "logits", "logit_classes"}
        names = [name for name in schema.names if name not in skip]
        parts = [sidecars.read_columns(self._sidecar(tar), names) for tar in self.tars]
        return {name: np.concatenate([part[name] for part in parts]) for name in names}

    @cached_property
    def logits(self) -> Array:
        """float16 [N, K]: all logits where K = C, else the top ones of `logit_classes`."""
        return np.concatenate(
            [sidecars.read_matrix(self._sidecar(tar), "logits") for tar in self.tars]
        )

    @cached_property
    def logit_classes(self) -> Array | None:
        """int32 [N, K], or None where every logit is kept."""
        import pyarrow.parquet as pq

        if "logit_classes" not in pq.read_schema(self._sidecar(self.tars[0])).names:
            return None
        parts = [sidecars.read_matrix(self._sidecar(tar), "logit_classes") for tar in self.tars]
        return np.concatenate(parts)

    def read(self, row: int) -> bytes:
        """The image's own bytes; ArtefactError when the tar is cut short."""
        shard = int(self._shard_of[row])
        size, offset = int(self.columns["size"][row]), int(self.columns["offset"][row])
        data = os.pread(self._file(shard), size, offset)
        if len(data) != size:
            raise ArtefactError(f"{self.tars[shard]} is cut short: make the shards again")
        return data

    def _file(self, shard: int) -> int:
        if shard not in self._open:
            if len(self._open) >= MAX_OPEN:
                os.close(self._open.popitem(last=False)[1])
            self._open[shard] = os.open(self.tars[shard], os.O_RDONLY)
        self._open.move_to_end(shard)
        return self._open[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def __del__(self) -> None:
        for handle in self.__dict__.get("_open", {}).values():
            os.close(handle)

    @staticmethod
    def _sidecar(tar: Path) -> Path:
        return tar.with_suffix(".parquet")


def open_shards(directory: str | Path, *, teacher_digest: str | None = None) -> Shards:
    """Opens a whole shard set.

    ArtefactError: unfinished, another schema, a tar missing or of another size, or shards that
    another teacher labelled (when `teacher_digest` is given).
    """
    directory = Path(directory)
    card = artefact.read_card(directory, "shards")
    missing = [name for name in ("files", "teacher", "classes", "num_samples") if name not in card]
    names = [str(file.get("name")) for file in card.get("files", [])]
    if missing or names != [shard_name(number) for number in range(len(names))]:
        raise ArtefactError(f"{directory / artefact.CARD} is not a card of shards; make them again")
    for file in card["files"]:
        tar = directory / file["name"]
        found = tar.stat().st_size if tar.is_file() else None
        if found != file["bytes"] or not tar.with_suffix(".parquet").is_file():
            state = "is missing" if found is None else f"has {found} bytes, not {file['bytes']}"
            if found == file["bytes"]:
                state = "has lost its side-car .parquet"
            raise ArtefactError(f"{tar} {state}: delete {directory} and make the shards again")
    shards = Shards(directory, card)
    if teacher_digest is not None:
        shards.check_teacher(teacher_digest)
    return shards
