"""labeled: class indices from cls, json, folders and tables; the rest is an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexes.sources.spec import SourceError, open_labeled
from tests.support.lakes import hub, put, tar


def test_labels(tmp_path: Path) -> None:
    classes = ("cat", "dog", "3", "owl")
    for name, value, want in [
        ("cls", b"dog", 1),
        ("cls", b" 0\n", 0),
        ("cls", b"3", 2),
        ("json", b'{"label": 3}', 2),
        ("json", b'{"cls": "owl"}', 3),
    ]:
        spec = put(tmp_path / "x.tar", tar([("a.jpg", b"x"), (f"a.{name}", value)]))
        assert [(s.key, label) for s, label in open_labeled(spec, classes)] == [("a", want)]
    put(tmp_path / "tree" / "owl" / "1.jpg", b"x")
    assert [label for _, label in open_labeled(str(tmp_path / "tree"), classes)] == [3]
    table = hub(tmp_path / "t.parquet", 3)
    assert [label for _, label in open_labeled(table, ("a", "b", "c"))] == [0, 1, 2]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("a.cls", b"dgo"), "Did you mean 'dog'"),
        (("a.cls", b"2"), "none of the 2 classes"),
        (("a.cls", b"-1"), "none of the 2 classes"),
        (("a.txt", b"dog"), "has no label"),
        (("a.json", b"{"), "not JSON"),
        (("a.json", b"[1]"), "has no label"),
        (("b.cls", b"1"), "no label"),
    ],
)
def test_bad_labels(tmp_path: Path, extra: tuple[str, bytes], message: str) -> None:
    spec = put(tmp_path / "x.tar", tar([("a.jpg", b"x"), extra]))
    with pytest.raises(SourceError, match=message):
        list(open_labeled(spec, ("cat", "dog")))


def test_a_labeled_set_has_an_image_for_every_key(tmp_path: Path) -> None:
    spec = put(tmp_path / "x.tar", tar([("a.cls", b"1")]))
    with pytest.raises(SourceError, match="no image"):
        list(open_labeled(spec, ("cat", "dog")))


def test_a_name_that_two_classes_bear_needs_an_index(tmp_path: Path) -> None:
    classes = ("crane", "dog", "crane")
    spec = put(tmp_path / "i.tar", tar([("a.jpg", b"x"), ("a.cls", b"2")]))
    assert [label for _, label in open_labeled(spec, classes)] == [2]
    spec = put(tmp_path / "n.tar", tar([("a.jpg", b"x"), ("a.cls", b"crane")]))
    with pytest.raises(SourceError, match="none of the 3 classes"):
        list(open_labeled(spec, classes))
