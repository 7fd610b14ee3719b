"""The certificate: every figure equals a second implementation and responds to defects."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexes import artifact
from indexes.shards.reader import open_shards
from pipeline import certificate
from pipeline.certificate import certify, entropy, frechet
from pipeline.pool import Pool
from pipeline.soft_targets import soften
from tests.support import corpora
from tests.support.corpora import invoke
from tests.support.pools import make_pool

Array = npt.NDArray[Any]
N, C = 300, 3
DROPPED = {"duplicate_content": 20, "near_duplicate": 10, "not_selected": 100}


def matrices(seed: int = 3) -> dict[str, Array]:
    generator = np.random.default_rng(seed)
    return {
        "features": np.abs(generator.normal(size=(N, 5))),
        "logits": (generator.normal(size=(N, C)) * 4).astype(np.float16),
        "moments": generator.normal(size=(N, 8)) + 0.3,
        "bn": generator.random((N, 4)),
    }


def pool_of(directory: Path, arrays: dict[str, Array], num_stored: int = 99) -> Pool:
    """Make a pool whose columns match its logits; only the `num_stored` largest are stored."""
    logits = arrays["logits"].astype(np.float64)
    label, total = logits.argmax(1), np.log(np.exp(logits).sum(1))
    best = logits.max(1)
    order = np.argsort(-logits, 1)[:, :num_stored].astype(np.int32)
    if num_stored < logits.shape[1]:
        arrays = {**arrays, "logits": np.take_along_axis(logits, order, 1), "classes": order}
    return make_pool(
        directory,
        label=label,
        log_odds=best - np.log(np.exp(total) - np.exp(best)),
        features=arrays["features"],
        num_classes=logits.shape[1],
        blocks=(100, 120, 80),
        matrices=arrays,
        columns={"logsumexp": total},
    )


def slow(arrays: dict[str, Array], rows: Array, weight: Array) -> dict[str, float]:
    """Compute every figure from its definition, in memory."""
    selected = {
        name: value[rows].astype(np.float16).astype(np.float64) for name, value in arrays.items()
    }
    n, logits = len(rows), selected["logits"]
    soft = {t: np.exp(logits / t) / np.exp(logits / t).sum(1, keepdims=True) for t in (1, 4)}
    mean_entropy = {t: np.mean([-sum(p * np.log(p)) for p in soft[t]]) for t in (1, 4)}
    share = weight / weight.sum()
    ranked = np.sort(logits, 1)
    label, second = logits.argmax(1), np.argsort(logits, 1)[:, -2]
    counts = np.array([(label == c).sum() for c in range(C)])
    even_moments = selected["moments"].mean(0)
    moments = (share[:, None] * selected["moments"]).sum(0)
    unit = selected["features"] / np.linalg.norm(selected["features"], axis=1, keepdims=True)
    similarity = unit @ unit.T - 2 * np.eye(n)
    spectrum = np.linalg.eigvalsh(np.cov(selected["features"].T, bias=True))

    def of_classes(weights: Array, classes: Array) -> float:
        p = np.array([weights[classes == c].sum() for c in range(C)]) / weights.sum()
        return float(-(p * np.log(p)).sum() / np.log(C))

    def information(t: int) -> float:
        mean = soft[t].mean(0)
        return float(-(mean * np.log(mean)).sum() - mean_entropy[t])

    weighted = (share[:, None] * soft[1]).sum(0)
    spread = moments[4:] + 1 - moments[:4] ** 2
    normal = spectrum / spectrum.sum()
    return {
        "moment_rms": float(np.sqrt((moments**2).mean())),
        "moment_rms_even": float(np.sqrt((even_moments**2).mean())),
        "mean_rms": float(np.sqrt((moments[:4] ** 2).mean())),
        "square_rms": float(np.sqrt((moments[4:] ** 2).mean())),
        "frechet": float((moments[:4] ** 2 + (np.sqrt(spread) - 1) ** 2).mean()),
        "bn_distance": float(selected["bn"].mean()),
        "class_entropy": of_classes(np.ones(n), label),
        "weighted_class_entropy": of_classes(weight, label),
        "soft_class_entropy": float(-(weighted * np.log(weighted)).sum() / np.log(C)),
        "runner_up_entropy": of_classes(np.ones(n), second),
        "deficit": float(sum(max(n / C - count, 0) for count in counts) / n),
        "effective_frac": float(weight.sum() ** 2 / (weight**2).sum() / n),
        "duplicate_frac": 30 / N,
        "nearest_similarity": float(similarity.max(1).mean()),
        "effective_rank": float(np.exp(-(normal * np.log(normal)).sum()) / 5),
        "log_odds": float(np.mean([math.log(p.max() / (1 - p.max())) for p in soft[1]])),
        "margin": float((ranked[:, -1] - ranked[:, -2]).mean()),
        "unsure_frac": float((soft[1].max(1) < 0.5).mean()),
        "entropy": float(mean_entropy[1]),
        "soft_entropy": float(mean_entropy[4]),
        "information": information(1),
        "soft_information": information(4),
        "target_variance": float(((soft[4] - soft[4].mean(0)) ** 2).sum(1).mean()),
    }


def test_every_figure_matches_its_definition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificate, "CHUNK_ROWS", 33)
    arrays = matrices()
    rows = np.sort(np.random.default_rng(0).choice(N, 200, replace=False))
    weight = np.random.default_rng(1).random(200).astype(np.float32) + 0.1
    figures, moments = certify(pool_of(tmp_path, arrays), rows, weight, DROPPED, seed=0)
    assert figures == pytest.approx(slow(arrays, rows, weight), rel=1e-3, abs=1e-4)
    assert moments is not None
    half = arrays["moments"][rows].astype(np.float16).astype(np.float64)
    np.testing.assert_allclose(moments[0], half.mean(0))
    documented = certificate.__doc__ or ""
    for key in figures:
        assert f"\n{key} " in documented


def test_without_batchnorm_its_figures_are_absent(tmp_path: Path) -> None:
    arrays = {name: value for name, value in matrices().items() if name in ("features", "logits")}
    figures, moments = certify(pool_of(tmp_path, arrays), np.arange(N), np.ones(N), {}, seed=0)
    assert moments is None
    moment_figures = {"moment_rms", "moment_rms_even", "mean_rms", "square_rms", "frechet"}
    assert not {*moment_figures, "bn_distance"} & set(figures)
    assert figures["duplicate_frac"] == 0


@pytest.mark.parametrize("rows", [np.zeros(0, np.int64), np.array([4])])
def test_figures_of_one_row_or_none_are_finite(tmp_path: Path, rows: Array) -> None:
    figures, _ = certify(pool_of(tmp_path, matrices()), rows, np.ones(len(rows)), {}, seed=0)
    assert all(math.isfinite(value) for value in figures.values())


def test_figures_reveal_copies_and_a_single_class(tmp_path: Path) -> None:
    arrays = matrices()
    arrays["features"][100:200] = arrays["features"][:100]
    pool = pool_of(tmp_path, arrays)
    weight = np.ones(100)
    spread, _ = certify(pool, np.arange(200, 300), weight, {}, seed=0)
    copies, _ = certify(pool, np.r_[0:50, 100:150], weight, {}, seed=0)
    assert copies["nearest_similarity"] > 0.999 > spread["nearest_similarity"]
    label = arrays["logits"].argmax(1)
    one_class = np.flatnonzero(label == 1)[:60]
    narrow, _ = certify(pool, one_class, np.ones(60), {}, seed=0)
    assert narrow["class_entropy"] == 0 < spread["class_entropy"]
    assert narrow["deficit"] == pytest.approx(2 / 3, rel=1e-4)
    assert narrow["information"] < spread["information"]


def test_frechet_is_zero_only_at_the_fingerprint() -> None:
    assert frechet(np.zeros(6)) == 0
    assert frechet(np.array([1.0, 0.0, 1.0, 0.0])) == 0.5, (
        "one of two channels differs by one standard deviation"
    )
    assert frechet(np.array([0.0, 3.0])) == 1, "the standard deviation is doubled"


@given(st.integers(0, 1000), st.sampled_from([1.0, 4.0]))
def test_soften_works_with_some_logits_stored(seed: int, temperature: float) -> None:
    """The result is always a distribution; it is exact if all logits left out are equal."""
    logits = np.random.default_rng(seed).normal(size=(6, 4)) * 3
    logits = np.concatenate([logits, np.full((6, 5), -4.0)], 1)
    total = np.log(np.exp(logits).sum(1))
    full, full_rest = soften(logits, total, 9, temperature)
    assert (full_rest == 0).all()
    partial, partial_rest = soften(logits[:, :4], total, 9, temperature)
    np.testing.assert_allclose(partial, full[:, :4], rtol=1e-6)
    np.testing.assert_allclose(partial_rest, full[:, -1], rtol=1e-6)
    np.testing.assert_allclose(partial.sum(1) + 5 * partial_rest, 1)


def test_the_largest_logits_give_nearly_the_figures_of_all(tmp_path: Path) -> None:
    arrays = matrices()
    generator = np.random.default_rng(5)
    arrays["logits"] = (generator.normal(size=(N, 12)) * 3).astype(np.float16)
    weight = generator.random(N) + 0.5
    rows = np.arange(N)
    full, _ = certify(pool_of(tmp_path / "all", arrays), rows, weight, {}, seed=0)
    top, _ = certify(pool_of(tmp_path / "top", arrays, num_stored=8), rows, weight, {}, seed=0)
    assert top == pytest.approx(full, rel=0.02, abs=0.03)
    for exact in ("margin", "class_entropy", "runner_up_entropy", "unsure_frac"):
        assert top[exact] == full[exact]


def test_entropy_matches_values_by_hand() -> None:
    assert entropy(np.array([3, 3, 3, 3, 0])) == pytest.approx(math.log(4))
    assert entropy(np.array([7, 0])) == 0


def test_select_weights_certifies_and_reports(tmp_path: Path) -> None:
    corpora.good_tar(tmp_path / "c.tar", 60)
    runs = tmp_path / "runs"
    result = corpora.select(tmp_path / "c.tar", runs, "-n", "40", "--set", "weights=moment_match")
    assert result.exit_code == 0, result.output
    assert "\ncertificate:\n" in result.output
    shards = open_shards(corpora.shards_of(runs))
    figures = shards.card["certificate"]
    assert figures["moment_rms"] < figures["moment_rms_even"]
    assert figures["effective_frac"] < 1
    size = shards.card["effective_sample_size"]
    assert figures["effective_frac"] == pytest.approx(size / 40, rel=1e-3)
    assert shards.card["weighing"]["weights"] == "moment_match"
    (weighed,) = (runs / "weights").iterdir()
    card = artifact.read_card(weighed, "weights")
    assert card["certificate"] == figures
    assert np.load(weighed / "moments.npy", allow_pickle=False).shape == (2, 128)
    code, text = invoke("inspect", shards.directory)
    assert code == 0
    for name, value in figures.items():
        assert f" {name} {value:g} " in " ".join(text.split())
