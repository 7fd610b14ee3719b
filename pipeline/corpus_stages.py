"""What a corpus gets once, whatever the method: embedding, index, dedup, raw columns.

A stage is a function from artifact to artifact, as in pipeline.stages.
"""

from __future__ import annotations

import dataclasses

from indexes import artifact, devices, embeddings
from indexes.models.teacher import teacher_record
from indexes.sources import locations
from indexes.sources.spec import SourceError
from indexes.vectors.build import build_index, embedding_parts, newest_index
from indexes.vectors.index import Vectors
from pipeline.config import Run
from pipeline.dedup.run import CONSTANTS, DedupSetup, dedup_rows
from pipeline.embedding.embed import Embedder, embed_parts
from pipeline.scores import columns, knn_distance, probe
from pipeline.stage import Made, open_pool, stage

INDEX_BUDGET_BYTES = 4 << 30


def embed_corpus(run: Run) -> Made:
    """Every image through the teacher once; SourceError when none could be."""
    parts = run.corpus.parts
    device = run.device.split(":")[0]
    batch_size = 128 if device == "cpu" else 256
    settings = {
        "schema": artifact.SCHEMAS["embeddings"],
        "teacher": run.teacher.card.digest,
        "tower": run.tower.digest if run.tower else None,
        "precision": "bf16" if devices.has_bf16(run.device) else "fp32",
        "device": device,
        "batch_size": batch_size,
    }
    inputs = {"parts": [(part.name, part.fingerprint()) for part in parts], **settings}

    def make(made: Made) -> None:
        embed_parts(
            parts,
            Embedder(
                teacher=run.teacher,
                tower=run.tower,
                device=run.device,
                batch_size=batch_size,
                workers=run.workers,
                on_error=run.on_error,
                plugin=run.corpus.spec if run.corpus.spec.endswith(".py") else None,
            ),
            made.directory,
            settings=artifact.digest(settings),
            body={
                "digest": made.digest,
                "corpus": run.corpus.name,
                "teacher": teacher_record(run.teacher),
                "tower": run.tower.name if run.tower else None,
                "precision": inputs["precision"],
            },
        )

    made = stage(run, "embeddings", run.corpus.name, inputs, make)
    tower = f"{run.tower.name}:{run.tower.weights}" if run.tower else None
    locations.save(run.runs, made.directory.name, parts, tower)
    card = artifact.read_card(made.directory, "embeddings")
    if run.on_error == "stop" and card["damaged_parts"]:
        raise SourceError(f"{card['damaged_parts'][0]}; mend or remove it, or --on-error continue")
    if not card["num_samples"]:
        raise SourceError(
            f"corpus {run.corpus.spec}: none of its {card['num_found']:,} samples could be "
            f"embedded ({reasons(card['dropped']) or 'it is empty'})"
        )
    return made


def index_vectors(run: Run, embedded: Made, matrix: str = "features") -> Made:
    """A FAISS index of the teacher's features (or the tower's vectors); what the last one holds of
    unchanged parts is taken over.
    """
    whole = embeddings.open_embeddings(embedded.directory)
    made_by = {
        "corpus": run.corpus.name,
        "matrix": matrix,
        "teacher": run.teacher.card.digest if matrix == "features" else None,
        "tower": run.tower.digest if run.tower and matrix == "tower" else None,
    }

    def make(made: Made) -> None:
        build_index(
            made.directory,
            embedding_parts(whole, matrix),
            budget_bytes=INDEX_BUDGET_BYTES,
            previous=newest_index(made.directory.parent, made_by),
            body={"digest": made.digest, "embeddings": embedded.directory.name, **made_by},
        )
        run.say(f"vectors: {len(whole):,} of {matrix}, {made.directory}")

    name = run.corpus.name if matrix == "features" else f"{run.corpus.name}-{matrix}"
    inputs = {"embeddings": embedded.digest, "budget": INDEX_BUDGET_BYTES, **made_by}
    return stage(run, "vectors", name, inputs, make)


def dedup_pool(run: Run, embedded: Made) -> Made:
    """Why rows are out before anything is scored: copies, near duplicates, a protected set."""
    protect = run.protect
    inputs = {
        "embeddings": embedded.digest,
        "mode": run.dedup,
        "protect": protect and [(part.name, part.fingerprint()) for part in protect.parts],
        "constants": CONSTANTS,
    }

    def make(made: Made) -> None:
        setup = DedupSetup(
            mode=run.dedup,
            evaluation=protect,
            geometry=run.teacher.geometry,
            device=run.device,
            workers=run.workers,
        )
        dedup_rows(open_pool(run, embedded, made), made.directory, setup, digest=made.digest)

    made = stage(run, "dedup", run.corpus.name, inputs, make)
    if not artifact.read_card(made.directory, "dedup")["num_candidates"]:
        raise SourceError(
            f"corpus {run.corpus.spec}: all of its images are in the evaluation set; name another"
        )
    return made


def raw_columns(run: Run, embedded: Made, indexed: Made, deduped: Made) -> Made:
    """The columns that any method may rank by, whatever the method."""
    digests = {"embeddings": embedded.digest, "vectors": indexed.digest, "dedup": deduped.digest}
    inputs = {**digests, "neighbors": knn_distance.K, "probe": probe.CONSTANTS}
    beside = {"dedup": deduped.directory}

    def make(made: Made) -> None:
        pool = open_pool(run, embedded, dataclasses.replace(made, beside=beside))
        names = run.tower.encode_names(run.teacher.card.classes) if run.tower else None
        vectors = Vectors(indexed.directory)
        found = vectors.neighbors(pool.blocks, knn_distance.K, probes=vectors.card["nprobe"])
        columns.fill(pool, (similarity for similarity, _ in found), names)
        pool.fill((b, {"proxy_kl": v}) for b, v in probe.proxy_kl(pool, run.device))
        body = {"digest": made.digest, "columns": pool.scores}
        artifact.write_card(made.directory, "columns", body)
        run.say(f"columns: {', '.join(pool.scores)}, {made.directory}")

    made = stage(run, "columns", run.corpus.name, inputs, make)
    return dataclasses.replace(made, beside=beside)


def reasons(dropped: dict[str, int]) -> str:
    """`3 corrupt, 1 empty` of {"corrupt": 3, "empty": 1}."""
    return ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())
