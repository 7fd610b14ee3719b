"""The offline stage, once per corpus and teacher: embed, index, dedup, score, select, weigh, shard.

A command is a configuration in `config` and a function: `stages` is the run of `select`, top to
bottom, and `generation.run` that of `generate`. A `stage` is an artifact, made once. `corpus` names
the images, `embedding/` sends them through the teacher, and `pool` holds what is known of them
then. `dedup/` drops copies, `scores/` and `methods/` rank, `selection/` cuts, `weighting/` weighs,
`certificate` judges without labels, and `write_shards` writes the contract. `key_list` is a
selection as a small file.

The folder imports `indexes` alone.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from indexes.lazy import lazy_exports

if TYPE_CHECKING:
    from pipeline.config import GenerateConfig, SelectConfig
    from pipeline.corpus import Corpus, open_corpus
    from pipeline.generation.run import generate
    from pipeline.pool import Pool, open_pool
    from pipeline.stages import select

__all__ = [
    "Corpus",
    "GenerateConfig",
    "Pool",
    "SelectConfig",
    "generate",
    "open_corpus",
    "open_pool",
    "select",
]
_MODULES = {
    **dict.fromkeys(("GenerateConfig", "SelectConfig"), "config"),
    **dict.fromkeys(("Corpus", "open_corpus"), "corpus"),
    "generate": "generation.run",
    **dict.fromkeys(("Pool", "open_pool"), "pool"),
    "select": "stages",
}
__getattr__ = lazy_exports(__name__, _MODULES)
logging.getLogger(__name__).addHandler(logging.NullHandler())  # the library prints nothing


def __dir__() -> list[str]:
    return __all__
