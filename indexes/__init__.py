"""The shared base layer of the offline stage (`pipeline`) and the training stage (`distill`).

`sources` reads images from folders, tars and Parquet files; `images` decodes them. `models` builds
networks and opens teachers, from `zoo` or from timm, torchvision and open_clip. `embeddings` stores
a teacher's outputs for a corpus, `vectors` indexes them, and `retrieval` searches the index.
`shards` is the contract between the two stages. `artifact` defines when an artifact is finished.

`command` declares commands and formats their output. `plugins` resolves the names given on the
command line. `devices` describes the hardware.

This package holds no policy, no loss and no training loop, and it imports neither stage.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from indexes.lazy import lazy_exports

if TYPE_CHECKING:
    from indexes.artifact import ArtifactError
    from indexes.command.describe import inspect
    from indexes.images.decode import BadImage, Geometry, load_view
    from indexes.models.net import Net, build_net
    from indexes.models.teacher import Teacher, TeacherError, load_teacher, save_teacher
    from indexes.retrieval import Match, SearchConfig, search
    from indexes.shards.reader import Shards, open_shards
    from indexes.shards.verify import verify
    from indexes.sources.sample import Part, Sample, SourceError
    from indexes.sources.spec import open_parts

__all__ = [
    "ArtifactError",
    "BadImage",
    "Geometry",
    "Match",
    "Net",
    "Part",
    "Sample",
    "SearchConfig",
    "Shards",
    "SourceError",
    "Teacher",
    "TeacherError",
    "build_net",
    "inspect",
    "load_teacher",
    "load_view",
    "open_parts",
    "open_shards",
    "save_teacher",
    "search",
    "verify",
]
_MODULES = {
    "ArtifactError": "artifact",
    "inspect": "command.describe",
    **dict.fromkeys(("BadImage", "Geometry", "load_view"), "images.decode"),
    **dict.fromkeys(("Net", "build_net"), "models.net"),
    **dict.fromkeys(("Teacher", "TeacherError", "load_teacher", "save_teacher"), "models.teacher"),
    **dict.fromkeys(("Match", "SearchConfig", "search"), "retrieval"),
    **dict.fromkeys(("Shards", "open_shards"), "shards.reader"),
    "verify": "shards.verify",
    **dict.fromkeys(("Part", "Sample", "SourceError"), "sources.sample"),
    "open_parts": "sources.spec",
}
__getattr__ = lazy_exports(__name__, _MODULES)
logging.getLogger(__name__).addHandler(logging.NullHandler())  # the library prints nothing


def __dir__() -> list[str]:
    return __all__
