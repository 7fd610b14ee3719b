"""The offline run, top to bottom: embed, index, dedup, score, select, weigh, shard.

Every stage is a directory named by the digest of what it was made from. A whole one is reused, a
cut-off one goes on, and a changed parameter gives a new name to what depends on it alone.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from indexes import artifact, devices, npy
from indexes.models.teacher import teacher_record
from pipeline import certificate, corpus_stages, key_list
from pipeline.config import Run
from pipeline.selection.top_n import select_top_n, starving
from pipeline.stage import Made, open_pool, stage
from pipeline.weighting.weights import Weighed, weigh
from pipeline.write_shards import gather_rows, write_shard_set


def select(run: Run) -> Path:
    """The whole offline run; returns the shards' directory."""
    embedded = corpus_stages.embed_corpus(run)
    indexed = corpus_stages.index_vectors(run, embedded)
    if run.tower:
        corpus_stages.index_vectors(run, embedded, "tower")
    deduped = corpus_stages.dedup_pool(run, embedded)
    raw = corpus_stages.raw_columns(run, embedded, indexed, deduped)
    scores = score_pool(run, embedded, raw)
    selected = select_rows(run, embedded, scores)
    weighted = weigh_rows(run, embedded, scores, selected)
    shards = write_shards(run, embedded, scores, selected, weighted)
    if run.export:
        pool = open_pool(run, embedded, scores)
        key_list.export(run.export, pool, selected.load("rows"), weighted.load("weight"))
    artifact.write_json(run.runs / "last-shards.json", {"shards": str(shards.directory.resolve())})
    return shards.directory


def score_pool(run: Run, embedded: Made, raw: Made) -> Made:
    """The method's own columns over the whole pool, `score` above all."""
    inputs = {
        "columns": raw.digest,
        "method": run.method_digest,
        "config": run.config.scoring(),
        "seed": run.seed,
    }
    beside = {"raw": raw.directory, **raw.beside}

    def make(made: Made) -> None:
        pool = open_pool(run, embedded, dataclasses.replace(made, beside=beside))
        pool.fill(run.method.score(pool, run.config, run.seed))
        if "score" not in pool.scores:
            raise ValueError(f"method {run.method_name} yields no column 'score'")
        artifact.write_card(
            made.directory,
            "scores",
            {
                "digest": made.digest,
                "method": run.method_name,
                "config": run.config.scoring(),
                "columns": pool.scores,
            },
        )
        run.say(f"scores: by {run.method_name}, {made.directory}")

    made = stage(run, "scores", f"{run.corpus.name}-{run.method_name}", inputs, make)
    return dataclasses.replace(made, beside=beside)


def select_rows(run: Run, embedded: Made, scores: Made) -> Made:
    """The rows to keep, ascending, and why the others are not."""
    config = run.config
    inputs = {
        "scores": scores.digest,
        "n": run.n if config.balance != "all" else None,
        "balance": config.balance,
        "floor": config.floor_log_odds if config.balance == "quota_with_floor" else None,
    }

    def make(made: Made) -> None:
        pool = open_pool(run, embedded, scores)
        out = made.directory / "rows.npy"
        if run.keys:
            chosen, note = key_list.select(pool, run.keys, made.directory)
        else:
            chosen = select_top_n(pool, run.n, config.balance, config.floor_log_odds, out)
            note = {"asked": run.n}
        artifact.write_card(
            made.directory,
            "selection",
            {
                "digest": made.digest,
                **note,
                "kept": chosen.num_rows,
                "dropped": chosen.dropped,
                "below_floor": chosen.below_floor,
                "class_histogram": chosen.histogram,
                "starving": {
                    name: {"kept": kept, "short": short}
                    for name, kept, short in starving(chosen.histogram, pool.classes)
                },
            },
        )
        run.say(f"selection: {chosen.num_rows:,} of {len(pool):,}, {made.directory}")

    return stage(run, "selection", f"{run.corpus.name}-{run.method_name}", inputs, make)


def weigh_rows(run: Run, embedded: Made, scores: Made, selected: Made) -> Made:
    """One weight a selected row, mean 1, and the certificate of the selection so weighted."""
    config = run.config
    inputs = {
        "selection": selected.digest,
        "weights": config.weights,
        "cap": config.weight_cap if config.weights != "none" else None,
        "floor": config.weight_floor if config.weights in ("soft_prior", "moment_match") else None,
        "seed": run.seed,
    }

    def make(made: Made) -> None:
        pool, rows = open_pool(run, embedded, scores), selected.load("rows")
        cap, floor = config.weight_cap, config.weight_floor
        found = weigh(pool, rows, config.weights, cap=cap, floor=floor, seed=run.seed)
        if run.keys:
            found = Weighed(selected.load("weight"), {"weights": "listed"})
        dropped = artifact.read_card(selected.directory, "selection")["dropped"]
        figures, moments = certificate.certify(pool, rows, found.weight, dropped, run.seed)
        npy.save(made.directory / "weight.npy", found.weight)
        if moments is not None:
            npy.save(made.directory / "moments.npy", moments)
        note = {"digest": made.digest, "weighing": found.note, "certificate": figures}
        artifact.write_card(made.directory, "weights", note)
        if "note" in found.note:
            run.say(f"note: {found.note['note']}")
        run.say(f"weights: {config.weights}, {made.directory}")

    return stage(run, "weights", f"{run.corpus.name}-{run.method_name}", inputs, make)


def write_shards(run: Run, embedded: Made, scores: Made, selected: Made, weighted: Made) -> Made:
    """The contract: tars, side-cars and the card with the funnel."""
    inputs = {"weights": weighted.digest, "seed": run.seed}

    def make(made: Made) -> None:
        pool = open_pool(run, embedded, scores)
        rows, card = selected.load("rows"), pool.embeddings.card
        choice = artifact.read_card(selected.directory, "selection")
        weighing = artifact.read_card(weighted.directory, "weights")
        dropped = {**card["dropped"], **choice["dropped"]}
        write_shard_set(
            pool,
            run.corpus.parts,
            gather_rows(pool, rows, weighted.load("weight")),
            made.directory,
            plan_digest=made.digest,
            seed=run.seed,
            workers=devices.cores(),
            body={
                "digest": made.digest,
                "corpus": run.corpus.name,
                "teacher": teacher_record(run.teacher),
                "method": run.method_name,
                "config": dataclasses.asdict(run.config),
                "seed": run.seed,
                "dedup": artifact.read_card(scores.beside["dedup"], "dedup"),
                "asked": choice["asked"],
                "below_floor": choice["below_floor"],
                "starving": choice["starving"],
                "weighing": weighing["weighing"],
                "certificate": weighing["certificate"],
                **{name: choice[name] for name in ("missing", "changed") if name in choice},
                "funnel": {"in": card["num_found"], "dropped": dropped, "kept": len(rows)},
                "damaged_parts": card["damaged_parts"],
            },
        )

    name = f"{run.corpus.name}-{run.method_name}"
    return stage(run, "shards", name, inputs, make, directory=run.out)
