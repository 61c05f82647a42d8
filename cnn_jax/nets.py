"""Named networks, each a few lines of layers."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.nn.initializers import Initializer, normal
from jaxtyping import Array

from ._validation import check_int
from .initializers import dirac
from .layers import (
    Activation,
    AvgPool,
    Chain,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    Layer,
    Match,
    MaxAbsPool,
    MaxPool,
    Residual,
    he_normal,
)
from .matching import sharpened_cosine
from .norms import BatchNorm


def xo_net(*, features: Sequence[int] = (16, 32, 32, 64), classes: int = 2) -> Layer:
    """Tells X from O: for each number of features a 3x3 convolution, ReLU and 2x2 max-pooling, then votes.

    Args:
      features: how many features each of the stacked convolutions learns.
      classes: how many letters get votes.

    >>> net = xo_net()
    >>> params = net.init(jax.random.key(0), (28, 28, 1))
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    33058
    """
    stack = []
    for count in _each(features):
        stack += [Conv(count, 3, padding="SAME"), Activation(jax.nn.relu), MaxPool(padding="CEIL")]
    return Chain(*stack, Flatten(), _votes(classes))


def lenet5(*, classes: int = 10) -> Layer:
    """LeNet-5 as it is taught today: two 5x5 convolutions and mean-pooling, three dense layers, tanh between them.

    Source: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document recognition" (1998).

    >>> params = lenet5().init(jax.random.key(0), (28, 28, 1))
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    61706
    """
    tanh = Activation(jax.nn.tanh)
    stack = [Conv(6, 5, padding="SAME"), tanh, AvgPool(), Conv(16, 5), tanh, AvgPool(), Flatten()]
    return Chain(*stack, Dense(120), tanh, Dense(84), tanh, _votes(classes))


def digit_net(*, features: Sequence[Sequence[int]] = ((8, 16), (16, 16)), classes: int = 10) -> Layer:
    """A small network for digits: groups of 3x3 convolutions, each with BatchNorm and ReLU, 2x2 max-pooling between the
    groups, the mean over all pixels, then votes.

    Args:
      features: for each group, how many features each of its convolutions learns.
      classes: how many classes get votes.

    >>> params = digit_net().init(jax.random.key(0), (28, 28, 1))
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    6226
    """
    stack = []
    for i, group in enumerate(_each(features)):
        stack += [MaxPool()] if i else []
        for count in _each(group):
            stack += [Conv(count, 3, padding="SAME", use_bias=False), BatchNorm(), Activation(jax.nn.relu)]
    return Chain(*stack, GlobalAvgPool(), _votes(classes))


def cosine_net(*, features: Sequence[int] = (5, 8, 5), classes: int = 10) -> Layer:
    """Layers of sharpened cosine similarity, 5x5 and then 3x3, with 2x2 max-abs-pooling between them and nothing else,
    then BatchNorm and votes.

    Args:
      features: how many features each layer learns, with a power and a floor of their own.
      classes: how many classes get votes.

    Source: Rohrer, sharpened cosine similarity.

    >>> params = cosine_net().init(jax.random.key(0), (28, 28, 1))
    >>> params["match1"]["features"].shape, params["match2"]["features"].shape
    ((5, 5, 1, 5), (3, 3, 5, 8))
    """
    stack = [Activation(to_unit_range)]
    for i, count in enumerate(_each(features)):
        stack += [MaxAbsPool()] if i else []
        stack += [Match(count, 3 if i else 5, score=sharpened_cosine, learn={"p": 2.0, "q": 0.1})]
    return Chain(*stack, BatchNorm(), Flatten(), _votes(classes))


def to_unit_range(image: Array) -> Array:
    """Pixels in [-1, 1] as numbers in [0, 1]: for a cosine, a background of -1 counts as much as what is drawn on it.

    >>> to_unit_range(jax.numpy.array([-1.0, 0.0, 1.0]))
    Array([0. , 0.5, 1. ], dtype=float32)
    """
    return (image + 1) / 2


def resnet9(*, features: int = 64, classes: int = 10) -> Layer:
    """Nine layers, four of them in two residual blocks, for small colour pictures: made for the DAWNBench race.

    Args:
      features: how many features the first convolution learns; the last ones learn eight times as many.
      classes: how many classes get votes.

    Source: Page, "How to Train Your ResNet" (2019).

    >>> params = jax.eval_shape(lambda key: resnet9().init(key, (32, 32, 3)), jax.random.key(0))
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    6577600
    """

    def block(count: int) -> list[Layer]:
        return [Conv(count, 3, padding="SAME", use_bias=False), BatchNorm(), Activation(jax.nn.relu)]

    def stage(count: int) -> list[Layer]:
        return [*block(count), MaxPool()]

    start = [*block(features), *stage(2 * features), Residual(*block(2 * features), *block(2 * features))]
    end = [*stage(4 * features), *stage(8 * features), Residual(*block(8 * features), *block(8 * features))]
    return Chain(*start, *end, MaxPool(4, 4), Flatten(), _scaled_votes(classes, 0.125))


def airbench_net(*, features: Sequence[int] = (64, 256, 256), classes: int = 10) -> Layer:
    """The network of the fastest CIFAR-10 trainings: 2x2 kernels that whiten patches, then three stages of two 3x3
    convolutions with pooling, BatchNorm without a scale and GELU, then votes.

    The first kernels are meant to come from data and to stay as they are:
    `params["conv1"]["kernel"] = cnn_jax.initializers.whitening(images)`. The others start by handing channels on.

    Args:
      features: how many features each stage's convolutions learn.
      classes: how many classes get votes.

    Source: Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (2024), and its later version with Muon; there
    GELU is the exact one, and features that hand no channel on start smaller.

    >>> params = jax.eval_shape(lambda key: airbench_net().init(key, (32, 32, 3)), jax.random.key(0))
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    1973944
    """
    gelu = Activation(jax.nn.gelu)

    def conv(count: int) -> Layer:
        return Conv(count, 3, padding="SAME", use_bias=False, kernel_init=dirac(he_normal))

    def norm() -> Layer:
        return BatchNorm(use_scale=False, epsilon=1e-12)

    stack: list[Layer] = [Conv(24, 2), gelu]
    for count in _each(features):
        stack += [conv(count), MaxPool(), norm(), gelu, conv(count), norm(), gelu]
    return Chain(*stack, MaxPool(3, 3), Flatten(), _scaled_votes(classes, 1 / features[-1], normal(1.0)))


def _each(features: Any) -> list[Any]:
    """What the stages of a network learn, one after the other."""
    try:
        each = list(features)
    except TypeError:
        raise TypeError(f"features: expected several, got {features!r}") from None
    if not each:
        raise ValueError(f"features: expected at least one, got {features!r}")
    return each


def _votes(classes: int, **options: Any) -> Layer:
    return Dense(check_int("classes", classes), **options)


def _scaled_votes(classes: int, scale: float, init: Initializer = he_normal) -> Layer:
    """Votes made smaller, so that the first steps are not too sure."""
    dense = _votes(classes, use_bias=False, kernel_init=init)
    return Layer(dense.init, lambda params, vector, **_: scale * dense.apply(params, vector), dense.name)
