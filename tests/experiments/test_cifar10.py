"""The recipe of experiments.cifar10: its optimizer, its augmentation, its views, and a whole run."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import nets
from cnn_jax.training import Batch
from experiments import cifar10
from tests.helpers.cli import check_report, run_each

NET = nets.airbench_net(features=(8, 8, 8))
SGD_PARAMETERS = {  # learning rate at the start, and the step at which it is zero
    ("dense1", "kernel"): (0.67, 10),
    ("batch_norm1", "bias"): (0.053, 10),
    ("conv1", "bias"): (0.053, 6),
}


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda key: NET.init(key, (32, 32, 3)))(jax.random.key(0))


@pytest.fixture(scope="module")
def two_steps(params):
    """The parameters before and after each of the first two of ten steps, two steps an epoch, and the gradients."""
    rule = cifar10.optimizer(10, 2, 100)
    state = rule.init(params)
    update = jax.jit(rule.update)
    gradients = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(1), leaf.shape), params)
    trajectory = [params]
    for _ in range(2):
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # optax mixes both
            updates, state = update(gradients, state, trajectory[-1])
        trajectory.append(optax.apply_updates(trajectory[-1], updates))
    return trajectory, gradients


@pytest.mark.parametrize("path", SGD_PARAMETERS)
def test_biases_and_dense_kernels_follow_nesterovs_sgd_with_weight_decay(path, two_steps):
    """Against NumPy in float64."""
    trajectory, gradients = two_steps
    layer, name = path
    peak, until = SGD_PARAMETERS[path]
    expected = np.asarray(trajectory[0][layer][name], np.float64)
    momentum = np.zeros_like(expected)
    for step in range(2):
        gradient = 100 * np.asarray(gradients[layer][name]) + 2e-6 * 100 / peak * expected
        momentum = 0.85 * momentum + gradient
        expected = expected - peak * (1 - step / until) * (gradient + 0.85 * momentum)
        np.testing.assert_allclose(trajectory[step + 1][layer][name], expected, rtol=1e-4)


def test_kernels_move_by_nearly_orthogonal_matrices_from_a_fixed_norm(two_steps):
    trajectory, _ = two_steps
    for step in range(2):
        kernel = np.asarray(trajectory[step]["conv2"]["kernel"], np.float64)
        normalized = kernel * np.sqrt(8) / np.linalg.norm(kernel)
        move = np.asarray(trajectory[step + 1]["conv2"]["kernel"]) - normalized
        singular_values = np.linalg.svd(move.reshape(-1, 8), compute_uv=False) / (0.24 * (1 - step / 10))
        assert singular_values.max() < 1.4
        assert singular_values.min() > 0.4


def test_whitening_kernels_and_statistics_stay(two_steps):
    first, _, last = two_steps[0]
    np.testing.assert_array_equal(last["conv1"]["kernel"], first["conv1"]["kernel"])
    np.testing.assert_array_equal(last["batch_norm1"]["variance"], first["batch_norm1"]["variance"])


def test_trained_parameters_are_those_that_move(two_steps):
    first, _, last = two_steps[0]
    moved = jax.tree.map(lambda before, after: before.size if np.any(before != after) else 0, first, last)
    assert cifar10.trained_parameters(first) == sum(jax.tree.leaves(moved))


def test_views_are_shifts_along_the_diagonal_and_their_mirror_images():
    images = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    padded = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="reflect")
    shifted = {1: padded[:, :4, :4], 0: images, -1: padded[:, 2:, 2:]}
    expected = [pixels for by in (0, 1, -1) for pixels in (shifted[by], shifted[by][:, :, ::-1])]
    for view, pixels in zip(cifar10.TTA_VIEWS, expected, strict=True):
        np.testing.assert_array_equal(view(jnp.asarray(images)), pixels)
    assert cifar10.TTA_WEIGHTS == (0.5, 0.5, 0.25, 0.25, 0.25, 0.25)


@pytest.fixture(scope="module")
def augmented():
    """Six images, augmented by a flip key and an epoch."""
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    batch = Batch(jnp.asarray(images), jnp.arange(6), jnp.arange(6), jnp.int32(0))

    @jax.jit
    def augment(flip_key, epoch):
        return cifar10.make_augment(flip_key)(jax.random.key(0), batch._replace(epoch=epoch))[0]

    return lambda seed, epoch: np.asarray(augment(jax.random.key(seed), jnp.int32(epoch)))


def test_every_image_is_mirrored_in_every_second_epoch(augmented):
    first, second, third = (augmented(3, epoch) for epoch in range(3))
    np.testing.assert_array_equal(first, third)
    assert all(np.any(a != b) for a, b in zip(first, second, strict=True))


def test_the_flip_key_says_which_images_are_mirrored_first(augmented):
    assert np.any(augmented(3, 0) != augmented(4, 0))


@pytest.mark.slow
def test_a_smoke_run_learns_and_writes_everything(tmp_path):
    run_each(tmp_path, [("experiments.cifar10", "--smoke")])
    folder = tmp_path / "runs/cifar10"
    metrics = json.loads((folder / "metrics.json").read_text())
    files = {"confusion.png", "curves.png", "features.png", "metrics.json", "model_0.safetensors"}
    assert {path.name for path in folder.iterdir()} >= files
    assert metrics["accuracy"] > 0.5  # of ten classes that differ much
    check_report(folder, figures=3 + (folder / "mistakes.png").exists())
