"""Selection of training images from a corpus: embed, index, dedup, score, select, weight, shard.

The selection runs once per corpus and teacher, before any student is trained. Each command is a
configuration in `config` and a function: `stages` runs `select`, and `generation.run` runs
`generate`. Every `stage` writes one artifact, which later runs reuse.

`corpus` finds the images, `embedding/` passes them through the teacher, and `pool` holds the
resulting columns. `dedup/` drops copies, `scores/` and `methods/` rank the images, `selection/`
keeps the top N, and `weighting/` assigns importance weights. `certificate` describes a selection
without labels, and `write_shards` writes the shards. `key_list` stores a selection as a small file.

This package imports `indexes` and neither of the other packages.
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
