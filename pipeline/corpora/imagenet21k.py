"""ImageNet-21k at the path in IMAGENET21K: class tars, one tar of class tars, or WebDataset shards.

The official releases are available for research on request at https://image-net.org. fall11 has
14,197,122 images of 21,841 classes (1.31 TB). winter21 has 13,153,500 images of 19,167 classes
(1.1 TB). The labels are never read.
"""

from __future__ import annotations

import os

from indexes.sources.spec import Part, SourceError, open_parts

VARIABLE = "IMAGENET21K"
FORMS = """\
  IMAGENET21K=/data/imagenet21k                       a folder of class tars (n01440764.tar, ...)
  IMAGENET21K=/data/fall11_whole.tar                  the fall 2011 release, as downloaded
  IMAGENET21K=/data/winter21_whole.tar                the winter 2021 release, after gunzip
  IMAGENET21K='/data/imagenet_w21-train-{0000..2047}.tar'   WebDataset shards; also globs and URLs
The data is available for research on request at https://image-net.org (fall11: 1.31 TB,
14,197,122 images of 21,841 classes; winter21: 1.1 TB, 13,153,500 images of 19,167 classes)."""


def corpus() -> list[Part]:
    """Return the parts at the path in IMAGENET21K.

    Raises SourceError if the variable is unset or names no readable data. The message lists the
    accepted forms and says how to obtain the data.
    """
    location = os.environ.get(VARIABLE, "").strip()
    if not location:
        raise SourceError(
            f"{VARIABLE} is not set: set it to the path of ImageNet-21k, such as\n{FORMS}"
        )
    try:
        return open_parts(location)
    except SourceError as error:
        raise SourceError(f"{VARIABLE}={location}: {error}\nAccepted forms are\n{FORMS}") from None
