"""The run of `winnow select`: embed, index, dedup, columns, score, select, weight, shard.

Every stage writes a directory whose name holds the digest of its inputs. Complete directories are
reused, and interrupted ones are resumed. A changed parameter renames only what depends on it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from indexes import artifact, devices, npy
from indexes.embeddings import open_embeddings
from indexes.models.teacher import teacher_record
from indexes.shards.reader import Shards, open_shards
from indexes.sources import locations
from indexes.sources.spec import SourceError
from indexes.vectors.build import build_index, embedding_parts, newest_index
from indexes.vectors.index import Vectors
from indexes.vectors.plan import IndexConfig
from pipeline import certificate, key_list
from pipeline.config import SelectConfig
from pipeline.dedup.run import CONSTANTS, DedupSetup, dedup_rows
from pipeline.embedding.embed import Embedder, embed_parts
from pipeline.pool import Pool
from pipeline.scores import columns, knn_distance, probe
from pipeline.selection.top_n import select_top_n, starving
from pipeline.stage import Artifact, Run, open_run, stage
from pipeline.weighting.weights import Weights, weigh
from pipeline.write_shards import gather_rows, write_shard_set

log = logging.getLogger(__name__)
INDEX_BUDGET_BYTES = 4 << 30
Card = Mapping[str, Any]


def select(config: SelectConfig) -> Shards:
    """Select images from a corpus and write them as shards: the whole run.

    Raises ValueError if something does not exist or does not fit, SourceError for a corpus that
    cannot be read, and ArtifactError for an artifact that is damaged or was made from other inputs.

    Example: `select(SelectConfig(corpus="demo", teacher="runs/teachers/r50", n=2_000)).funnel`
    """
    run = open_run(config)
    embedded = embed_corpus(run)
    indexed = index_vectors(run, embedded, "features")
    if run.tower:
        index_vectors(run, embedded, "tower")
    deduped = dedup_pool(run, embedded)
    raw = raw_columns(run, embedded, indexed, deduped)
    scores = score_pool(run, embedded, deduped, raw)
    pool = run.open_pool(embedded, scores, raw=raw, dedup=deduped)
    selected = select_rows(run, pool, scores)
    weighted = weigh_rows(run, pool, selected)
    sources = embedded, deduped, raw, scores, selected, weighted
    shards = shard_rows(run, pool, {made.kind: made for made in sources})
    if config.export:
        key_list.export(config.export, pool, selected.load("rows"), weighted.load("weight"))
    artifact.write_json(run.runs / "last-shards.json", {"shards": str(shards.directory.resolve())})
    return open_shards(shards.directory)


def embed_corpus(run: Run) -> Artifact:
    """Embed the corpus. Raises SourceError for no embedded image, or damage with on_error stop."""
    parts, spec, device = run.corpus.parts, run.corpus.spec, run.device.split(":")[0]
    embedder = Embedder(
        teacher=run.teacher,
        tower=run.tower,
        device=run.device,
        batch_size=128 if device == "cpu" else 256,
        workers=run.workers,
        on_error=run.config.on_error,
        plugin=spec if spec.endswith(".py") else None,
    )
    settings = {
        "schema": artifact.SCHEMAS["embeddings"],
        "teacher": run.teacher.card.digest,
        "tower": run.tower.digest if run.tower else None,
        "precision": "bf16" if devices.has_bf16(run.device) else "fp32",
        "device": device,
        "batch_size": embedder.batch_size,
    }
    inputs = {"parts": [(part.name, part.fingerprint()) for part in parts], **settings}

    def embed(made: Artifact) -> None:
        embed_parts(
            parts,
            embedder,
            made.directory,
            settings=artifact.digest(settings),
            body={
                "digest": made.digest,
                "corpus": run.corpus.name,
                "teacher": teacher_record(run.teacher),
                "tower": run.tower.name if run.tower else None,
                "precision": settings["precision"],
            },
        )

    embedded = stage(run, "embeddings", run.corpus.name, inputs, embed)
    tower = f"{run.tower.name}:{run.tower.weights}" if run.tower else None
    locations.save(run.runs, embedded.directory.name, parts, tower)
    card = artifact.read_card(embedded.directory, "embeddings")
    if run.config.on_error == "stop" and card["damaged_parts"]:
        damage = card["damaged_parts"][0]
        raise SourceError(f"{damage}; repair or remove the file, or use --on-error continue")
    if not card["num_samples"]:
        drops = ", ".join(f"{count:,} {reason}" for reason, count in card["dropped"].items())
        raise SourceError(
            f"corpus {spec}: none of its {card['num_found']:,} samples could be embedded "
            f"({drops or 'it is empty'}); give a corpus of images"
        )
    return embedded


def index_vectors(run: Run, embedded: Artifact, matrix: str) -> Artifact:
    """Index the embeddings' `features` or `tower`; reuse unchanged parts of the newest index."""
    made_by = {
        "corpus": run.corpus.name,
        "matrix": matrix,
        "teacher": run.teacher.card.digest if matrix == "features" else None,
        "tower": run.tower.digest if run.tower and matrix == "tower" else None,
    }

    def build(made: Artifact) -> None:
        build_index(
            made.directory,
            embedding_parts(open_embeddings(embedded.directory), matrix),
            IndexConfig(budget_bytes=INDEX_BUDGET_BYTES),
            previous=newest_index(made.directory.parent, made_by),
            body={"digest": made.digest, "embeddings": embedded.directory.name, **made_by},
        )

    name = run.corpus.name if matrix == "features" else f"{run.corpus.name}-{matrix}"
    inputs = {"embeddings": embedded.digest, "budget": INDEX_BUDGET_BYTES, **made_by}
    return stage(run, "vectors", name, inputs, build)


