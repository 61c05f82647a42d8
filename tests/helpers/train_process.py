"""One process of a training, for tests that kill it or run several: python train_process.py '{"steps": 100, ...}'."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax

import cnn_jax
from cnn_jax import nets, optimizers


def main(net, steps, result, folder=None, save_every=10, devices=1, process=None, port=None, x64=False):
    jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_enable_x64", x64)
    if process is not None:
        jax.distributed.initialize(f"127.0.0.1:{port}", 2, process, heartbeat_timeout_seconds=20)
    options = {"digits": {"features": ((4,), (4,))}, "xo": {"features": (4, 8, 8)}, "cifar": {"features": (8, 8, 8)}}
    make = {"digits": nets.digit_net, "xo": nets.xo_net, "cifar": nets.airbench_net}
    size = (32, 32, 3) if net == "cifar" else (12, 12, 1) if net == "digits" else (28, 28, 1)
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 64)
    images = generator.normal(size=(64, *size)) + labels[:, None, None, None] / 2
    rule = optax.sgd(0.01, 0.9, nesterov=True)
    if net == "cifar":
        muon = optax.contrib.muon(0.01, muon_weight_dimension_numbers=optimizers.muon_dimension_numbers)
        rule = optimizers.with_ema(muon, decay=0.9, steps=steps)
    params, history = cnn_jax.fit(
        make[net](**options[net]),
        (jnp.asarray(images), labels),
        optimizer=rule,
        steps=steps,
        batch_size=16,
        key=jax.random.key(0),
        checkpoint_dir=folder,
        save_every=save_every,
        mesh=jax.make_mesh((jax.device_count(),), ("batch",)) if jax.device_count() > 1 else None,
        progress=False,
    )
    leaves = {f"leaf {i}": leaf.addressable_data(0) for i, leaf in enumerate(jax.tree.leaves(params))}
    np.savez(result, **history, **leaves)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
