"""Optimizers with slow weights against their formulas, and inside a training."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from cnn_jax import optimizers
from cnn_jax.layers import Chain, Conv, Dense, Flatten
from cnn_jax.training import fit

START = {"a": jnp.array([1.0, -2.0]), "b": {"c": jnp.array(3.0)}}


def trajectory(optimizer, steps):
    """The parameters after every step of minimizing the sum of their squares."""
    params = START
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    points = []
    for _ in range(steps):
        updates, state = update(jax.tree.map(lambda x: 2 * x, params), state, params)
        params = optax.apply_updates(params, updates)
        points.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)]))
    return points


def test_the_last_step_ends_at_the_average():
    fast = trajectory(optax.sgd(0.1), 20)
    averaged = trajectory(optimizers.with_ema(optax.sgd(0.1), decay=0.9, steps=20), 20)
    average = np.array([1.0, -2.0, 3.0])
    for t, point in enumerate(fast, 1):
        d = min(0.9, (1 + t) / (10 + t))
        average = d * average + (1 - d) * point
    np.testing.assert_allclose(averaged[:19], fast[:19], atol=1e-6)
    np.testing.assert_allclose(averaged[19], average, atol=1e-5)


def test_the_average_of_16_bits_is_taken_in_32():
    optimizer = optimizers.with_ema(optax.sgd(1.0), decay=0.999, steps=300)
    params: Any = {"a": jnp.zeros(1, jnp.bfloat16)}
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    expected_average = 0.0
    expected_parameter = 0.0
    for t in range(1, 301):
        updates, state = update({"a": jnp.full(1, -0.0078125, jnp.bfloat16)}, state, params)
        params = optax.apply_updates(params, updates)
        expected_parameter = float(jnp.bfloat16(expected_parameter + 0.0078125))
        d = min(0.999, (1 + t) / (10 + t))
        expected_average = d * expected_average + (1 - d) * expected_parameter
    assert params["a"].dtype == jnp.bfloat16
    assert float(params["a"][0]) == pytest.approx(expected_average, rel=0.01)


def test_muon_orthogonalizes_kernels_as_matrices_and_leaves_the_rest():
    params = {"conv1": {"kernel": jnp.zeros((3, 3, 2, 8)), "bias": jnp.zeros(8)}}
    gradient = jax.random.normal(jax.random.key(0), (3, 3, 2, 8))
    dimension_numbers = optimizers.muon_dimension_numbers(params)["conv1"]
    optimizer = optax.contrib.scale_by_muon(weight_dimension_numbers=dimension_numbers["kernel"])
    with jax.numpy_dtype_promotion("standard"):  # optax mixes them
        updates, _ = jax.jit(optimizer.update)(gradient, optimizer.init(params["conv1"]["kernel"]))
    singular_values = np.linalg.svd(updates.reshape(18, 8), compute_uv=False)
    assert singular_values.max() < 2 * singular_values.min()
    assert dimension_numbers["bias"] is None


def test_lookahead_resets_the_fast_weights_every_few_steps():
    points = trajectory(optimizers.lookahead(optax.sgd(0.1), sync_period=3, slow_step_size=0.25), 7)
    slow = fast = np.array([1.0, -2.0, 3.0])
    for t, point in enumerate(points, 1):
        fast = 0.8 * fast
        if t % 3 == 0:
            slow = fast = slow + 0.25 * (fast - slow)
        np.testing.assert_allclose(point, fast, atol=1e-5)


def test_a_network_without_parameters_is_no_special_case():
    optimizer = optimizers.lookahead(optax.sgd(0.1))
    state: Any = optimizer.init({})
    updates, state = optimizer.update({}, state, {})
    assert (updates, state.slow) == ({}, {})


def ema_of_six_steps(inner):
    return optimizers.with_ema(inner, decay=0.9, steps=6)


@pytest.mark.parametrize("wrap", [ema_of_six_steps, optimizers.lookahead])
def test_inside_a_training(wrap):
    data = np.random.default_rng(0).normal(size=(8, 6, 6)).astype(np.float32), np.arange(8) % 2
    net = Chain(Conv(2), Flatten(), Dense(2))
    muon = optax.contrib.muon(0.01, muon_weight_dimension_numbers=optimizers.muon_dimension_numbers)
    options = {"optimizer": wrap(muon), "steps": 6, "batch_size": 4, "key": jax.random.key(0), "progress": False}
    params, history = fit(net, data, **options)
    assert np.isfinite(history["loss"]).all()
    chex.assert_tree_all_finite(params)


@pytest.mark.parametrize(
    ("wrap", "options", "message"),
    [
        (optimizers.with_ema, {"decay": 1.0, "steps": 3}, "decay: .* less than 1, got 1.0"),
        (optimizers.with_ema, {"decay": 0.9, "steps": 0}, "steps: expected at least 1"),
        (optimizers.lookahead, {"slow_step_size": 0}, "slow_step_size: .* at most 1, got 0"),
        (optimizers.lookahead, {"sync_period": 0}, "sync_period: expected at least 1"),
    ],
)
def test_bad_arguments(wrap, options, message):
    with pytest.raises(ValueError, match=message):
        wrap(optax.sgd(1.0), **options)


def test_an_update_without_parameters_is_refused():
    optimizer = optimizers.lookahead(optax.sgd(1.0))
    with pytest.raises(ValueError, match="params: expected the parameters"):
        optimizer.update(START, optimizer.init(START))


@pytest.mark.parametrize(
    ("wrap", "optimizer", "options", "message"),
    [
        (optimizers.with_ema, optax.sgd(1.0), {"decay": "0.9", "steps": 3}, "decay: expected a number"),
        (optimizers.with_ema, optax.sgd(1.0), {"decay": None, "steps": 3}, "decay: expected a number"),
        (optimizers.lookahead, optax.sgd(1.0), {"slow_step_size": (0.5,)}, "slow_step_size: expected a number"),
        (optimizers.lookahead, optax.sgd, {}, "optimizer: expected an optax optimizer"),
        (optimizers.with_ema, None, {"decay": 0.9, "steps": 3}, "optimizer: expected an optax optimizer, .* got None"),
    ],
)
def test_arguments_of_another_kind(wrap, optimizer, options, message):
    with pytest.raises(TypeError, match=message):
        wrap(optimizer, **options)