def dedup_pool(run: Run, embedded: Artifact) -> Artifact:
    """Drop duplicates and evaluation images. Raises SourceError if no image is left."""
    evaluation = run.evaluation
    inputs = {
        "embeddings": embedded.digest,
        "mode": run.config.dedup,
        "exclude_eval": evaluation and [(p.name, p.fingerprint()) for p in evaluation.parts],
        "constants": CONSTANTS,
    }

    def drop(made: Artifact) -> None:
        pool = run.open_pool(embedded, made, dedup=made)
        setup = DedupSetup(
            mode=run.config.dedup,
            evaluation=evaluation,
            geometry=run.teacher.geometry,
            device=run.device,
            workers=run.workers,
        )
        dedup_rows(pool, made.directory, setup, digest=made.digest)

    deduped = stage(run, "dedup", run.corpus.name, inputs, drop)
    if not artifact.read_card(deduped.directory, "dedup")["num_candidates"]:
        spec = f"corpus {run.corpus.spec}"
        raise SourceError(f"{spec}: all of its images are in the evaluation set; give another one")
    return deduped


def raw_columns(run: Run, embedded: Artifact, indexed: Artifact, deduped: Artifact) -> Artifact:
    """Write the raw columns, which every method may rank by."""
    digests = {"embeddings": embedded.digest, "vectors": indexed.digest, "dedup": deduped.digest}
    inputs = {**digests, "neighbors": knn_distance.K, "probe": probe.CONSTANTS}

    def fill(made: Artifact) -> Card:
        pool = run.open_pool(embedded, made, dedup=deduped)
        class_names = run.tower.encode_names(run.teacher.card.classes) if run.tower else None
        vectors = Vectors(indexed.directory)
        neighbors = vectors.neighbors(pool.blocks, knn_distance.K, probes=vectors.card["nprobe"])
        columns.fill(pool, (similarity for similarity, _ in neighbors), class_names)
        pool.fill((b, {"proxy_kl": values}) for b, values in probe.proxy_kl(pool, run.device))
        return {"columns": pool.scores}

    return stage(run, "columns", run.corpus.name, inputs, fill)


def score_pool(run: Run, embedded: Artifact, deduped: Artifact, raw: Artifact) -> Artifact:
    """Write the method's columns. Raises ValueError if the column `score` is not among them."""
    scoring, seed = run.method.config.scoring(), run.config.seed
    digests = {"columns": raw.digest, "method": run.method.digest}
    inputs = {**digests, "config": scoring, "seed": seed}

    def score(made: Artifact) -> Card:
        pool = run.open_pool(embedded, made, raw=raw, dedup=deduped)
        pool.fill(run.method.score(pool, seed))
        if "score" not in pool.scores:
            raise ValueError(f"method {run.method.name} must yield a column 'score' of each block")
        return {"method": run.method.name, "config": scoring, "columns": pool.scores}

    return stage(run, "scores", run.name, inputs, score)


