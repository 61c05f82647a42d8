"""SlowWeightsState parameters against their formulas, and inside a training."""

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


def walk(rule, steps):
    """The parameters after every step down the slope of their squares."""
    params, state, path = START, rule.init(START), []
    update = jax.jit(rule.update)
    for _ in range(steps):
        change, state = update(jax.tree.map(lambda x: 2 * x, params), state, params)
        params = optax.apply_updates(params, change)
        path.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)]))
    return path


def test_the_last_step_ends_at_the_average():
    fast, got = walk(optax.sgd(0.1), 20), walk(optimizers.with_ema(optax.sgd(0.1), decay=0.9, steps=20), 20)
    slow = np.array([1.0, -2.0, 3.0])
    for t, point in enumerate(fast, 1):
        d = min(0.9, (1 + t) / (10 + t))
        slow = d * slow + (1 - d) * point
    np.testing.assert_allclose(got[:19], fast[:19], atol=1e-6)
    np.testing.assert_allclose(got[19], slow, atol=1e-5)


def test_the_average_of_16_bits_is_taken_in_32():
    rule = optimizers.with_ema(optax.sgd(1.0), decay=0.999, steps=300)
    params = {"a": jnp.zeros(1, jnp.bfloat16)}
    state, update, expected, place = rule.init(params), jax.jit(rule.update), 0.0, 0.0
    for t in range(1, 301):
        change, state = update({"a": jnp.full(1, -0.0078125, jnp.bfloat16)}, state, params)
        params = optax.apply_updates(params, change)
        place = float(jnp.bfloat16(place + 0.0078125))
        d = min(0.999, (1 + t) / (10 + t))
        expected = d * expected + (1 - d) * place
    assert params["a"].dtype == jnp.bfloat16
    assert float(params["a"][0]) == pytest.approx(expected, rel=0.01)


def test_muon_turns_kernels_as_matrices_and_leaves_the_rest():
    params = {"conv1": {"kernel": jnp.zeros((3, 3, 2, 8)), "bias": jnp.zeros(8)}}
    gradient = jax.tree.map(lambda x: jax.random.normal(jax.random.key(0), x.shape), params)
    rule = optax.contrib.scale_by_muon(
        weight_dimension_numbers=optimizers.muon_dimension_numbers(params)["conv1"]["kernel"]
    )
    with jax.numpy_dtype_promotion("standard"):  # optax mixes them
        change, _ = jax.jit(rule.update)(gradient["conv1"]["kernel"], rule.init(params["conv1"]["kernel"]))
    values = np.linalg.svd(change.reshape(18, 8), compute_uv=False)
    assert values.max() < 2 * values.min()
    assert optimizers.muon_dimension_numbers(params)["conv1"]["bias"] is None


def test_lookahead_sets_back_every_few_steps():
    got = walk(optimizers.lookahead(optax.sgd(0.1), sync_period=3, slow_step_size=0.25), 7)
    slow = point = np.array([1.0, -2.0, 3.0])
    for t, found in enumerate(got, 1):
        point = 0.8 * point
        if t % 3 == 0:
            slow = point = slow + 0.25 * (point - slow)
        np.testing.assert_allclose(found, point, atol=1e-5)


@pytest.mark.parametrize("wrap", [lambda rule: optimizers.with_ema(rule, decay=0.9, steps=6), optimizers.lookahead])
def test_inside_a_training(wrap):
    data = np.random.default_rng(0).normal(size=(8, 6, 6)).astype(np.float32), np.arange(8) % 2
    net = Chain(Conv(2), Flatten(), Dense(2))
    rule = wrap(optax.contrib.muon(0.01, muon_weight_dimension_numbers=optimizers.muon_dimension_numbers))
    options = {"optimizer": rule, "steps": 6, "batch_size": 4, "key": jax.random.key(0), "progress": False}
    params, history = fit(net, data, **options)
    assert np.isfinite(history["loss"]).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: optimizers.with_ema(optax.sgd(1.0), decay=1.0, steps=3),
            "decay: .* less than 1, got 1.0",
        ),
        (lambda: optimizers.with_ema(optax.sgd(1.0), decay=0.9, steps=0), "steps: expected at least 1"),
        (lambda: optimizers.lookahead(optax.sgd(1.0), slow_step_size=0), "rate: .* above 0 and at most 1, got 0"),
        (lambda: optimizers.lookahead(optax.sgd(1.0), sync_period=0), "every: expected at least 1"),
        (lambda: optimizers.lookahead(optax.sgd(1.0)).update(START, walk_state()), "params: expected the parameters"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optimizers.with_ema(optax.sgd(1.0), decay="0.9", steps=3), "decay: expected a number"),
        (lambda: optimizers.with_ema(optax.sgd(1.0), decay=None, steps=3), "decay: expected a number"),
        (lambda: optimizers.lookahead(optax.sgd(1.0), slow_step_size=(0.5,)), "rate: expected a number"),
        (lambda: optimizers.lookahead(optax.sgd), "optimizer: expected one of optax's"),
        (lambda: optimizers.with_ema(None, decay=0.9, steps=3), "optimizer: expected one of optax's, got None"),
    ],
)
def test_arguments_of_another_kind(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def walk_state():
    return optimizers.lookahead(optax.sgd(1.0)).init(START)
