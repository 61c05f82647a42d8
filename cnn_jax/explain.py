"""What a network saw: its stages, the patches its features look for, and the pixels its scores come from.

Most functions take one image (H, W, C) and a network `net` of `cnn_jax.layers` with its `params`, are pure, and run
under `jax.jit` and `jax.vmap`. They explain one score, before any softmax: that of `label`, by default of the class
that scores most. A map that says how much each pixel counts is (H, W); only `integrated_gradients` keeps the channels.

>>> from cnn_jax import nets
>>> net = nets.xo_net(features=(2, 2))
>>> params, images = net.init(jax.random.key(0), (8, 8, 1)), jnp.ones((5, 8, 8, 1))
>>> jax.jit(jax.vmap(functools.partial(occlusion, net, params)))(images).shape
(5, 8, 8)
"""

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from ._validation import as_floats, as_pair, check_int, check_number, check_shape
from .layers import Layer, Params, Stages
from .receptive_field import patch_grid, receptive_field

__all__ = [
    "Patches",
    "top_activating_patches",
    "kernels_as_images",
    "grad_cam",
    "integrated_gradients",
    "occlusion",
    "receptive_field",
    "saliency",
    "smooth_grad",
    "stages",
]

READ = 64  # images that `top_activating_patches` has in work at a time
Label = int | Int[Array, ""] | None


def stages(net: Layer, params: Params, image: Float[Array, "H W C"]) -> Stages:
    """Every filtered and every pooled image of a network by name, in order; vectors, such as the votes, are left out.

    >>> from cnn_jax import Chain, Conv, Flatten, MaxPool
    >>> net = Chain(Conv(2), MaxPool(), Flatten())
    >>> seen = stages(net, net.init(jax.random.key(0), (6, 6, 1)), jnp.ones((6, 6, 1)))
    >>> {name: stage.shape for name, stage in seen.items()}
    {'conv1': (4, 4, 2), 'max_pool1': (2, 2, 2)}
    """
    return Stages((name, stage) for name, stage in net.stages(params, _image(image)).items() if stage.ndim == 3)


def saliency(net: Layer, params: Params, image: Float[Array, "H W C"], *, label: Label = None) -> Float[Array, "H W"]:
    """How fast the score changes with each pixel:  max over channels of |∂ score / ∂ image|, at least 0.

    Raises a ValueError for an image that is not (H, W, C), a network whose output is no vector of scores, and a label
    that it has not (but for a traced one, which is clipped); a TypeError for a label that is no int.

    Source: Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks" (2013).
    """
    image, score = _image(image), _score(net, params, image, label)
    return jnp.abs(jax.grad(score)(image)).max(axis=-1)


def smooth_grad(
    key: Array,
    net: Layer,
    params: Params,
    image: Float[Array, "H W C"],
    *,
    label: Label = None,
    samples: int = 50,
    noise: float = 0.15,
) -> Float[Array, "H W"]:
    """`saliency` of the mean gradient over noisy copies of the image, which lets what many of them share stand out:
    max over channels of |mean ∂ score / ∂ image|, at least 0.

    Args:
      key: makes the noise.
      net, params, image, label: as in `saliency`; the label is that of the image without noise.
      samples: how many copies, all in one batch.
      noise: its standard deviation, as a share of the image's range (its largest value less its smallest).

    Source: Smilkov, Thorat, Kim, Viégas and Wattenberg, "SmoothGrad" (2017).
    """
    samples = check_int("samples", samples)
    noise = check_number("noise", noise, "a number of at least 0", lambda n: n >= 0)
    image, score = _image(image), _score(net, params, image, label)
    copies = image[None] + noise * jnp.ptp(image) * jax.random.normal(key, (samples, *image.shape), image.dtype)
    return jnp.abs(jax.vmap(jax.grad(score))(copies).mean(axis=0)).max(axis=-1)


