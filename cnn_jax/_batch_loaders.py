"""Loaders: how a compiled program builds the batch of a step from the arrays that it is given.

A loader is hashable and holds no arrays, so that programs are found again by it.
"""

import dataclasses
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Int, PyTree, Shaped

from ._contents import Contents
from ._object_checks import check_pair
from ._train_state import DataState
from ._typing import AnyArray

UNKNOWN = -1  # is the first index of an order that is not drawn yet
Images = TypeVar("Images", Array, np.ndarray, AnyArray)


class Batch(NamedTuple):
    """A batch as it is stored, which `fit(augment=...)` transforms."""

    images: Shaped[Array, "N H W *C"]
    labels: Shaped[Array, "N ..."]
    indices: Int[Array, " N"]
    """The position of each example in the data."""
    epoch: Int[Array, ""]
    """The number of complete passes over the data before this batch."""


@runtime_checkable
class Augment(Protocol):
    """Transforms a stored batch into the images and labels of one step, on the device."""

    def __call__(self, key: Array, batch: Batch, /) -> tuple[Array, Array]: ...


@runtime_checkable
class Sample(Protocol):
    """Draws one example, an image (H, W) or (H, W, C) and its label, on the device."""

    def __call__(self, key: Array, /) -> tuple[Array, ArrayLike]: ...


@runtime_checkable
class Loader(Protocol):
    """The images (N, H, W, C), the labels and the next data state of the step after `step` steps; traced."""

    def __call__(self, arrays: PyTree, data_state: DataState, step: Array, /) -> tuple[Array, Array, DataState]: ...


@dataclasses.dataclass(frozen=True)
class ArrayLoader:
    """Takes batches from arrays on the device, in an order that is drawn for every epoch and kept as the data state."""

    batch_size: int
    augment: Contents[Augment | None]

    def __call__(self, arrays: PyTree, data_state: DataState, step: Array) -> tuple[Array, Array, DataState]:
        assert data_state is not None
        images, labels, (order_key, augment_key) = arrays
        epoch, index = jnp.divmod(step, len(images) // self.batch_size)

        def shuffle() -> Array:
            return jax.random.permutation(jax.random.fold_in(order_key, epoch), len(images))

        order = lax.cond((index == 0) | (data_state[0] == UNKNOWN), shuffle, lambda: data_state)
        indices = lax.dynamic_slice_in_dim(order, index * self.batch_size, self.batch_size)
        batch = Batch(images=images[indices], labels=labels[indices], indices=indices, epoch=epoch)
        return *_augmented(self.augment.value, augment_key, step, batch), order


@dataclasses.dataclass(frozen=True)
class SampleLoader:
    """Draws the examples of a batch by a function, new ones in every step."""

    sample: Contents[Sample]
    batch_size: int

    def __call__(self, arrays: PyTree, data_state: DataState, step: Array) -> tuple[Array, Array, DataState]:
        keys = jax.random.split(jax.random.fold_in(arrays, step), self.batch_size)
        images, labels = check_pair("data", jax.vmap(self.sample.value)(keys), "(image, label)")
        return with_channels("data", images), jnp.asarray(labels), data_state


@dataclasses.dataclass(frozen=True)
class StreamLoader:
    """Takes the one batch that was read from a stream."""

    augment: Contents[Augment | None]

    def __call__(self, arrays: PyTree, data_state: DataState, step: Array) -> tuple[Array, Array, DataState]:
        images, labels, indices, epochs, key = arrays
        batch = Batch(images=images, labels=labels, indices=indices, epoch=epochs[0])
        return *_augmented(self.augment.value, key, step, batch), data_state


def _augmented(augment: Augment | None, key: Array, step: Array, batch: Batch) -> tuple[Array, Array]:
    """The images (N, H, W, C) and labels to learn from."""
    if augment is None:
        return with_channels("data", batch.images), batch.labels
    augmented = augment(jax.random.fold_in(key, step), batch)
    images, labels = check_pair("augment", augmented, "(images, labels)")
    return with_channels("data", jnp.asarray(images)), jnp.asarray(labels)


def with_channels(name: str, images: Images) -> Images:
    """Images (N, H, W, C), with one channel if they have none.

    >>> with_channels("images", jnp.zeros((5, 2, 2))).shape
    (5, 2, 2, 1)
    """
    if images.ndim not in (3, 4):
        raise ValueError(f"{name}: expected images (H, W) or (H, W, C), got shape {images.shape[1:]}")
    return images if images.ndim == 4 else images[..., None]
