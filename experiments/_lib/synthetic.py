"""Synthetic data sets for `--smoke` runs: they need no download and are learned within a few steps."""

from collections.abc import Sequence

import numpy as np

from cnn_jax.data.dataset import LabeledImages

CELLS = 4  # random gray or color cells along each side of a class's pattern
NOISE = 40  # standard deviation, of pixels from 0 to 255


def synthetic_dataset(
    count: int, size: int, channels: int, classes: Sequence[str]
) -> tuple[LabeledImages, LabeledImages]:
    """A training set and a test set: a coarse random pattern for each class, under independent Gaussian noise.

    Args:
      count: images in each of the two sets; classes take turns.
      size: rows and columns.
      channels: 1 gives images (N, size, size), more give (N, size, size, channels).
      classes: names of the classes.
    """
    generator = np.random.default_rng(0)
    shape = (size, size, channels) if channels > 1 else (size, size)
    cells = generator.uniform(0, 255, (len(classes), CELLS, CELLS, channels))
    cell_of_pixel = np.arange(size) * CELLS // size
    patterns = cells[:, cell_of_pixel][:, :, cell_of_pixel].reshape(len(classes), *shape)

    def draw() -> LabeledImages:
        labels = np.arange(count, dtype=np.int32) % len(classes)
        noisy = patterns[labels] + generator.normal(0, NOISE, (count, *shape))
        return LabeledImages(np.clip(noisy, 0, 255).astype(np.uint8), labels, tuple(classes))

    train = draw()
    test = draw()
    return train, test