def integrated_gradients(
    net: Layer,
    params: Params,
    image: Float[Array, "H W C"],
    *,
    label: Label = None,
    baseline: float | Float[Array, "H W C"] = -1.0,
    steps: int = 128,
) -> Float[Array, "H W C"]:
    """What each number of the image adds to the score, compared with a baseline:

        (image - baseline) × mean over t in (0, 1) of ∂ score / ∂ image at baseline + t (image - baseline)

    They add up to score(image) - score(baseline). The mean is one of `steps` gradients, and what it misses of that sum,
    which kinks of ReLU make some percent in a network that has not learned, is shared out in proportion to the
    numbers' magnitudes, which the paper does not do. So the sum holds unless all gradients are 0, and does not tell
    whether `steps` are enough: compare with more of them. Where few miss much, signs may change.

    Args:
      net, params, image, label: as in `saliency`; the label is that of the image.
      baseline: what says nothing, by default black; pixels that are like it count for nothing. A number or an image.
      steps: gradients, all in one batch.

    Source: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks" (2017).

    >>> from cnn_jax import Chain, Dense, Flatten
    >>> net, params = Chain(Flatten(), Dense(1)), {"dense1": {"kernel": jnp.array([[2.0], [3.0]]), "bias": jnp.ones(1)}}
    >>> integrated_gradients(net, params, jnp.array([[[0.0, 1.0]]]))
    Array([[[2., 6.]]], dtype=float32)
    """
    steps = check_int("steps", steps)
    image, score = _image(image), _score(net, params, image, label)
    (start,) = as_floats(baseline=baseline)
    if start.shape not in ((), image.shape):
        raise ValueError(f"baseline: expected a number or the image's shape {image.shape}, got {start.shape}")
    start = jnp.broadcast_to(start.astype(image.dtype), image.shape)
    shares = jnp.asarray((np.arange(steps) + 0.5) / steps, image.dtype)  # the middles of steps of the same length
    gradients = jax.vmap(lambda share: jax.grad(score)(start + share * (image - start)))(shares)
    each = (image - start) * gradients.mean(axis=0)
    missed = score(image) - score(start) - each.sum()
    weights = jnp.abs(lax.stop_gradient(each))  # shares alone, so that derivatives are finite where all are 0
    total = weights.sum()
    return each + missed * weights / jnp.where(total > 0, total, 1)


def occlusion(
    net: Layer,
    params: Params,
    image: Float[Array, "H W C"],
    *,
    label: Label = None,
    window: int | Sequence[int] = 5,
    stride: int | Sequence[int] = 1,
    fill: float = -1.0,
) -> Float[Array, "H2 W2"]:
    """How much the score falls when a window around each pixel is covered:  score(image) - score(covered image).

    All covered images are one batch, ceil(H / stride) × ceil(W / stride) of them: of a large image look at every second
    or fourth pixel. Above 0: what was there spoke for the class.

    Args:
      net, params, image, label: as in `saliency`; the label is that of the image as it is.
      window: rows and columns that are covered, the pixel in their middle (of even numbers after it).
      stride: from one covered pixel to the next.
      fill: what covers, by default black.

    Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (2013).
    """
    window, stride, fill = as_pair("window", window), as_pair("stride", stride), check_number("fill", fill)
    image, score = _image(image), _score(net, params, image, label)

    def covered(axis: int) -> Array:
        """Which rows, or columns, each window covers."""
        places = np.arange(image.shape[axis])
        first = places[:: stride[axis], None] - (window[axis] - 1) // 2
        return jnp.asarray((places >= first) & (places < first + window[axis]))

    def without(rows: Array, columns: Array) -> Array:
        hidden = rows[:, None, None] & columns[None, :, None]
        return score(jnp.where(hidden, jnp.asarray(fill, image.dtype), image))

    each = jax.vmap(jax.vmap(without, (None, 0)), (0, None))
    return score(image) - each(covered(0), covered(1))


