"""Labeled images in memory, and their split into training and validation sets."""

import numbers
import reprlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, Integer, UInt8

from .._reprs import array_text
from .._validation import check_int

__all__ = ["LabeledImages", "train_val_split", "validation_mask"]


class LabeledImages(NamedTuple):
    """Images, their labels, and the names of the classes.

    >>> data = LabeledImages(np.zeros((2, 28, 28), np.uint8), np.array([1, 0], np.int32), ("X", "O"))
    >>> [data.classes[label] for label in data.labels]
    ['O', 'X']
    """

    images: UInt8[np.ndarray, "N H W *C"]
    """Gray or color."""
    labels: Int32[np.ndarray, " N"]
    """Indices into `classes`."""
    classes: tuple[str, ...]

    def __repr__(self) -> str:
        arrays = f"images=<{array_text(self.images)}>, labels=<{array_text(self.labels)}>"
        return f"LabeledImages({arrays}, classes={reprlib.repr(self.classes)})"


def train_val_split(data: LabeledImages, validation: float, *, seed: int = 0) -> tuple[LabeledImages, LabeledImages]:
    """Stratified random split into a training set and a validation set.

    A class of two images or more has at least one in each set.

    Args:
      data: the images to split; their order is kept.
      validation: the share of each class that goes to the validation set, more than 0 and less than 1.
      seed: of the random choice, at least 0.

    Returns:
      The training set and the validation set.

    Raises:
      ValueError: a share that is not between 0 and 1, a negative seed, a number of labels other than that of images.
      TypeError: a share that is not a number, a seed that is not an int.

    >>> data = LabeledImages(np.zeros((10, 2, 2), np.uint8), np.repeat(np.arange(2, dtype=np.int32), 5), ("a", "b"))
    >>> train, validation = train_val_split(data, 0.2)
    >>> validation.labels
    array([0, 1], dtype=int32)
    """
    if len(data.labels) != len(data.images):
        raise ValueError(f"data: expected a label for each of {len(data.images)} images, got {len(data.labels)}")
    in_validation = validation_mask(data.labels, validation, seed=seed)
    return _select(data, ~in_validation), _select(data, in_validation)


def _select(data: LabeledImages, mask: Bool[np.ndarray, " N"]) -> LabeledImages:
    return LabeledImages(data.images[mask], data.labels[mask], data.classes)


def validation_mask(labels: Integer[np.ndarray, " N"], validation: float, *, seed: int = 0) -> Bool[np.ndarray, " N"]:
    """True for the images that `train_val_split` puts into the validation set.

    >>> validation_mask(np.array([0, 0, 0, 1, 1, 1]), 1 / 3)
    array([False, False,  True, False, False,  True])
    """
    if not isinstance(validation, numbers.Real):
        raise TypeError(f"validation: expected a number, got {validation!r}")
    if not 0 < validation < 1:
        raise ValueError(f"validation: expected more than 0 and less than 1, got {validation}")
    seed = check_int("seed", seed, minimum=0)
    generator = np.random.default_rng(seed)
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        shuffled = generator.permutation(np.flatnonzero(labels == label))
        count = min(max(round(validation * len(shuffled)), 1), len(shuffled) - 1)
        mask[shuffled[:count]] = True
    return mask
