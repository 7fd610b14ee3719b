"""Fabricated comparisons of many students, some with hostile names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from distill.evaluation.accuracy import Result
from distill.evaluation.compare import Comparison, StudentResult
from distill.evaluation.cost import Cost

HOSTILE = ("<script>alert(1)</script>", "a|b & *c*", "\x1b[31mred")


def student_result(name: str, num_macs: int, top1: float, *, pareto: bool = False) -> StudentResult:
    """Make the result of a student on 1,000 images; some classes have hostile names."""
    per_class = dict.fromkeys(HOSTILE, top1) | {"unseen": None}
    return StudentResult(
        name=name,
        directory=Path("/students") / name,
        digest=name,
        builder="resnet8",
        pareto=pareto,
        result=Result(
            num_images=1000, top1=top1, top5=0.99, ece=0.031, agreement=0.5, per_class=per_class,
            dropped={"corrupt": 3},
        ),
        cost=Cost(
            num_parameters=1_234_567, num_macs=num_macs, num_bytes=5_000_000,
            images_per_second={1: 3.21, 64: 1234.5}, device="cpu", precision="float32",
            num_threads=2,
        ),
    )  # fmt: skip


def make_comparison(num: int, *, has_teacher: bool = True) -> Comparison:
    """Make `num` students of random accuracy; the first ones have hostile names."""
    generator = np.random.default_rng(num)
    macs = np.sort(generator.integers(10**7, 10**9, num))
    tops = generator.uniform(0.5, 0.9, num)
    names = [f"in21k-winnow-net{number}" for number in range(num)]
    names[: len(HOSTILE)] = [name.replace("/", "") for name in HOSTILE][:num]
    return Comparison(
        labeled="/data/$set$",
        students=tuple(
            student_result(name, int(cost), float(top), pareto=bool(top == tops[: at + 1].max()))
            for at, (name, cost, top) in enumerate(zip(names, macs, tops, strict=True))
        ),
        teacher=student_result("\u6559\u5e08", 4 * 10**9, 0.95) if has_teacher else None,
    )