def grad_cam(
    net: Layer, params: Params, image: Float[Array, "H W C"], *, label: Label = None, stage: str | None = None
) -> Float[Array, "H2 W2"]:
    """Where a stage's features speak for the class:

        ReLU(Σ_k w_k A_k)    w_k = mean over y, x of ∂ score / ∂ A_k

    A_k being the stage's image of feature k. As large as that image, (H', W'); `jax.image.resize` makes it larger.

    Args:
      net, params, image, label: as in `saliency`.
      stage: a name of `stages(net, params, image)`; by default the last one that is not pooled. The later a stage, the
        fewer pixels it has: an early one shows more exactly where, a late one what for.

    Raises a ValueError that names the stages for another name.

    Source: Selvaraju et al., "Grad-CAM" (2017).
    """
    image = _image(image)
    stage, shape, dtype = _stage(net, params, image, stage)
    score = _pick(net, params, image, label)

    def changed(change: Array) -> tuple[Array, Array]:
        seen = net.stages(params, image, intercept=lambda name, value: value + change if name == stage else value)
        return score(next(reversed(seen.values()))), seen[stage]

    gradient, maps = jax.grad(changed, has_aux=True)(jnp.zeros(shape, dtype))
    weights = gradient.mean(axis=(0, 1), keepdims=True)
    return jax.nn.relu(jnp.sum(weights * maps, axis=-1))


class Patches(NamedTuple):
    """The patches that each of K features of a stage answers most strongly, the strongest first.

    Attributes:
      patches: (K, count, h, w, C), as large as the stage's receptive field; 0 beyond the image's border.
      values: the answers, (K, count).
      indices: the number of the image that each patch is from, (K, count).
      y, x: the row and column of the stage's image where the answer is, (K, count).
    """

    patches: Float[Array, "K count h w C"]
    values: Float[Array, "K count"]
    indices: Int[Array, "K count"]
    y: Int[Array, "K count"]
    x: Int[Array, "K count"]


def top_activating_patches(
    net: Layer, params: Params, images: Float[Array, "N H W C"], *, stage: str | None = None, count: int = 9
) -> Patches:
    """The patches of a data set, at most one an image, that each feature of a stage answers most strongly.

    Where a feature answers everywhere alike, as one that ReLU silences does with 0, the first place stands for all:
    look at `values`.

    Args:
      net, params: the network.
      images: the data set; of these some are in work at a time, so that N may be large.
      stage: a name of `stages(net, params, image)`; by default the last one that is not pooled.
      count: patches for each feature, at most N.

    Raises a ValueError for another stage's name, for fewer than `count` images, and for a stage that seems to depend on
    no pixel: patches are found as `receptive_field` finds them.

    Source: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (2013), whose figures show them.
    """
    (images,) = as_floats(images=images)
    if images.ndim != 4:
        raise ValueError(f"images: expected shape (N, H, W, C), got {images.shape}")
    if check_int("count", count) > len(images):
        raise ValueError(f"count: expected 1 to {len(images)}, as many as there are images, got {count}")
    _, *shape = images.shape
    stage, (_, columns, _), _ = _stage(net, params, jax.ShapeDtypeStruct(shape, images.dtype), stage)
    size, down, across = patch_grid(net, tuple(shape), stage)

    def best(image: Array) -> tuple[Array, Array]:
        """Each feature's largest answer, and where it is."""
        answers = net.stages(params, image)[stage]
        flat = answers.reshape(-1, answers.shape[-1])
        return flat.max(axis=0), flat.argmax(axis=0)

    values, places = lax.map(best, images, batch_size=READ)  # (N, K)
    values, indices = lax.top_k(values.T, count)
    y, x = jnp.divmod(jnp.take_along_axis(places.T, indices, axis=1), columns)
    border = [(side, side) for side in size]

    def cut(index: Array, row: Array, column: Array) -> Array:
        framed = jnp.pad(images[index], [*border, (0, 0)])
        corner = jnp.asarray(down)[row] + size[0], jnp.asarray(across)[column] + size[1], 0
        return lax.dynamic_slice(framed, corner, (*size, shape[-1]))

    return Patches(jax.vmap(jax.vmap(cut))(indices, y, x), values, indices, y, x)


