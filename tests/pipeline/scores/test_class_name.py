"""Class-name similarity: the cosine of an image and the name of its predicted class."""

from __future__ import annotations

import numpy as np

from indexes.vectors.index import normalize_rows
from pipeline.scores.class_name import class_name_similarity


def test_class_name_similarity_is_a_cosine_with_the_predicted_name() -> None:
    generator = np.random.default_rng(0)
    images, names = (
        normalize_rows(generator.normal(size=(9, 6))),
        normalize_rows(generator.normal(size=(3, 6))),
    )
    label = generator.integers(0, 3, 9)
    slow = [float(np.dot(images[row], names[label[row]])) for row in range(9)]
    np.testing.assert_allclose(class_name_similarity(images, names, label), slow, atol=1e-6)
