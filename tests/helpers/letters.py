"""Letters for the tests of `experiments.xo` and `experiments.draw`."""

import jax
import numpy as np

from cnn_jax import nets, save_params
from cnn_jax.data import xo

SHAPE = (28, 28, 1)


def draw_letters(count, size=50):
    """Clean X's and O's by turns, slightly rotated, as bytes (N, size, size); and their letters."""
    labels = np.arange(count) % 2
    strengths = xo.CLEAN | {"thickness": 1.0, "rotate": 0.3}
    draw = jax.jit(jax.vmap(lambda key, label: xo.draw(key, size=size, label=label, **strengths)[0]))
    images = draw(jax.random.split(jax.random.key(1), count), labels)
    return np.asarray(127.5 * (images + 1)).astype(np.uint8), np.array(xo.CLASSES)[labels]


def save_untrained_xo_net(path, features=(2, 3, 4)):
    """Writes a model file of a small network without training; returns its path."""
    net = nets.xo_net(features=features)
    params = jax.jit(lambda key: net.init(key, SHAPE))(jax.random.key(0))
    save_params(path, params, net="xo_net", options={"features": features})
    return path
