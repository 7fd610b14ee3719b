"""Pictures, pages and tables of standings that no training made: many of them, and ill-named."""

from __future__ import annotations

import io
import re
import warnings
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distill.evaluation import cost, html, plot, table
from distill.evaluation.accuracy import Result
from distill.evaluation.compare import Comparison, StudentResult
from indexes.cli import printable

HOSTILE = ("<script>alert(1)</script>", "a|b & *c*", "\x1b[31mred")


def stand(name: str, num_macs: int, top1: float, *, leads: bool = False) -> StudentResult:
    per_class = dict.fromkeys(HOSTILE, top1) | {"unseen": None}
    return StudentResult(
        name=name,
        directory=Path("/students") / name,
        digest=name,
        builder="resnet8",
        leads=leads,
        result=Result(
            num_images=1000, top1=top1, top5=0.99, ece=0.031, agreement=0.5, per_class=per_class,
            dropped={"corrupt": 3},
        ),
        cost=cost.Cost(
            num_parameters=1_234_567, num_macs=num_macs, num_bytes=5_000_000,
            images_per_second={1: 3.21, 64: 1234.5}, device="cpu", precision="float32",
            num_threads=2,
        ),
    )  # fmt: skip


def field(num: int, *, teacher: bool = True) -> Comparison:
    generator = np.random.default_rng(num)
    macs = np.sort(generator.integers(10**7, 10**9, num))
    tops = generator.uniform(0.5, 0.9, num)
    names = [f"in21k-winnow-net{number}" for number in range(num)]
    names[: len(HOSTILE)] = [name.replace("/", "") for name in HOSTILE][:num]
    return Comparison(
        labeled="/data/$set$",
        students=tuple(
            stand(name, int(cost), float(top), leads=bool(top == tops[: at + 1].max()))
            for at, (name, cost, top) in enumerate(zip(names, macs, tops, strict=True))
        ),
        teacher=stand("\u6559\u5e08", 4 * 10**9, 0.95) if teacher else None,
    )


def picture(found: Comparison) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return np.asarray(Image.open(io.BytesIO(plot.draw(found))).convert("RGB")).astype(int)


def near(pixels: Any, color: str) -> Any:
    wanted = [int(color[at : at + 2], 16) for at in (1, 3, 5)]
    return (np.abs(pixels - wanted) < 25).all(-1)


@pytest.mark.parametrize("num", [1, 2, 5, 40])
def test_the_picture(num: int) -> None:
    with_teacher, without = picture(field(num)), picture(field(num, teacher=False))
    for pixels in (with_teacher, without):
        assert pixels.shape == (800, 1280, 3)
        assert near(pixels, plot.FRONT).sum() > 300, "the front's points and steps"
        assert 0.01 < (pixels.min(-1) < 200).mean() < 0.3, "ink, and room around it"
    dashes = near(with_teacher, plot.TEACHER).any(0)
    assert dashes.sum() > 500, "its line goes all the way"
    assert not near(without, plot.TEACHER).any()
    assert np.array_equal(with_teacher, picture(field(num))), "same standings, same picture"


def test_accuracy_is_up_and_cost_to_the_right() -> None:
    found = Comparison(
        labeled="val",
        students=(stand("a", 10**7, 0.6, leads=True), stand("b", 10**8, 0.5)),
        teacher=None,
    )
    pixels = picture(found)
    front = near(pixels[:700], plot.FRONT)
    first = np.argwhere(front).mean(0)
    second = np.argwhere(near(pixels[:700], plot.BEHIND)).mean(0)
    assert first[0] < second[0]
    assert np.argwhere(front)[:, 1].min() < second[1]


def test_names_lose_what_all_share() -> None:
    found = field(5, teacher=False)
    plain = replace(found, students=tuple(replace(one, name=f"in21k-winnow-net{at}-seed0")
                                          for at, one in enumerate(found.students)))  # fmt: skip
    tops = [one.result.top1 for one in plain.students]
    wanted = [f"net{at}-seed0  {100 * top:.1f}" for at, top in enumerate(tops)]
    assert plot._texts(plain) == wanted
    alone = replace(plain, students=plain.students[:1])
    assert plot._texts(alone)[0].startswith("in21k-winnow-net0-seed0")


class Reader(HTMLParser):
    """Tags, cells and sources of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.text: list[str] = []
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.sources += [str(value) for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_stands_alone_and_is_escaped() -> None:
    found = field(5)
    png = plot.draw(found)
    text = html.write_page(found, png)
    read = Reader(text)
    assert "<script" not in text
    assert read.tags["script"] == 0
    assert set(HOSTILE) < set(read.text)
    assert {one.name for one in found.students} < set(read.text)
    assert "no image" in read.text
    assert read.tags["tr"] == (1 + 5 + 1) + (1 + 4)
    (source,) = read.sources
    assert source.startswith("data:image/png;base64,")
    assert "http" not in text


def test_markdown_and_terminal_keep_their_columns() -> None:
    found = field(4)
    heads, *rest = list(table.markdown(found))
    rows = rest[1 : 1 + 5]
    for row in rows:
        assert len(re.findall(r"(?<!\\)\|", row)) == len(re.findall(r"\|", heads))
        assert not re.search(r"(?<!\\)<", row)
    assert "1,234" in rows[0]
    assert "3.21" in rows[0]
    lines = list(table.terminal(found))
    ends = {line.index("images/s at 64") + len("images/s at 64") for line in lines[:1]}
    assert all(line[:end].endswith("1,234") for end in ends for line in lines[1:5])
    assert printable(found.students[2].name) == "\\x1b[31mred"
