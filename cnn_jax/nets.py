"""Named networks, each a few lines of layers."""

from collections.abc import Sequence

import jax

from .layers import Activation, Chain, Conv, Dense, Flatten, Layer, MaxPool


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
    for count in features:
        stack += [Conv(count, 3, padding="SAME"), Activation(jax.nn.relu), MaxPool(padding="CEIL")]
    return Chain(*stack, Flatten(), Dense(classes))
