"""Artifacts are written to a temporary name and renamed, the card last; partial ones raise."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes import artifact
from indexes.artifact import ArtifactError

ROOT = Path(__file__).parents[2]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(JSON)
def test_the_digest_does_not_depend_on_the_order_of_keys(value: object) -> None:
    assert artifact.digest(value) == artifact.digest(json.loads(json.dumps(value)))
    mapping = {"a": value, "b": 1}
    assert artifact.digest(mapping) == artifact.digest({"b": 1, "a": value})
    assert artifact.digest(mapping) != artifact.digest({"b": 2, "a": value})


def test_numpy_values_and_paths_become_json() -> None:
    assert artifact.plain({"n": np.int64(3), "a": np.arange(2), "p": Path("x")}) == {
        "n": 3,
        "a": [0, 1],
        "p": "x",
    }
    with pytest.raises(TypeError, match="a card cannot hold"):
        artifact.plain({"x": object()})


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "value.txt"
    with artifact.writing(path) as aside:
        aside.write_text("first")
        assert not path.exists()
    assert path.read_text() == "first"

    def half() -> None:
        with artifact.writing(path) as aside:
            aside.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        half()
    assert path.read_text() == "first"
    assert [file.name for file in path.parent.iterdir()] == ["value.txt"]


def test_an_artifact_without_a_card_is_incomplete(tmp_path: Path) -> None:
    assert not artifact.is_done(tmp_path)
    with pytest.raises(ArtifactError, match=r"no card\.json.*unfinished"):
        artifact.read_card(tmp_path, "shards")
    artifact.write_card(tmp_path, "shards", {"n": 1})
    assert artifact.read_card(tmp_path, "shards")["n"] == 1
    with pytest.raises(ArtifactError, match="holds 'shards', not 'teacher'"):
        artifact.read_card(tmp_path, "teacher")


def test_other_schemas_and_damage_are_refused(tmp_path: Path) -> None:
    artifact.write_card(tmp_path, "shards", {})
    card = json.loads((tmp_path / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps({**card, "schema": 999}))
    with pytest.raises(ArtifactError, match="schema 999"):
        artifact.read_card(tmp_path, "shards")
    (tmp_path / "card.json").write_text("{")
    with pytest.raises(ArtifactError, match="damaged"):
        artifact.read_card(tmp_path, "shards")
    with pytest.raises(ArtifactError, match="no such directory"):
        artifact.read_card(tmp_path / "absent", "shards")


def test_a_lock_is_awaited_and_released_with_its_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code = (
        "import sys, time; from pathlib import Path; from indexes import artifact\n"
        "with artifact.locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        refused = pytest.raises(ArtifactError, match="another winnow process is using")
        with refused, artifact.locked(tmp_path, wait=False):
            pass
        caplog.set_level("INFO", "indexes.artifact")
        threading.Timer(0.2, holder.kill).start()
        with artifact.locked(tmp_path):
            assert holder.wait() < 0
    assert "waiting for another winnow" in caplog.text
