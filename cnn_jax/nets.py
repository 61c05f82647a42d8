"""Named networks, each a few lines of layers. All return logits: one number per class, before any softmax."""

from collections.abc import Sequence
from dataclasses import KW_ONLY
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Shaped

from ._chain import Chain, Residual
from ._kernel_layers import Conv, Dense, Match, he_normal
from ._layer import Layer
from ._params import Params
from ._validation import check_int
from .initializers import dirac
from .layers import Activation, AvgPool, Flatten, GlobalAvgPool, MaxAbsPool, MaxPool
from .matching import sharpened_cosine
from .norms import BatchNorm

__all__ = ["airbench_net", "cosine_net", "digit_net", "lenet5", "resnet9", "to_unit_range", "xo_net"]

T = TypeVar("T")


def xo_net(*, features: Sequence[int] = (16, 32, 32, 64), classes: int = 2) -> Layer:
    """Network that tells X from O: 3x3 convolutions, each with ReLU and 2x2 max pooling, then a linear classifier.

    Args:
      features: number of features of each convolution.
      classes: number of logits.

    Returns:
      A network for images (H, W, C).

    Raises:
      ValueError: no features, a number below 1.
      TypeError: numbers that are not ints.

    >>> net = xo_net()
    >>> params = jax.eval_shape(lambda key: net.init(key, (28, 28, 1)), jax.random.key(0))
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    33058
    """
    layers = []
    for count in _check_features(features):
        layers += [Conv(count, 3, padding="SAME"), Activation(jax.nn.relu), MaxPool(padding="CEIL")]
    return Chain(*layers, Flatten(), _classifier_head(classes))


def lenet5(*, classes: int = 10) -> Layer:
    """LeNet-5 in its present form: two 5x5 convolutions with average pooling, three dense layers, tanh activations.

    Args:
      classes: number of logits.

    Returns:
      A network for images (28, 28, C); other sizes work too.

    Raises:
      ValueError: `classes` below 1.
      TypeError: `classes` that is not an int.

    Source: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition" (1998),
    https://doi.org/10.1109/5.726791

    >>> params = jax.eval_shape(lambda key: lenet5().init(key, (28, 28, 1)), jax.random.key(0))
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    61706
    """
    tanh = Activation(jax.nn.tanh)
    convolutions = [Conv(6, 5, padding="SAME"), tanh, AvgPool(), Conv(16, 5), tanh, AvgPool()]
    return Chain(*convolutions, Flatten(), Dense(120), tanh, Dense(84), tanh, _classifier_head(classes))


def digit_net(*, features: Sequence[Sequence[int]] = ((8, 16), (16, 16)), classes: int = 10) -> Layer:
    """Small network for digits: groups of 3x3 convolutions, each with BatchNorm and ReLU, 2x2 max pooling between the
    groups, global average pooling and a linear classifier.

    Args:
      features: for each group, the number of features of each of its convolutions.
      classes: number of logits.

    Returns:
      A network for images (H, W, C).

    Raises:
      ValueError: no groups, an empty group, a number below 1.
      TypeError: numbers that are not ints.

    >>> params = jax.eval_shape(lambda key: digit_net().init(key, (28, 28, 1)), jax.random.key(0))
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    6226
    """
    layers = []
    for i, group in enumerate(_check_features(features)):
        if i > 0:
            layers.append(MaxPool())
        for count in _check_features(group):
            layers += _conv_block(count)
    return Chain(*layers, GlobalAvgPool(), _classifier_head(classes))


def cosine_net(*, features: Sequence[int] = (5, 8, 5), classes: int = 10) -> Layer:
    """Network of sharpened cosine similarity layers with 2x2 max-magnitude pooling between them, then BatchNorm and a
    linear classifier. Features are 5x5 in the first layer and 3x3 in the others. There are no activation layers.

    Args:
      features: number of features of each matching layer. Each feature learns its exponent p and offset q.
      classes: number of logits.

    Returns:
      A network for images (H, W, C) with pixels in [-1, 1].

    Raises:
      ValueError: no features, a number below 1.
      TypeError: numbers that are not ints.

    Source: Rohrer, "Sharpened Cosine Similarity", https://github.com/brohrer/sharpened-cosine-similarity

    >>> params = jax.eval_shape(lambda key: cosine_net().init(key, (28, 28, 1)), jax.random.key(0))
    >>> params["match1"]["features"].shape, params["match2"]["features"].shape
    ((5, 5, 1, 5), (3, 3, 5, 8))
    """
    layers: list[Layer] = [Activation(to_unit_range)]
    for i, count in enumerate(_check_features(features)):
        if i > 0:
            layers.append(MaxAbsPool())
        kernel_size = 5 if i == 0 else 3
        layers.append(Match(count, kernel_size, score=sharpened_cosine, learn={"p": 2.0, "q": 0.1}))
    return Chain(*layers, BatchNorm(), Flatten(), _classifier_head(classes))


