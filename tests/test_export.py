"""Exported networks: programs that run where cnn_jax is not, for any number of images, on any kind of device."""

import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import nets
from cnn_jax.serialization import export

ALONE = """
import sys
sys.modules["cnn_jax"] = None
import jax.export, numpy as np
program = jax.export.deserialize(open("model", "rb").read())
np.savez("scores.npz", *[program.call(np.load("images.npy")[:n]) for n in (1, 3)])
"""


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (nets.xo_net(features=(4, 8)), (28, 28, 1)),
        (nets.digit_net(features=((4,), (4,))), (12, 12, 1)),
        (nets.cosine_net(features=(3, 3)), (16, 16, 1)),
    ],
    ids=["convolutions", "with norms", "scores"],
)
def test_any_number_of_images_on_any_device(net, shape):
    params = net.init(jax.random.key(0), shape)
    program = jax.export.deserialize(export(net, params, shape))
    assert program.platforms == ("cpu", "cuda", "tpu")
    apply = jax.jit(jax.vmap(net.apply, (None, 0)))
    for n in (1, 5):
        images = jax.random.normal(jax.random.key(n), (n, *shape))
        np.testing.assert_allclose(program.call(images), apply(params, images), rtol=1e-5, atol=1e-5)


def test_without_the_library(tmp_path):
    net = nets.xo_net(features=(4, 8))
    params = net.init(jax.random.key(0), (28, 28, 1))
    images = np.asarray(jax.random.normal(jax.random.key(1), (3, 28, 28, 1)))
    (tmp_path / "model").write_bytes(export(net, params, (28, 28, 1)))
    np.save(tmp_path / "images.npy", images)
    subprocess.run([sys.executable, "-c", ALONE], cwd=tmp_path, check=True, timeout=120)
    expected = jax.vmap(net.apply, (None, 0))(params, jnp.asarray(images))
    with np.load(tmp_path / "scores.npz") as scores:
        for own in scores.values():
            np.testing.assert_allclose(own, expected[: len(own)], rtol=1e-5, atol=1e-5)


def test_another_shape_is_refused():
    net = nets.xo_net(features=(4, 8))
    params = net.init(jax.random.key(0), (28, 28, 1))
    with pytest.raises(ValueError, match="kernel: expected"):
        export(net, params, (28, 28, 3))
