"""Class-name similarity: how well an image fits the name of its predicted class."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def class_name_similarity(
    tower_NE: npt.NDArray[np.floating[Any]],
    names_CE: npt.NDArray[np.float32],
    label_N: npt.NDArray[np.int32],
) -> npt.NDArray[np.float32]:
    """Return the cosine of images and the names of their classes, float32 [N] in [-1, 1] (OURS).

    tower_NE: unit vectors [N, E] of the images by an open_clip image tower. names_CE: unit vectors
    [C, E] of the class names by its text encoder. label_N: predicted classes [N].

    Example:
        >>> eye = np.eye(2, dtype=np.float32)
        >>> class_name_similarity(eye, eye, np.array([0, 0], np.int32)).tolist()
        [1.0, 0.0]
    """
    images, names = tower_NE.astype(np.float32), names_CE.astype(np.float32)
    cosine: npt.NDArray[np.float32] = np.einsum("ne,ne->n", images, names[label_N])
    return cosine
