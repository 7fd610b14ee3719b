"""The names of parts are unique; the keys of samples are plain."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from indexes.sources.sample import plain_key, unique_names


@given(
    st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join), unique=True)
)
def test_part_names_become_unique(paths: list[str]) -> None:
    names = unique_names(paths)
    assert len(set(names)) == len(paths)
    assert all(path.endswith(name) for path, name in zip(paths, names, strict=True))


@given(st.text(st.sampled_from("ab./"), max_size=12))
def test_plain_keys_are_relative_and_have_no_dots(path: str) -> None:
    key = plain_key(path)
    assert not key.startswith("/")
    assert ".." not in key.split("/")
    assert "." not in key.rpartition("/")[2]
