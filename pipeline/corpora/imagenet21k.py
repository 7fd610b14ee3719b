"""ImageNet-21k from where IMAGENET21K points: class tars, one tar of them, or WebDataset shards.

Sizes of the official releases (https://image-net.org, on request, for research):
fall11: 14,197,122 images of 21,841 classes, 1.31 TB; winter21: 13,153,500 images of 19,167
classes, 1.1 TB. The labels are never looked at.
"""

from __future__ import annotations

import os

from indexes.sources.spec import Part, SourceError, open_parts

VARIABLE = "IMAGENET21K"
FORMS = """\
  IMAGENET21K=/data/imagenet21k                       a folder of class tars (n01440764.tar, ...)
  IMAGENET21K=/data/fall11_whole.tar                  the whole fall 2011 release, read as it is
  IMAGENET21K=/data/winter21_whole.tar                the winter 2021 release (gunzip it first)
  IMAGENET21K='/data/imagenet_w21-train-{0000..2047}.tar'   WebDataset shards; globs and URLs too
The data is handed out on request for research at https://image-net.org (fall11: 1.31 TB,
14,197,122 images of 21,841 classes; winter21: 1.1 TB, 13,153,500 images of 19,167 classes)."""


def corpus() -> list[Part]:
    """The parts at IMAGENET21K; SourceError says what to set, and where the data is to be had."""
    location = os.environ.get(VARIABLE, "").strip()
    if not location:
        raise SourceError(f"{VARIABLE} is not set: it says where ImageNet-21k lies, as in\n{FORMS}")
    try:
        return open_parts(location)
    except SourceError as error:
        raise SourceError(f"{VARIABLE}={location}: {error}\n{VARIABLE} may be\n{FORMS}") from None
