"""Every selection method: finite scores, the documented order, and exactly N rows."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from indexes import plugins
from pipeline.methods import dfnd, eikd, entropy_top, kd3, mix, odsd, random, winnow
from pipeline.pool import Pool
from pipeline.scores import columns
from pipeline.selection.top_n import select_top_n
from tests.support.pools import make_pool

Array = npt.NDArray[Any]
METHODS = [plugins.find("pipeline.methods", name) for name in plugins.names("pipeline.methods")]


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    generator = np.random.default_rng(1)
    label = generator.choice(3, 400, p=[0.7, 0.25, 0.05])
    log_odds = 3 * generator.normal(size=400).astype(np.float32)
    raw = make_pool(tmp_path, label=label, log_odds=log_odds, blocks=(150, 250))
    columns.fill(raw, (generator.random((size, 10)) for size in (150, 250)))
    return Pool(
        raw.embeddings,
        raw.classifier,
        raw.classes,
        tmp_path / "own",
        raw=raw.scratch,
        dedup=tmp_path / "dedup",
    )


def scores(module: ModuleType, pool: Pool, seed: int = 0, **settings: Any) -> Array:
    blocks = module.score(pool, module.Config(**settings), seed)
    return np.concatenate([values["score"] for _, values in blocks])


@pytest.mark.parametrize("module", METHODS, ids=lambda module: module.__name__)
def test_exactly_n_rows_are_selected(module: ModuleType, pool: Pool, tmp_path: Path) -> None:
    config = module.Config()
    pool.fill(module.score(pool, config, 3))
    assert np.isfinite(pool.column("score")).all()
    for n in (1, 60, 390):
        out = tmp_path / "rows.npy"
        selection = select_top_n(pool, n, config.balance, config.floor_log_odds, out)
        assert selection.num_rows == (400 if config.balance == "all" else n)


def test_methods_rank_in_their_documented_order(pool: Pool) -> None:
    log_odds = np.array(pool.column("log_odds"))
    np.testing.assert_array_equal(scores(dfnd, pool), log_odds)
    np.testing.assert_array_equal(scores(entropy_top, pool), -log_odds)
    uniform = scores(random, pool, 5)
    np.testing.assert_array_equal(uniform, scores(random, pool, 5))
    assert (uniform != scores(random, pool, 6)).mean() > 0.9
    assert uniform.min() >= 0
    assert uniform.max() < 1
    confidence_only = scores(odsd, pool, outlier_weight=0.0, density_weight=0.0)
    np.testing.assert_array_equal(np.argsort(confidence_only), np.argsort(log_odds))
    with_outliers = scores(odsd, pool, density_weight=0.0)
    assert (np.argsort(with_outliers) != np.argsort(log_odds)).any()
    population = scores(odsd, pool, density="population")
    scarcity = scores(odsd, pool, density="scarcity")
    np.testing.assert_allclose(population + scarcity - 2 * with_outliers, 0.1, atol=1e-6)
    assert np.isfinite(scores(odsd, pool, prototypes="kmeans", density="compactness")).all()
    assert pool.has("outlier_kmeans")


def by_the_paper(pool: Pool, tau: float) -> Array:
    """Apply the rule of KD3 to each image: c > tau b / (2 - b)."""
    label, log_odds = pool.column("label"), pool.column("log_odds").astype(np.float64)
    counts = [sum(1 for value in label if value == k) for k in range(3)]
    passes = []
    for y, odds in zip(label, log_odds, strict=True):
        b = counts[y] / max(counts)
        passes.append(1 / (1 + np.exp(-odds)) > tau * b / (2 - b))
    return np.array(passes)


@pytest.mark.parametrize("fill", ["random", "margin"])
def test_kd3_takes_passing_images_first(pool: Pool, fill: str) -> None:
    passes = by_the_paper(pool, 0.95)
    assert 0 < passes.sum() < len(pool)
    values = scores(kd3, pool, fill=fill)
    assert values[passes].min() > values[~passes].max()
    assert (values[passes] > 0).all()
    log_odds, label = pool.column("log_odds"), pool.column("label")
    limit = kd3.threshold(pool.class_counts(), 0.95)[label]
    worst = np.argsort(log_odds - limit)
    order = np.argsort(values, kind="stable")
    missing = int((~passes).sum())
    np.testing.assert_array_equal(values[order[:missing]], values[worst[:missing]])
    if fill == "margin":  # N images pass if every threshold moves by the same amount.
        np.testing.assert_allclose(values, log_odds - limit, rtol=1e-6)


def test_kd3_threshold_matches_the_formula() -> None:
    limit = kd3.threshold(np.array([100, 50, 0]), 0.95)
    probability = 1 / (1 + np.exp(-limit.astype(np.float64)))
    np.testing.assert_allclose(probability, [0.95, 0.95 * 0.5 / 1.5, 0], rtol=1e-5)
    floored = kd3.threshold(np.array([100, 50, 0]), 0.95, floor=1.5)
    np.testing.assert_allclose(1 / (1 + np.exp(-floored)), [0.95, 0.5, 0.5], rtol=1e-5)
    for bad in ({"tau": 1.0}, {"threshold_floor": -1.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            kd3.Config(**bad)


def test_eikd_is_a_filter(pool: Pool, tmp_path: Path) -> None:
    log_odds = np.array(pool.column("log_odds"))
    passes = log_odds >= np.float32(2.2)
    values = scores(eikd, pool, 7)
    assert values[passes].min() > values[~passes].max()
    assert abs(np.corrcoef(values[passes], log_odds[passes])[0, 1]) < 0.3, (
        "the order among the passing rows is random"
    )
    np.testing.assert_array_equal(np.argsort(values[~passes]), np.argsort(log_odds[~passes]))
    assert (scores(eikd, pool, 8) != values).any()
    most_confident = scores(eikd, pool, fill="confidence")
    np.testing.assert_array_equal(np.argsort(most_confident), np.argsort(log_odds))
    config = eikd.Config(balance="quota_with_floor")
    pool.fill(eikd.score(pool, config, 7))
    selection = select_top_n(pool, 9, config.balance, config.floor_log_odds, tmp_path / "rows.npy")
    assert selection.histogram.tolist() == [3, 3, 3]
    assert passes[np.load(tmp_path / "rows.npy", allow_pickle=False)].all()
    assert eikd.Config(floor_log_odds=1.0).scoring() != eikd.Config().scoring()


def test_mix_is_a_sum_of_ranks(pool: Pool) -> None:
    def rank(column: Array) -> Array:
        return (np.argsort(np.argsort(column)) + 0.5) / len(column)

    log_odds, outlier = np.array(pool.column("log_odds")), np.array(pool.column("outlier"))
    values = scores(mix, pool, terms="log_odds=1,outlier=-0.5")
    np.testing.assert_allclose(values, rank(log_odds) - 0.5 * rank(outlier), atol=1e-5)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ("outliers=1", "Did you mean 'outlier'"),
        ("outlier", "write column=weight"),
        ("outlier=x", "write column=weight"),
        ("outlier=inf", "write column=weight"),
        ("outlier=1,outlier=2", "twice"),
        (" ", "no terms"),
    ],
)
def test_mix_explains_wrong_terms(terms: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mix.Config(terms=terms)


def test_mix_names_a_missing_column(pool: Pool) -> None:
    with pytest.raises(ValueError, match=r"no column 'class_name'.*--tower"):
        scores(mix, pool, terms="class_name=1")


def test_winnow_ranks_by_log_odds_and_puts_outliers_last(tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    bn = generator.random((300, 10)) + 0.1
    bn[40:70] *= 50  # A tenth of the pool differs from the lost data.
    raw = make_pool(
        tmp_path,
        label=generator.integers(0, 3, 300),
        log_odds=generator.normal(size=300).astype(np.float32),
        matrices={"bn": bn},
    )
    columns.fill(raw, [generator.random((300, 10))])
    values = scores(winnow, raw, ood_frac=0.1)
    assert set(np.argsort(values)[:30]) == set(range(40, 70))
    inliers = np.setdiff1d(np.arange(300), np.arange(40, 70))
    confidence = np.array(raw.column("log_odds"))[inliers]
    np.testing.assert_array_equal(np.argsort(values[inliers]), np.argsort(confidence))
    unfiltered = scores(winnow, raw, ood_frac=0.0)
    np.testing.assert_array_equal(np.argsort(unfiltered), np.argsort(raw.column("log_odds")))


def test_winnow_prefers_images_that_probes_have_not_learned(pool: Pool) -> None:
    """`hardness_weight` of 1 makes the hardest image equal to an image that is twice as rare."""
    log_odds = np.array(pool.column("log_odds"))
    np.testing.assert_array_equal(np.argsort(scores(winnow, pool)), np.argsort(log_odds))
    unlearned = np.random.default_rng(6).random(len(pool)).astype(np.float32)
    blocks = ((block, {"proxy_kl": unlearned[block.start : block.stop]}) for block in pool.blocks)
    pool.fill(blocks)
    rank, hard_rank = (
        (np.argsort(np.argsort(column)) + 0.5) / 400 for column in (log_odds, unlearned)
    )
    for hard in (0.0, 2.0):
        expected = -np.log2(1 - rank) + hard * hard_rank
        np.testing.assert_allclose(scores(winnow, pool, hardness_weight=hard), expected, atol=1e-5)


def test_winnow_without_batchnorm_ranks_by_log_odds_alone(pool: Pool) -> None:
    values = scores(winnow, pool)
    np.testing.assert_array_equal(np.argsort(values), np.argsort(pool.column("log_odds")))
