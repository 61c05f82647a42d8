"""Exported networks: programs for any number of images and any kind of device, which run without this package."""

import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import BatchNorm, Chain, Dense, Flatten, calibrate, export, nets

WITHOUT_THE_PACKAGE = """
import sys
sys.modules["cnn_jax"] = None
import jax.export, numpy as np
program = jax.export.deserialize(open("model", "rb").read())
np.savez("logits.npz", *[program.call(np.load("images.npy")[:n]) for n in (1, 3)])
"""
XO_NET = nets.xo_net(features=(4, 8))
XO_SHAPE = (28, 28, 1)


@pytest.fixture(scope="module")
def xo_params():
    return XO_NET.init(jax.random.key(0), XO_SHAPE)


@pytest.fixture(scope="module")
def xo_program(xo_params):
    """The serialized program of a small convolutional network."""
    return export(XO_NET, xo_params, XO_SHAPE)


@pytest.fixture(scope="module")
def xo_logits(xo_params):
    """Three images and their logits."""
    images = jax.random.normal(jax.random.key(1), (3, *XO_SHAPE))
    return images, jax.jit(jax.vmap(XO_NET.apply, (None, 0)))(xo_params, images)


def check(program_bytes, images, logits):
    program = jax.export.deserialize(bytearray(program_bytes))
    assert program.platforms == ("cpu", "cuda", "tpu")
    for n in (1, len(images)):
        np.testing.assert_allclose(program.call(images[:n]), logits[:n], rtol=1e-5, atol=1e-5)


def test_any_number_of_images_on_any_device(xo_program, xo_logits):
    check(xo_program, *xo_logits)


@pytest.mark.parametrize("axis_type", [jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit])
def test_parameters_on_a_mesh_make_a_program_for_one_device(axis_type):
    net = Chain(Flatten(), Dense(2))
    params = net.init(jax.random.key(0), (2, 2, 1))
    mesh = jax.make_mesh((jax.device_count(),), ("batch",), axis_types=(axis_type,))
    on_mesh = jax.device_put(params, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
    images = np.arange(12, dtype=np.float32).reshape(3, 2, 2, 1)
    check(export(net, on_mesh, (2, 2, 1)), images, jax.vmap(net.apply, (None, 0))(params, images))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (nets.digit_net(features=((4,), (4,))), (12, 12, 1)),
        (nets.cosine_net(features=(3, 3)), (16, 16, 1)),
    ],
    ids=["with norms", "scores"],
)
def test_other_networks(net, shape):
    images = jax.random.normal(jax.random.key(1), (5, *shape))
    params = calibrate(net, net.init(jax.random.key(0), shape), images)
    check(export(net, params, shape), images, jax.jit(jax.vmap(net.apply, (None, 0)))(params, images))


def test_a_program_runs_without_the_package(tmp_path, xo_program, xo_logits):
    images, expected = xo_logits
    (tmp_path / "model").write_bytes(xo_program)
    np.save(tmp_path / "images.npy", images)
    subprocess.run([sys.executable, "-c", WITHOUT_THE_PACKAGE], cwd=tmp_path, check=True, timeout=120)
    with np.load(tmp_path / "logits.npz") as results:
        for logits in results.values():
            np.testing.assert_allclose(logits, expected[: len(logits)], rtol=1e-5, atol=1e-5)


def test_another_shape_is_refused(xo_params):
    with pytest.raises(ValueError, match=r"params: expected conv1/kernel .* for an input of shape \(28, 28, 3\)"):
        export(XO_NET, xo_params, (28, 28, 3))


def test_a_network_whose_statistics_were_never_taken_is_refused():
    net = BatchNorm()
    with pytest.raises(ValueError, match=r"params: expected variance .* never taken; call calibrate"):
        export(net, net.init(jax.random.key(0), (1, 1, 2)), (1, 1, 2))


def test_missing_flatbuffers_are_named_with_their_extra(monkeypatch, xo_params):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    with pytest.raises(ImportError, match=r"export needs flatbuffers: pip install 'cnn_jax\[io\]'"):
        export(XO_NET, xo_params, XO_SHAPE)


def test_the_program_holds_its_parameters(xo_params, xo_program):
    """No second file is needed: other parameters are another program."""
    other = jax.tree.map(jnp.zeros_like, xo_params)
    assert export(XO_NET, other, XO_SHAPE) != xo_program
