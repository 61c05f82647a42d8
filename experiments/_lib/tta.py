"""Test-time augmentation (TTA): the mean log-probability of a classifier over several views of every image."""

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import cnn_jax

Pixels = Float[Array | np.ndarray, "N H W C"]


class View(Protocol):
    """A variant of every image of a batch, such as its mirror image. Images and variants have the same shape."""

    def __call__(self, pixels: Pixels, /) -> Pixels: ...


def identity_view(pixels: Pixels) -> Pixels:
    """The images themselves."""
    return pixels


def mirrored_view(pixels: Pixels) -> Pixels:
    """The images with left and right exchanged."""
    return pixels[:, :, ::-1]


def shifted_view(down: int, right: int, *, mirrored: bool = False) -> View:
    """A view that shifts images by up to one pixel along each axis, with reflected borders.

    Args:
      down: rows to shift by: -1, 0 or 1.
      right: columns to shift by: -1, 0 or 1.
      mirrored: exchange left and right afterwards.

    >>> image = jnp.arange(9.0).reshape(1, 3, 3, 1)
    >>> shifted_view(0, 1)(image)[0, :, :, 0]
    Array([[1., 0., 1.],
           [4., 3., 4.],
           [7., 6., 7.]], dtype=float32)
    """

    def view(pixels: Pixels) -> Pixels:
        rows, columns = pixels.shape[1:3]
        padded = jnp.pad(pixels, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="reflect")
        shifted = padded[:, 1 - down : 1 - down + rows, 1 - right : 1 - right + columns]
        return mirrored_view(shifted) if mirrored else shifted

    return view


def dihedral_views() -> tuple[View, ...]:
    """The eight flips and 90-degree rotations of square images: the symmetries of the square."""
    flips: tuple[View, ...] = (
        identity_view,
        lambda pixels: pixels[:, ::-1],
        mirrored_view,
        lambda pixels: pixels[:, ::-1, ::-1],
    )
    return (*flips, *(_transposed(flip) for flip in flips))


def _transposed(view: View) -> View:
    return lambda pixels: view(pixels).swapaxes(1, 2)


def tta_log_probs(
    net: cnn_jax.Layer,
    params: Any,
    pixels: Pixels,
    views: Sequence[View] = (identity_view,),
    weights: Sequence[float] | None = None,
) -> Float[Array, "N K"]:
    """The weighted mean over views of a network's log-probabilities.

        out[n, k] = sum over v of weights[v] log_softmax(net(views[v](pixels)[n]))[k] / sum over v of weights[v]

    Args:
      net: a network from (H, W, C) to K logits.
      params: its parameters.
      pixels: images in [-1, 1].
      views: the variants of every image.
      weights: one positive number per view; by default all are equal.

    >>> net = cnn_jax.Flatten()
    >>> pixels = jnp.array([[3.0, 0.0], [0.0, 0.0]]).reshape(2, 1, 2, 1)
    >>> tta_log_probs(net, {}, pixels, (identity_view, mirrored_view)).round(2)
    Array([[-1.55, -1.55],
           [-0.69, -0.69]], dtype=float32)
    """
    batch = jnp.concatenate([view(pixels) for view in views])  # one call of the network, so that it is compiled once
    log_probs = jax.nn.log_softmax(jax.vmap(net.apply, (None, 0))(params, batch))
    by_view = log_probs.reshape(len(views), len(pixels), log_probs.shape[-1])
    return jnp.average(by_view, axis=0, weights=None if weights is None else jnp.array(weights))