def kernels_as_images(params: Params, *, stage: str | None = None) -> Float[Array, "K h w C"]:
    """A layer's learned features as images on one scale, (K, h, w, C): divided by the largest magnitude of them all, so
    that the strongest weight is 1, white, or -1, black.

    Args:
      params: of a network.
      stage: the layer's name, "conv2" or "residual1/conv1"; by default the first that has features (of the names in
        alphabetical order, under `jax.jit` and `jax.vmap`).

    Raises a ValueError where there are none.

    >>> bank = kernels_as_images({"conv1": {"kernel": jnp.arange(18.0).reshape(3, 3, 1, 2), "bias": jnp.zeros(2)}})
    >>> bank.shape, bank.min().item(), bank.max().item()
    ((2, 3, 3, 1), 0.0, 1.0)
    """
    found = dict(_banks(params))
    if stage is None:
        stage = next(iter(found), None)
    if stage not in found:
        raise ValueError(f"stage: expected a layer with features, of {list(found)}, got {stage!r}")
    features = jnp.moveaxis(found[stage], -1, 0)
    largest = jnp.abs(features).max()
    return features / jnp.where(largest > 0, largest, 1)


def _banks(params: Params, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Array]]:
    """The features of every layer that has some, by the layer's name."""
    for name, value in params.items():
        if isinstance(value, dict):
            yield from _banks(value, (*path, name))
        elif jnp.ndim(value) == 4:
            yield "/".join(path), value


def _image(image: Any) -> Array:
    (image,) = as_floats(image=image)
    check_shape("image", image, "H W C")
    return image


def _score(net: Layer, params: Params, image: Array, label: Label) -> Callable[[Array], Array]:
    """What gives the explained score of any image."""
    score = _pick(net, params, image, label)
    return lambda other: score(net.apply(params, other))


def _pick(net: Layer, params: Params, image: Array, label: Label) -> Callable[[Array], Array]:
    """What takes the explained one of all scores: the label's, or the one that is largest for this image."""
    shape = jax.eval_shape(functools.partial(net.apply, params), image).shape
    if len(shape) != 1:
        raise ValueError(f"net: expected one that gives scores (K,), got shape {shape}")
    label = jnp.argmax(net.apply(params, image)) if label is None else _label(label, shape[0])
    return lambda scores: scores[label]


def _label(label: Any, classes: int) -> Any:
    """A label that there is; one that is traced, whose value nobody knows yet, is taken as it is."""
    if isinstance(label, Tracer) and jnp.issubdtype(label.dtype, jnp.integer) and label.shape == ():
        return label
    if isinstance(label, bool | np.bool_ | Tracer):
        raise TypeError(f"label: expected an int from 0 to {classes - 1}, got {label!r}")
    try:
        number = operator.index(label)
    except TypeError:
        raise TypeError(f"label: expected an int from 0 to {classes - 1}, got {label!r}") from None
    if not 0 <= number < classes:
        raise ValueError(f"label: expected 0 to {classes - 1}, got {number}")
    return number


def _stage(net: Layer, params: Params, image: Any, name: str | None) -> tuple[str, tuple[int, ...], Any]:
    """The name, shape and dtype of a stage of images."""
    seen = {name: stage for name, stage in jax.eval_shape(net.stages, params, image).items() if stage.ndim == 3}
    unpooled = [name for name in seen if "pool" not in name] or list(seen)
    wanted = "".join(unpooled[-1:]) if name is None else name
    if wanted not in seen:
        raise ValueError(f"stage: expected one of images, of {list(seen)}, got {name!r}")
    return wanted, seen[wanted].shape, seen[wanted].dtype