def to_unit_range(image: Shaped[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """Maps pixels from [-1, 1] to [0, 1].

    A cosine needs this: a background of -1 would count as much as the strokes drawn on it; a background of 0 does not.

    >>> to_unit_range(jnp.array([-1.0, 0.0, 1.0]))
    Array([0. , 0.5, 1. ], dtype=float32)
    """
    return (jnp.asarray(image) + 1) / 2


def resnet9(*, features: int = 64, classes: int = 10) -> Layer:
    """ResNet-9: a residual network of nine layers for small color images, made for the DAWNBench competition.

    Args:
      features: number of features of the first convolution; the last ones have eight times as many.
      classes: number of logits.

    Returns:
      A network for images (32, 32, C).

    Raises:
      ValueError: a number below 1.
      TypeError: numbers that are not ints.

    Source: Page, "How to Train Your ResNet" (2019), https://myrtle.ai/learn/how-to-train-your-resnet/

    >>> params = jax.eval_shape(lambda key: resnet9().init(key, (32, 32, 3)), jax.random.key(0))
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    6577600
    """

    def pooled_block(count: int) -> list[Layer]:
        return [*_conv_block(count), MaxPool()]

    def residual_block(count: int) -> Layer:
        return Residual(*_conv_block(count), *_conv_block(count))

    layers = [*_conv_block(features), *pooled_block(2 * features), residual_block(2 * features)]
    layers += [*pooled_block(4 * features), *pooled_block(8 * features), residual_block(8 * features)]
    return Chain(*layers, MaxPool(4, 4), Flatten(), _scaled_head(classes, 0.125))


def airbench_net(*, features: Sequence[int] = (64, 256, 256), classes: int = 10) -> Layer:
    """Network of the airbench CIFAR-10 speedruns: a 2x2 whitening convolution, then blocks of two 3x3 convolutions with
    2x2 max pooling, BatchNorm without a scale and GELU, then a scaled linear classifier.

    The whitening kernels are meant to be computed from images and kept fixed:
    `params["conv1"]["kernel"] = cnn_jax.initializers.whitening(images)`. The other kernels start as identity (Dirac)
    kernels.

    Args:
      features: number of features of both convolutions of each block.
      classes: number of logits.

    Returns:
      A network for images (32, 32, C).

    Raises:
      ValueError: no features, a number below 1.
      TypeError: numbers that are not ints.

    Source: Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (2024), https://arxiv.org/abs/2404.00498, and its
    later version with Muon, https://github.com/KellerJordan/cifar10-airbench. There GELU is the exact one, and kernels
    beyond the identity ones start smaller.

    >>> params = jax.eval_shape(lambda key: airbench_net().init(key, (32, 32, 3)), jax.random.key(0))
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    1973944
    """
    gelu = Activation(jax.nn.gelu)

    def conv(count: int) -> Layer:
        return Conv(count, 3, padding="SAME", use_bias=False, kernel_init=dirac(he_normal))

    def norm() -> Layer:
        return BatchNorm(use_scale=False, epsilon=1e-12)

    layers = [Conv(24, 2), gelu]
    for count in _check_features(features):
        layers += [conv(count), MaxPool(), norm(), gelu, conv(count), norm(), gelu]
    return Chain(*layers, MaxPool(3, 3), Flatten(), _scaled_head(classes, 1 / features[-1], _standard_normal))


def _check_features(features: Sequence[T]) -> list[T]:
    try:
        checked = list(features)
    except TypeError:
        raise TypeError(f"features: expected a sequence, got {features!r}") from None
    if not checked:
        raise ValueError(f"features: expected at least one, got {features!r}")
    return checked


def _conv_block(count: int) -> list[Layer]:
    """A 3x3 convolution with BatchNorm and ReLU."""
    return [Conv(count, 3, padding="SAME", use_bias=False), BatchNorm(), Activation(jax.nn.relu)]


def _classifier_head(classes: int) -> Layer:
    """The linear classifier: a dense layer that computes the logits."""
    return Dense(check_int("classes", classes))


class ScaledDense(Dense):
    """A dense layer whose outputs are scaled."""

    _: KW_ONLY
    scale: float

    def _apply(
        self, params: Params, image: Shaped[ArrayLike, " inputs"], *, train: bool = False, key: Array | None = None
    ) -> Float[Array, " K"]:
        return self.scale * super()._apply(params, image, train=train, key=key)


def _scaled_head(classes: int, scale: float, kernel_init: Initializer = he_normal) -> Layer:
    """A linear classifier without bias whose logits are scaled, so that the first predictions are not overconfident."""
    classes = check_int("classes", classes)
    return ScaledDense(classes, use_bias=False, kernel_init=kernel_init, scale=scale)


def _standard_normal(
    key: Array,
    shape: Sequence[int],
    dtype: DTypeLike | None = jnp.float32,
    out_sharding: jax.NamedSharding | jax.P | None = None,
) -> Array:
    """Initializer: numbers of the standard normal distribution."""
    return jax.random.normal(key, shape, dtype, out_sharding=out_sharding)