def select_rows(run: Run, pool: Pool, scores: Artifact) -> Artifact:
    """Write the rows to keep, ascending, and count why the other rows are dropped."""
    n, config = run.config.n, run.method.config
    inputs = {
        "scores": scores.digest,
        "n": n if config.balance != "all" else None,
        "balance": config.balance,
        "floor": config.floor_log_odds if config.balance == "quota_with_floor" else None,
    }

    def choose(made: Artifact) -> Card:
        out, request = made.directory / "rows.npy", {"num_requested": n}
        if run.config.keys:
            chosen, request = key_list.select(pool, run.config.keys, made.directory)
        else:
            chosen = select_top_n(pool, n, config.balance, config.floor_log_odds, out)
        shortages = starving(chosen.histogram, pool.classes)
        return {
            **request,
            "kept": chosen.num_rows,
            "dropped": chosen.dropped,
            "below_floor": chosen.below_floor,
            "class_histogram": chosen.histogram,
            "starving": {name: {"kept": kept, "short": short} for name, kept, short in shortages},
        }

    return stage(run, "selection", run.name, inputs, choose)


def weigh_rows(run: Run, pool: Pool, selected: Artifact) -> Artifact:
    """Write one weight per selected row, with mean 1, and the certificate of the selection."""
    config, seed = run.method.config, run.config.seed
    inputs = {
        "selection": selected.digest,
        "weights": config.weights,
        "cap": config.weight_cap if config.weights != "none" else None,
        "floor": config.weight_floor if config.weights in ("soft_prior", "moment_match") else None,
        "seed": seed,
    }

    def certify(made: Artifact) -> Card:
        rows, cap, floor = selected.load("rows"), config.weight_cap, config.weight_floor
        weighed = weigh(pool, rows, config.weights, cap=cap, floor=floor, seed=seed)
        if run.config.keys:
            weighed = Weights(selected.load("weight"), {"weights": "listed"})
        dropped = artifact.read_card(selected.directory, "selection")["dropped"]
        figures, moments = certificate.certify(pool, rows, weighed.weight, dropped, seed)
        npy.save(made.directory / "weight.npy", weighed.weight)
        if moments is not None:
            npy.save(made.directory / "moments.npy", moments)
        if "note" in weighed.note:
            log.info("note: %s", weighed.note["note"])
        return {"weighing": weighed.note, "certificate": figures}

    return stage(run, "weights", run.name, inputs, certify)


def shard_rows(run: Run, pool: Pool, sources: Mapping[str, Artifact]) -> Artifact:
    """Write the shards: tars, side-cars, and a card with the funnel and the artifacts used."""
    deduped, selected, weighted = (sources[kind] for kind in ("dedup", "selection", "weights"))

    def write(made: Artifact) -> Card:
        rows, card = selected.load("rows"), pool.embeddings.card
        selection = artifact.read_card(selected.directory, "selection")
        weighing = artifact.read_card(weighted.directory, "weights")
        dropped = {**card["dropped"], **selection["dropped"]}
        contents = write_shard_set(
            pool,
            run.corpus.parts,
            gather_rows(pool, rows, weighted.load("weight")),
            made.directory,
            plan_digest=made.digest,
            seed=run.config.seed,
            workers=devices.cores(),
        )
        return {
            "corpus": run.corpus.name,
            "teacher": teacher_record(run.teacher),
            "method": run.method.name,
            "config": run.method.config,
            "seed": run.config.seed,
            "dedup": artifact.read_card(deduped.directory, "dedup"),
            "num_requested": selection["num_requested"],
            "below_floor": selection["below_floor"],
            "starving": selection["starving"],
            "weighing": weighing["weighing"],
            "certificate": weighing["certificate"],
            **{name: selection[name] for name in ("missing", "changed") if name in selection},
            "funnel": {"in": card["num_found"], "dropped": dropped, "kept": len(rows)},
            "damaged_parts": card["damaged_parts"],
            "artifacts": {kind: source.directory.name for kind, source in sources.items()},
            **contents,
        }

    inputs = {"weights": weighted.digest, "seed": run.config.seed}
    return stage(run, "shards", run.name, inputs, write, directory=run.config.out)
