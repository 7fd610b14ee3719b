"""Class-name similarity: does the image look like the name of the class that the teacher sees?"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def class_name_similarity(
    tower_NE: npt.NDArray[np.floating[Any]],
    names_CE: npt.NDArray[np.float32],
    label_N: npt.NDArray[np.int32],
) -> npt.NDArray[np.float32]:
    """Cosine of an image and the name of its predicted class, float32 [N], in [-1, 1] (OURS).

    tower_NE: an open_clip tower's unit vectors of the images; names_CE: its text encoder's unit
    vectors of the class names.
    """
    images, names = tower_NE.astype(np.float32), names_CE.astype(np.float32)
    cosine: npt.NDArray[np.float32] = np.einsum("ne,ne->n", images, names[label_N])
    return cosine
