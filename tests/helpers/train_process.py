"""One process of a training, for tests that kill it or run several: python train_process.py '{"steps": 100, ...}'."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

import cnn_jax
from cnn_jax import nets, optimizers
from cnn_jax.data.sources import FolderSource
from cnn_jax.data.stream import Stream
from cnn_jax.layers import Chain, Dense, Flatten

NETS = {
    "line": lambda: Chain(Flatten(), Dense(2)),
    "digits": lambda: nets.digit_net(features=((4,), (4,))),
    "xo": lambda: nets.xo_net(features=(4, 8, 8)),
    "cifar": lambda: nets.airbench_net(features=(8, 8, 8)),
}
SHAPES = {"line": (2, 2, 1), "digits": (12, 12, 1), "xo": (28, 28, 1), "cifar": (32, 32, 3)}


def train(net, steps, *, pictures=None, folder=None, save_every=10):
    """The parameters and the history of a run on 64 random images, or on a stream of a folder of pictures."""
    data = random_data(SHAPES[net])
    if pictures:
        data = Stream(FolderSource(pictures, size=SHAPES[net][0]), seed=2, max_corrupt_fraction=0.5)
    optimizer = optax.sgd(1e-6 if pictures else 0.01, 0.9, nesterov=True)
    if net == "cifar":
        muon = optax.contrib.muon(0.01, muon_weight_dimension_numbers=optimizers.muon_dimension_numbers)
        optimizer = optimizers.with_ema(muon, decay=0.9, steps=steps)
    return cnn_jax.fit(
        NETS[net](),
        data,
        optimizer=optimizer,
        steps=steps,
        batch_size=16,
        key=jax.random.key(0),
        checkpoint_dir=folder,
        save_every=save_every,
        mesh=jax.make_mesh((jax.device_count(),), ("batch",)) if jax.device_count() > 1 else None,
        progress=False,
    )


def random_data(shape):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 64)
    images = generator.normal(size=(64, *shape)) + labels[:, None, None, None] / 2
    return jnp.asarray(images), labels


def as_arrays(params, history):
    """The results as one dict of arrays."""
    leaves = jax.tree.leaves(params)
    return dict(history) | {f"leaf {i}": np.asarray(leaf.addressable_data(0)) for i, leaf in enumerate(leaves)}


def main(result, *, devices=1, process=None, port=None, x64=False, **options):
    """Trains on the given devices, as one of two processes if `process` is given, and writes the results."""
    jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_enable_x64", x64)
    if process is not None:
        jax.distributed.initialize(f"127.0.0.1:{port}", 2, process, heartbeat_timeout_seconds=20)
    np.savez(result, allow_pickle=False, **as_arrays(*train(**options)))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
