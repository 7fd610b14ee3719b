"""The HTML page needs no other file, and all text from cards and paths is escaped."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser

from distill.evaluation import html, plot
from tests.support.comparisons import HOSTILE, make_comparison


class Reader(HTMLParser):
    """Collect the tags, the text and the sources of a page."""

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


def test_the_page_is_self_contained_and_escaped() -> None:
    comparison = make_comparison(5)
    text = html.page(comparison, plot.draw(comparison))
    reader = Reader(text)
    assert "<script" not in text
    assert reader.tags["script"] == 0
    assert set(HOSTILE) < set(reader.text)
    assert {student.name for student in comparison.students} < set(reader.text)
    assert "no images" in reader.text
    assert reader.tags["tr"] == (1 + 5 + 1) + (1 + 4)
    (source,) = reader.sources
    assert source.startswith("data:image/png;base64,")
    assert "http" not in text
