"""Calibration within a run: from the batches that are learned from, as `calibrate` does it from images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import _run_calibration
from cnn_jax._batches import ArrayBatches, SampledBatches
from cnn_jax._calibration import calibrate
from cnn_jax._run_calibration import RunCalibration, paths_to_calibrate
from cnn_jax._sharding import Placement
from cnn_jax.layers import Chain, Conv, Flatten, Layer
from cnn_jax.norms import BatchNorm

KEY = jax.random.key(0)
NET = Chain(Conv(2, 2), BatchNorm(), Conv(2, 2), BatchNorm(), Flatten())
PARAMS = NET.init(KEY, (3, 3, 1))
IMAGES = np.random.default_rng(0).normal(size=(8, 3, 3)).astype(np.float32)
IMAGE = jax.ShapeDtypeStruct((3, 3, 1), np.float32)


def calibration_of(source, batch_size):
    paths = paths_to_calibrate(NET, PARAMS, IMAGE)
    assert paths == (("batch_norm1",), ("batch_norm2",))
    return RunCalibration(NET, paths, source, Placement(), batch_size)


def assert_close(params, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), params, expected)


def test_whole_epochs_give_the_statistics_of_all_images(monkeypatch):
    monkeypatch.setattr(_run_calibration, "CALIBRATION_IMAGES", 16)  # two epochs

    def brighten(key, batch):
        return batch.images + 1, batch.labels

    source = ArrayBatches((IMAGES, np.arange(8)), 2, KEY, brighten, Placement())
    calibration = calibration_of(source, 2)
    assert_close(calibration(PARAMS), calibrate(NET, PARAMS, IMAGES + 1))
    assert_close(calibration(PARAMS), calibration(calibration(PARAMS)))


def test_drawn_examples_are_those_of_the_first_steps(monkeypatch):
    monkeypatch.setattr(_run_calibration, "CALIBRATION_IMAGES", 5)  # rounded up to two batches

    def sample(key):
        return jax.random.normal(key, (3, 3)), 0

    source = SampledBatches(sample, 4, KEY, Placement())
    drawn = [source.load(source.next_arrays(), None, jnp.int32(step))[0] for step in range(2)]
    assert_close(calibration_of(source, 4)(PARAMS), calibrate(NET, PARAMS, jnp.concatenate(drawn)))


def test_a_batch_norm_that_cannot_be_observed_is_refused_before_training():
    hidden = BatchNorm()

    def apply(params, image, *, train=False, key=None):
        return hidden.apply(params["norm"], image, train=train)

    net = Chain(Layer(lambda key, shape: {"norm": hidden.init(key, shape)}, apply, "own"), Flatten())
    with pytest.raises(ValueError, match=r"net: the BatchNorm at params\['own1'\].*; pass calibrate=False"):
        paths_to_calibrate(net, net.init(KEY, (3, 3, 1)), IMAGE)
