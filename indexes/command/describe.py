"""Cards as text: nested values become small tables, and long lists are shortened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from indexes import artifact

MOST_ROWS, MOST_WORDS, WIDTH = 12, 8, 28


def inspect(path: str | Path) -> dict[str, Any]:
    """Return the card of an artifact of any kind.

    Raises ArtifactError, which suggests similar paths, if `path` is not a finished artifact.

    Example: `inspect("runs/shards/demo-winnow-0123456789")["funnel"]`
    """
    artifact.check_done(Path(path))
    return artifact.read_json(Path(path) / artifact.CARD)


def describe(card: Mapping[str, Any]) -> Iterator[str]:
    """Yield a card as lines: plain values first, then a section for each nested value."""
    plain = {name: value for name, value in card.items() if not _is_nested(value)}
    yield from aligned(plain, indent=0)
    for name, value in card.items():
        if not _is_nested(value):
            continue
        yield ""
        yield f"{name} ({len(value):,}):" if isinstance(value, list) else f"{name}:"
        yield from (f"  {line}" for line in _section(name, value, card))


def _is_nested(value: Any) -> bool:
    return isinstance(value, (Mapping, list)) and bool(value)


def _section(name: str, value: Any, card: Mapping[str, Any]) -> Iterator[str]:
    if name == "funnel":
        yield from funnel_lines(value)
    elif name == "class_histogram" and "classes" in card:
        pairs = sorted(zip(value, card["classes"], strict=True), reverse=True)
        yield from table([{"class": name, "images": count} for count, name in pairs])
    elif isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
        yield from table(value)
    elif isinstance(value, list):
        yield _joined(value)
    elif all(isinstance(item, Mapping) for item in value.values()):
        yield from table([{"": key, **item} for key, item in value.items()])
    else:
        yield from aligned(value, indent=0)


def aligned(figures: Mapping[str, Any], indent: int = 2) -> Iterator[str]:
    """Yield one line `name  value` per figure, with the values aligned.

    Example:
        >>> list(aligned({"in": 1000, "kept": 20}))
        ['  in    1,000', '  kept  20']
    """
    width = max((len(str(name)) for name in figures), default=0)
    for name, value in figures.items():
        yield f"{'':<{indent}}{name:<{width}}  {_word(value, None)}".rstrip()


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the first MOST_ROWS rows under a header of their fields.

    Example:
        >>> list(table([{"class": "cat", "images": 12}]))
        ['class  images', 'cat    12']
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_word(row.get(name)) for name in names] for row in rows[:MOST_ROWS]]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    for line in [names, *cells]:
        yield "  ".join(f"{cell:<{size}}" for cell, size in zip(line, widths, strict=True)).rstrip()
    if len(rows) > MOST_ROWS:
        yield f"... {len(rows) - MOST_ROWS:,} more"


def _word(value: Any, width: int | None = WIDTH) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping | list) and not value:
        return "none"
    if isinstance(value, Mapping):
        text = ", ".join(f"{key}={_word(item)}" for key, item in value.items())
    elif isinstance(value, list):
        text = _joined(value)
    else:
        text = str(value)
    if width is None or len(text) <= width:
        return text
    return text[: width - 3] + "..."


def _joined(values: Sequence[Any]) -> str:
    has_names = any(isinstance(value, str) for value in values)
    return shorten([_word(value) for value in values], separator="; " if has_names else ", ")


def shorten(items: Sequence[str], most: int = MOST_WORDS, separator: str = "; ") -> str:
    """Join the first `most` items, and add how many there are. A class name may hold commas.

    Example:
        >>> shorten(["goldfish, Carassius auratus", "b", "c"], most=2)
        'goldfish, Carassius auratus; b; ... (3 in all)'
    """
    more = [f"... ({len(items)} in all)"] if len(items) > most else []
    return separator.join([*items[:most], *more])


def funnel_lines(funnel: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a funnel: the input, each drop reason and the images kept.

    Example:
        >>> list(funnel_lines({"in": 10, "dropped": {"corrupt": 1}, "kept": 9}))
        ['          10 in', '          -1 corrupt', '           9 kept']
    """
    yield f"{funnel['in']:>12,} in"
    for reason, count in funnel["dropped"].items():
        yield f"{-count:>12,} {reason}"
    yield f"{funnel['kept']:>12,} kept"
