"""Networks with parameters and images that several test files share."""

import functools
from typing import NamedTuple

import jax
from jax import Array

import cnn_jax as cnn
from cnn_jax import nets
from cnn_jax.layers import Layer, Params

SMALL = cnn.Chain(cnn.Conv(3), cnn.Activation(jax.nn.relu), cnn.MaxPool(), cnn.Conv(2), cnn.Flatten(), cnn.Dense(4))
LINEAR = cnn.Chain(cnn.Conv(2, stride=2), cnn.AvgPool(), cnn.Flatten(), cnn.Dense(3))
NESTED = cnn.Chain(
    cnn.Conv(4, 3, padding="SAME"),
    cnn.Residual(cnn.Conv(4, 3, padding="SAME"), cnn.Activation(jax.nn.relu), cnn.Conv(4, 1)),
    cnn.MaxPool(),
    cnn.Dropout(0.5),
    cnn.Match(5, 3),
    cnn.Flatten(),
    cnn.Dense(2),
)


class SampleNetwork(NamedTuple):
    """A network with random parameters and three images."""

    net: Layer
    params: Params
    images: Array


NETWORKS = {
    "small": (SMALL, (9, 8, 2)),
    "linear": (LINEAR, (9, 8, 2)),
    "xo_net": (nets.xo_net(features=(3, 4, 4)), (14, 14, 1)),
    "lenet5": (nets.lenet5(classes=3), (28, 28, 1)),
    "resnet9": (nets.resnet9(features=1, classes=4), (32, 32, 3)),
}


@functools.cache
def sample_network(name: str) -> SampleNetwork:
    """A network of `NETWORKS`; the parameters of the small ones are normal, so that no bias is 0."""
    net, shape = NETWORKS[name]
    params = net.init(jax.random.key(1), shape)
    if name in ("small", "linear"):
        params = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(3), leaf.shape), params)
    images = jax.random.uniform(jax.random.key(2), (3, *shape), minval=-1, maxval=1)
    return SampleNetwork(net, cnn.calibrate(net, params, images), images)
