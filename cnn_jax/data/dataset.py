"""What every loader of labelled pictures returns."""

import numbers
import operator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, UInt8


class LabeledImages(NamedTuple):
    """Pictures, their labels, and what the labels mean."""

    images: UInt8[np.ndarray, "N H W *C"]
    labels: Int32[np.ndarray, " N"]
    classes: tuple[str, ...]


def train_val_split(data: LabeledImages, validation: float, *, seed: int = 0) -> tuple[LabeledImages, LabeledImages]:
    """Two parts, the second a share of every class (`validation`), drawn at random: to train on and to choose by.

    Of a class of two pictures or more, each part has at least one.

    Raises:
      ValueError: a share that is not more than 0 and less than 1, a negative seed, more or fewer labels than images.
      TypeError: a share that is no number, a seed that is no int.

    >>> data = LabeledImages(np.zeros((10, 2, 2), np.uint8), np.repeat(np.arange(2, dtype=np.int32), 5), ("a", "b"))
    >>> train, chosen = train_val_split(data, 0.2)
    >>> chosen.labels
    array([0, 1], dtype=int32)
    """
    if len(data.labels) != len(data.images):
        raise ValueError(f"data: expected a label for each of {len(data.images)} images, got {len(data.labels)}")
    apart = validation_mask(data.labels, validation, seed=seed)
    first, second = (LabeledImages(data.images[part], data.labels[part], data.classes) for part in (~apart, apart))
    return first, second


def validation_mask(labels: Int32[np.ndarray, " N"], validation: float, *, seed: int = 0) -> Bool[np.ndarray, " N"]:
    """Which pictures are in the second part of `split`."""
    if not isinstance(validation, numbers.Real):
        raise TypeError(f"validation: expected a number, got {validation!r}")
    if not 0 < validation < 1:
        raise ValueError(f"validation: expected more than 0 and less than 1, got {validation}")
    try:
        seed = operator.index(seed)
    except TypeError:
        raise TypeError(f"seed: expected an int, got {seed!r}") from None
    if seed < 0:
        raise ValueError(f"seed: expected at least 0, got {seed}")
    generator = np.random.default_rng(seed)
    apart = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        own = generator.permutation(np.flatnonzero(labels == label))
        apart[own[: min(max(round(validation * len(own)), 1), len(own) - 1)]] = True
    return apart
