"""What a training learns from: arrays, a function that draws examples, or a stream; each gives batch after batch."""

import contextlib
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int

from ._sharding import Placement, checksum, to_host

COMPARED = 1000  # images by which data are told from others


class Batch(NamedTuple):
    """What `fit(augment=...)` varies: images and labels as stored, their places in the data, and the epoch, from 0."""

    images: Array
    labels: Array
    indices: Int[Array, " N"]
    epoch: Int[Array, ""]


class Stream(Protocol):
    """Data that come in pieces, such as `cnn_jax.data.stream.Stream`."""

    identity: dict[str, Any]
    """What tells the stream from others, whose positions mean something else, as JSON knows it."""

    def batches(self, batch_size: int, start: int = 0) -> Generator[Any]:
        """Pieces of images, labels, indices and epoch, without end from a position on, each with the position after."""
        ...


Sample = Callable[[Array], tuple[Array, Array]]
Augment = Callable[[Array, Batch], tuple[Array, Array]]
Data = Sample | tuple[Any, Any] | Stream


Load = Callable[[Any, Any, Array], tuple[Array, Array, Any]]


class Feed(NamedTuple):
    """How a training is fed."""

    order: Any
    """What the feed carries from step to step, which is saved with the training."""
    store: Callable[[Any], Any]
    """Gives by `order` what the next step's program reads from, on the devices."""
    example: Any
    """Such a store, for its shapes."""
    load: Load
    """Within a program: load(store, order, step) gives the images, the labels and the next order."""
    at_once: int | None
    """Steps that one store is enough for; None for any number."""
    identity: Callable[[], Any] = lambda: None
    """Gives what tells the data from others, as JSON knows it."""
    labels: np.ndarray | None = None
    """All labels, where they are learned from as they are."""


@contextlib.contextmanager
def feeding(data: Data, batch_size: int, key: Array, augment: Augment | None, place: Placement) -> Iterator[Feed]:
    """The feed of any kind of data. Raises what `fit` says of data, batch_size and augment."""
    if hasattr(data, "batches"):
        stream = cast(Stream, data)
        pieces = _Pieces(stream, batch_size, place)
        try:
            yield _streamed(pieces, key, augment, place)._replace(identity=lambda: stream.identity)
        finally:
            pieces.close()
    elif callable(data):
        if augment is not None:
            raise TypeError("augment: expected None when data is a function, which can vary its examples by itself")
        yield _sampled(data, batch_size, key, place)
    else:
        yield _stored(data, batch_size, key, augment, place)


def _sampled(sample: Sample, batch_size: int, key: Array, place: Placement) -> Feed:
    store = place.replicate(key)

    def load(key: Array, order: None, step: Array) -> tuple[Array, Array, None]:
        images, labels = jax.vmap(sample)(jax.random.split(jax.random.fold_in(key, step), batch_size))
        return _with_channels(images), labels, order

    return Feed(None, lambda order: store, store, load, None)


def _stored(data: Any, batch_size: int, key: Array, augment: Augment | None, place: Placement) -> Feed:
    try:
        images, labels = (jnp.asarray(part) for part in data)
    except (TypeError, ValueError):
        raise TypeError(
            f"data: expected (images, labels), a function sample(key) or a stream, got {type(data).__name__}"
        ) from None
    n = len(images)
    if len(labels) != n:
        raise ValueError(f"data: expected as many labels as the {n} images, got {len(labels)}")
    if n < batch_size:
        raise ValueError(f"batch_size: expected at most the {n} images of data, got {batch_size}")
    store = place.replicate((images, labels, tuple(jax.random.split(key))))

    def load(store: tuple[Array, Array, Array], order: Array, step: Array) -> tuple[Array, Array, Array]:
        images, labels, (order_key, augment_key) = store
        epoch, place = jnp.divmod(step, n // batch_size)

        def shuffled() -> Array:
            return jax.random.permutation(jax.random.fold_in(order_key, epoch), n)

        order = lax.cond(place == 0, shuffled, lambda: order)
        chosen = lax.dynamic_slice_in_dim(order, place * batch_size, batch_size)
        images, labels = _varied(augment, augment_key, step, Batch(images[chosen], labels[chosen], chosen, epoch))
        return images, labels, order

    def identity() -> dict[str, int]:
        return {"images": checksum(images[:: max(1, n // COMPARED)]), "labels": checksum(labels)}

    told = None if augment else np.asarray(labels)
    return Feed(jnp.arange(n), lambda order: store, store, load, None, identity, told)


def _streamed(pieces: "_Pieces", key: Array, augment: Augment | None, place: Placement) -> Feed:
    key = place.replicate(key)

    def load(store: tuple[Any, Array], order: Array, step: Array) -> tuple[Array, Array, Array]:
        (images, labels, indices, epochs, order), key = store
        images, labels = _varied(augment, key, step, Batch(images, labels, indices, epochs[0]))
        return images, labels, order

    return Feed(pieces.order(None), lambda order: (pieces.after(order), key), (pieces.first, key), load, 1)


class _Pieces:
    """A stream's pieces as batches on the devices of all processes, of which each reads its own."""

    def __init__(self, stream: Stream, batch_size: int, place: Placement):
        self.stream, self.place, self.whole = stream, place, batch_size
        self.size, self.started = batch_size // jax.process_count(), False
        self.read = stream.batches(self.size)
        self.first = self._next()

    def after(self, order: Array) -> Any:
        """The batch at the order's position, which counts in the first call, and then those that follow it."""
        if self.started:
            return self._next()
        self.started, position = True, self._position(order)
        if not position:
            return self.first
        self.close()
        self.read = self.stream.batches(self.size, position)
        return self._next()

    def _next(self) -> Any:
        piece = next(self.read)
        epochs = np.full(self.size, piece.epoch, np.int32)
        parts = piece.images, piece.labels, piece.indices.astype(np.int32), epochs, self.order(piece.position)
        return self.place.from_process_local(parts)

    def order(self, position: int | None) -> np.ndarray:
        """A position, of this process unless it is none's, for each image: two numbers of 32 bits, and the process."""
        if position is None:
            return np.full((self.whole, 3), -1, np.int32)
        return np.tile(np.array([*divmod(position, 2**30), jax.process_index()], np.int32), (self.size, 1))

    def _position(self, order: Array) -> int:
        """This process's position."""
        rows = to_host(order)
        own = rows[rows[:, 2] == jax.process_index()]
        return int(own[0, 0]) * 2**30 + int(own[0, 1]) if len(own) else 0

    def close(self) -> None:
        """Ends the reading."""
        self.read.close()


def _varied(augment: Augment | None, key: Array, step: Array, batch: Batch) -> tuple[Array, Array]:
    images, labels = augment(jax.random.fold_in(key, step), batch) if augment else batch[:2]
    return _with_channels(images), labels


def _with_channels(images: Array) -> Array:
    if images.ndim not in (3, 4):
        raise ValueError(f"data: expected images of (H, W) or (H, W, C), got {images.shape[1:]}")
    return images if images.ndim == 4 else images[..., None]
