"""The plan of an index: a small index is exact, and a large one stays within the budget."""

from __future__ import annotations

from indexes.vectors.plan import IndexConfig, plan_index


def test_a_small_corpus_has_one_exact_list() -> None:
    plan = plan_index(16_384, 512)
    assert plan.num_lists == 1
    assert plan.factory == "IVF1,SQfp16"
    assert plan.train_rows == 8192
    assert plan_index(100, 512).train_rows == 100


def test_a_large_corpus_has_four_times_the_square_root_lists() -> None:
    plan = plan_index(1_000_000, 512)
    assert plan.factory == "IVF4000,SQfp16"
    assert plan.train_rows == 32 * 4000


def test_the_budget_bounds_codes_and_training() -> None:
    config = IndexConfig(budget_bytes=4 << 30)
    plan = plan_index(10**9, 512, config)
    assert plan.code == "SQ8"
    assert plan.train_rows * 512 * 2 <= 1 << 30
    assert plan.part_rows * 512 * 2 <= config.budget_bytes // 16
    assert plan.num_lists * 32 <= plan.train_rows
