"""The offline run, top to bottom: embed, index, dedup, score, select, weigh, shard.

Every stage is a directory named by the digest of what it was made from. A whole one is reused, a
cut-off one goes on, and a changed parameter gives a new name to what depends on it alone.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from indexes import artefact, devices, embeddings, indexing, whereabouts
from indexes.sources import SourceError
from indexes.teachers import Teacher
from pipeline import certificate, columns, dedup, embed, keys, selection, shard, weights
from pipeline.run import Made, Run, open_pool, save, stage

INDEX_BUDGET_BYTES = 4 << 30


def select(run: Run) -> Path:
    """The whole offline run; returns the shards' directory."""
    embedded = embed_corpus(run)
    index_vectors(run, embedded)
    if run.tower:
        index_vectors(run, embedded, "tower")
    deduped = dedup_pool(run, embedded)
    raw = raw_columns(run, embedded, deduped)
    scores = score_pool(run, embedded, raw)
    selected = select_rows(run, embedded, scores)
    weighted = weigh_rows(run, embedded, scores, selected)
    shards = write_shards(run, embedded, scores, selected, weighted)
    if run.export:
        pool = open_pool(run, embedded, scores)
        keys.export(run.export, pool, selected.load("rows"), weighted.load("weight"))
    artefact.write_json(run.runs / "last-shards.json", {"shards": str(shards.directory.resolve())})
    return shards.directory


def embed_corpus(run: Run) -> Made:
    """Every image through the teacher once; SourceError when none could be."""
    parts = run.corpus.parts
    device = run.device.split(":")[0]
    batch_size = 128 if device == "cpu" else 256
    settings = {
        "schema": artefact.SCHEMAS["embeddings"],
        "teacher": run.teacher.card.digest,
        "tower": run.tower.digest if run.tower else None,
        "precision": "bf16" if devices.has_bf16(run.device) else "fp32",
        "device": device,
        "batch_size": batch_size,
    }
    inputs = {"parts": [(part.name, part.fingerprint()) for part in parts], **settings}

    def make(made: Made) -> None:
        embed.embed(
            parts,
            run.teacher,
            made.directory,
            body={
                "digest": made.digest,
                "corpus": run.corpus.name,
                "teacher": teacher_note(run.teacher),
                "tower": run.tower.name if run.tower else None,
                "precision": inputs["precision"],
            },
            tower=run.tower,
            device=run.device,
            batch_size=batch_size,
            workers=run.workers,
            on_error=run.on_error,
            plugin=run.corpus.spec if run.corpus.spec.endswith(".py") else None,
            settings=artefact.digest(settings),
        )

    made = stage(run, "embeddings", run.corpus.name, inputs, make)
    tower = f"{run.tower.name}:{run.tower.weights}" if run.tower else None
    whereabouts.remember(run.runs, made.directory.name, parts, tower)
    card = artefact.read_card(made.directory, "embeddings")
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
        "seed": run.seed,
        "teacher": run.teacher.card.digest if matrix == "features" else None,
        "tower": run.tower.digest if run.tower and matrix == "tower" else None,
    }

    def make(made: Made) -> None:
        indexing.build(
            made.directory,
            indexing.of_embeddings(whole, matrix),
            seed=run.seed,
            budget_bytes=INDEX_BUDGET_BYTES,
            previous=indexing.newest(made.directory.parent, made_by),
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
        "constants": dedup.CONSTANTS,
    }

    def make(made: Made) -> None:
        lines = dedup.make(
            open_pool(run, embedded, made),
            made.directory,
            run.dedup,
            protect,
            run.teacher.geometry,
            digest=made.digest,
            device=run.device,
            workers=run.workers,
        )
        for line in lines:
            run.say(f"dedup: {line}")

    made = stage(run, "dedup", run.corpus.name, inputs, make)
    if not artefact.read_card(made.directory, "dedup")["num_candidates"]:
        raise SourceError(
            f"corpus {run.corpus.spec}: all of its images are in the set to protect; name another"
        )
    return made


def raw_columns(run: Run, embedded: Made, deduped: Made) -> Made:
    """The columns that any method may rank by, whatever the method."""
    inputs = {"embeddings": embedded.digest, "dedup": deduped.digest}
    beside = {"dedup": deduped.directory}

    def make(made: Made) -> None:
        pool = open_pool(run, embedded, dataclasses.replace(made, beside=beside))
        names = run.tower.of_names(run.teacher.card.classes) if run.tower else None
        columns.fill(pool, names)
        body = {"digest": made.digest, "columns": pool.scores}
        artefact.write_card(made.directory, "columns", body)
        run.say(f"columns: {', '.join(pool.scores)}, {made.directory}")

    made = stage(run, "columns", run.corpus.name, inputs, make)
    return dataclasses.replace(made, beside=beside)


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
        artefact.write_card(
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
            chosen, note = keys.select(pool, run.keys, made.directory)
        else:
            chosen = selection.select(pool, run.n, config.balance, config.floor_log_odds, out)
            note = {"asked": run.n}
        artefact.write_card(
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
                    for name, kept, short in selection.starving(chosen.histogram, pool.classes)
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
        found = weights.weigh(pool, rows, config.weights, cap=cap, floor=floor, seed=run.seed)
        if run.keys:
            found = weights.Weighed(selected.load("weight"), {"weights": "listed"})
        dropped = artefact.read_card(selected.directory, "selection")["dropped"]
        figures, moments = certificate.certify(pool, rows, found.weight, dropped, run.seed)
        save(made.directory / "weight.npy", found.weight)
        if moments is not None:
            save(made.directory / "moments.npy", moments)
        note = {"digest": made.digest, "weighing": found.note, "certificate": figures}
        artefact.write_card(made.directory, "weights", note)
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
        choice = artefact.read_card(selected.directory, "selection")
        weighing = artefact.read_card(weighted.directory, "weights")
        dropped = {**card["dropped"], **choice["dropped"]}
        shard.write(
            pool,
            run.corpus.parts,
            shard.gather(pool, rows, weighted.load("weight")),
            made.directory,
            plan_digest=made.digest,
            seed=run.seed,
            workers=devices.cores(),
            body={
                "digest": made.digest,
                "corpus": run.corpus.name,
                "teacher": teacher_note(run.teacher),
                "method": run.method_name,
                "config": dataclasses.asdict(run.config),
                "seed": run.seed,
                "dedup": artefact.read_card(scores.beside["dedup"], "dedup"),
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


def teacher_note(teacher: Teacher) -> dict[str, Any]:
    """What an artefact records of the teacher that it was made with."""
    card = teacher.card
    return {
        "digest": card.digest,
        "name": teacher.directory.name,
        "builder": card.builder,
        "input_size": card.input_size,
        "crop_frac": card.crop_frac,
        "interpolation": card.interpolation,
    }


def reasons(dropped: dict[str, int]) -> str:
    """`3 corrupt, 1 empty` of {"corrupt": 3, "empty": 1}."""
    return ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())
