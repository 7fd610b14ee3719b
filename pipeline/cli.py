"""The offline commands: select (the whole run), paint, corpora. Thin: the work is elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from indexes.cli import Device, Runs, Trust, aligned, funnel_lines, user_errors

app = typer.Typer(no_args_is_help=True, add_completion=False)
# What ranked selections as their students did (docs/LOG.md), and how even the classes are.
CERTIFIED = ("frechet", "mean_rms", "information", "unsure_frac", "soft_class_entropy")


@app.command()
def select(
    corpus: Annotated[
        str,
        typer.Option(
            help="A corpus by name (see `winnow corpora`), your own .py file, or paths: a tar, a "
            "glob or brace of tars, a folder of images, tars or Parquet, an fsspec URL."
        ),
    ],
    teacher: Annotated[
        str | None,
        typer.Option(
            help="A teacher directory, or a name under RUNS/teachers. Default: the only one."
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="winnow (default), odsd, kd3, eikd, dfnd, mix, random, entropy_top, all, or "
            "your own .py file."
        ),
    ] = None,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Images to keep.")] = 50_000,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the method, key=value; repeat or space-separate."),
    ] = None,
    score_set: Annotated[
        str | None,
        typer.Option(
            help="A combination of your own: 'log_odds=1 outlier=-1 bn=-0.5'; --method mix."
        ),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(help="Select the images of this list (.parquet of an --export), no others."),
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Also write what was selected as a sorted list of keys.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Order of the shards, random draws.")] = 0,
    runs: Runs = Path("runs"),
    out: Annotated[
        Path | None, typer.Option(help="The shards' directory. Default: under RUNS/shards.")
    ] = None,
    tower: Annotated[
        str | None,
        typer.Option(
            help="Also embed by an open_clip tower: MODEL:WEIGHTS_FILE, in the same pass."
        ),
    ] = None,
    device: Device = "auto",
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Decoding processes. The bytes out do not depend on it."),
    ] = None,
    on_error: Annotated[
        str, typer.Option(help="A damaged corpus file: continue (counted) or stop.")
    ] = "continue",
    dedup: Annotated[
        str,
        typer.Option(
            help="near: one of re-encoded, resized, cropped, mirrored, recolored copies is kept. "
            "exact: only equal bytes are dropped. off."
        ),
    ] = "near",
    protect: Annotated[
        str | None,
        typer.Option(
            help="An evaluation set, written like a corpus: its images and what is like them are "
            "taken out of the pool and listed. Its labels are not read."
        ),
    ] = None,
    trust_builder: Trust = False,
) -> None:
    """Curate: go through the corpus once, keep what lies closest to the lost data, write shards.

    embed -> index -> dedup -> score -> select -> weigh -> shard. Every step leaves an artifact
    under RUNS; run the same command again after a kill and it goes on, change a setting and only
    what depends on it is made again.

    Example: winnow select --corpus '/data/laion/{00000..00999}.tar' -n 200000
    """
    with user_errors():
        from indexes import artifact
        from pipeline.config import prepare
        from pipeline.stages import select as run_stages

        run = prepare(
            corpus=corpus,
            teacher=teacher,
            method=method,
            n=n,
            settings=settings or [],
            score_set=score_set,
            keys=keys,
            export=export,
            seed=seed,
            runs=runs,
            out=out,
            tower=tower,
            device=device,
            workers=workers,
            on_error=on_error,
            dedup=dedup,
            protect=protect,
            trust_builder=trust_builder,
        )
        directory = run_stages(run)
        for line in summary(artifact.read_card(directory, "shards")):
            print(line)
        print(f"shards: {directory}\nnext:   winnow distill --shards {directory}")


def summary(card: dict[str, Any]) -> list[str]:
    """The funnel of a shard set, and what a person should know of it."""
    lines = ["funnel:", *funnel_lines(card["funnel"])]
    kept, asked = card["num_samples"], card["asked"]
    if kept < asked and card["config"]["balance"] != "all":
        lines.append(f"note: {asked:,} were asked for, the pool has only {kept:,} distinct images")
    if card["below_floor"]:
        lines.append(
            f"note: {card['below_floor']:,} of the kept lie below floor_log_odds: above it the "
            "pool has fewer than asked for"
        )
    pairs = zip(card["classes"], card["class_histogram"], strict=True)
    missing = [name for name, count in pairs if not count]
    if missing:
        shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        lines.append(f"warning: no image for {len(missing)} of the classes: {shown}")
    starving = [
        f"{name} ({one['kept']}, {one['short']} short)"
        for name, one in card["starving"].items()
        if one["kept"]
    ]
    if starving:
        more = f" and {len(starving) - 10} more" if len(starving) > 10 else ""
        lines.append(f"note: below half an even share: {', '.join(starving[:10])}{more}")
    for what in ("missing", "changed"):
        if lost := card.get(what):
            shown = ", ".join(lost[:10]) + (", ..." if len(lost) > 10 else "")
            lines.append(f"warning: {len(lost):,} of the listed images are {what}: {shown}")
    lines += [f"warning: damaged: {damage}" for damage in card["damaged_parts"]]
    figures = {key: value for key, value in card["certificate"].items() if key in CERTIFIED}
    lines += ["certificate:", *aligned(figures)]
    lines.append(
        f"{kept:,} images, {card['num_bytes'] / 1e6:,.1f} MB in {card['num_shards']} shards, "
        f"effective sample size {card['effective_sample_size']:,.0f}"
    )
    return lines


@app.command()
def paint(
    shards: Annotated[
        Path,
        typer.Option(help="The curated shards to learn from: a few thousand images are enough."),
    ],
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Images to paint.")] = 50_000,
    generator: Annotated[str, typer.Option(help="hidfd, or your own .py file.")] = "hidfd",
    preset: Annotated[
        str | None,
        typer.Option(help="A named set of settings: faithful (as published), small (for a CPU)."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="A setting of the generator, key=value; repeat or space-separate."
        ),
    ] = None,
    keep: Annotated[
        str,
        typer.Option(
            help="all, or intended: only images in which the teacher sees the class asked for."
        ),
    ] = "all",
    teacher: Annotated[
        str | None,
        typer.Option(help="A teacher directory or name. Default: the one that the shards name."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Initial weights, order, what is painted.")] = 0,
    runs: Runs = Path("runs"),
    out: Annotated[
        Path | None, typer.Option(help="The painted shards' directory. Default: in RUNS/shards.")
    ] = None,
    device: Device = "auto",
    trust_builder: Trust = False,
) -> None:
    """Paint: train a generator on curated shards under the teacher's eyes, write synthetic shards.

    The painted images carry the teacher's answers and are read as any other shards. Run the same
    command again after a kill and it goes on; ask for another -n and the generator is not trained
    again. The generator lies under RUNS/generators.

    Example: winnow paint --shards runs/shards/lake-winnow-0123456789 -n 50000
    """
    with user_errors():
        from indexes import artifact
        from pipeline.generation.run import generate_images, prepare_generation

        run = prepare_generation(
            shards=shards,
            teacher=teacher,
            generator=generator,
            preset=preset,
            settings=settings or [],
            n=n,
            keep=keep,
            seed=seed,
            runs=runs,
            out=out,
            device=device,
            trust_builder=trust_builder,
        )
        directory = generate_images(run)
        for line in painted_summary(artifact.read_card(directory, "shards")):
            print(line)
        print(f"shards: {directory}\nnext:   winnow distill --shards {shards} --mix {directory}")


def painted_summary(card: dict[str, Any]) -> list[str]:
    """The funnel of painted shards, and how the teacher sees them."""
    lines = ["funnel:", *funnel_lines(card["funnel"])]
    if card["num_samples"] < card["asked"]:
        lines.append(f"note: {card['asked']:,} were asked for, {card['num_samples']:,} were kept")
    counts = sorted(zip(card["painted_histogram"], card["classes"], strict=True))
    (least, rare), (most, common) = counts[0], counts[-1]
    lines.append(
        f"the teacher sees the class asked for in {100 * card['as_asked_frac']:.1f} % of what was "
        f"painted (chance {100 / len(counts):.1f} %)"
    )
    lines.append(
        f"largest to smallest of its classes: {card['largest_to_smallest']:.2f} "
        f"({common} {most:,}, {rare} {least:,})"
    )
    lines.append(
        f"{card['num_samples']:,} images, {card['num_bytes'] / 1e6:,.1f} MB in "
        f"{card['num_shards']} shards"
    )
    return lines


@app.command()
def corpora() -> None:
    """List the corpora that are known by name, with their first line."""
    with user_errors():
        from indexes import plugins

        for name in plugins.names("pipeline.corpora"):
            said = plugins.first_line(plugins.source("pipeline.corpora", name))
            print(f"{name:<16} {said}")
        print("A path, glob, brace, URL or your own .py file serves as a corpus too.")
