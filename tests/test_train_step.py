"""One training step, against its formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax._train_state import init_train_state
from cnn_jax._train_step import check_compute_dtype, make_train_step
from cnn_jax.layers import Chain, Dense, Flatten, Layer

KEY = jax.random.key(0)
NET = Chain(Flatten(), Dense(2))
IMAGES = np.random.default_rng(0).normal(size=(5, 2, 2, 1)).astype(np.float32)
LABELS = np.array([0, 1, 1, 0, 1])


def cross_entropy(logits, label):
    return optax.softmax_cross_entropy_with_integer_labels(logits, label)


def test_a_step_follows_the_gradient_of_the_mean_loss():
    kernel = np.random.default_rng(1).normal(size=(4, 2)).astype(np.float32)
    params = {"dense1": {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(2)}}
    train_step = make_train_step(NET, optax.sgd(0.5), cross_entropy)
    state, metrics = jax.jit(train_step)(init_train_state(params, optax.sgd(0.5)), IMAGES, LABELS, KEY)

    inputs = IMAGES.reshape(5, 4).astype(np.float64)
    logits = inputs @ kernel
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    errors = (probabilities - np.eye(2)[LABELS]) / 5
    np.testing.assert_allclose(metrics["loss"], -np.log(probabilities[range(5), LABELS]).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["accuracy"], np.mean(logits.argmax(1) == LABELS), rtol=1e-6)
    np.testing.assert_allclose(state.params["dense1"]["kernel"], kernel - 0.5 * inputs.T @ errors, atol=1e-6)
    np.testing.assert_allclose(state.params["dense1"]["bias"], -0.5 * errors.sum(0), atol=1e-6)
    assert int(state.step) == 1


def test_every_step_and_every_example_has_its_own_key():
    seen = []

    def apply(params, image, *, train=False, key=None):
        assert key is not None
        return jax.random.normal(key, (1,)) + 0 * params["a"]

    net = Layer(lambda key, shape: {"a": jnp.zeros(1)}, apply)
    train_step = jax.jit(make_train_step(net, optax.sgd(0.1), lambda logits, label: jnp.sum(logits**2)))
    state = init_train_state(net.init(KEY, (2, 2, 1)), optax.sgd(0.1))
    for _ in range(3):
        state, metrics = train_step(state, IMAGES, LABELS, KEY)
        seen.append(float(metrics["loss"]))
    assert len(set(seen)) == 3
    keys = jax.random.split(jax.random.fold_in(KEY, 1), 5)
    draws = [float(jax.random.normal(key, (1,))[0]) for key in keys]
    assert seen[0] == pytest.approx(np.mean(np.square(draws)), rel=1e-5)


def test_accuracy_is_measured_where_there_is_one_integer_label_an_image():
    def squared(logits, label):
        return jnp.mean((logits - label.astype(logits.dtype)) ** 2)

    train_step = make_train_step(NET, optax.sgd(0.5), squared)
    state = init_train_state(NET.init(KEY, (2, 2, 1)), optax.sgd(0.5))
    for labels, names in (
        (LABELS, {"loss", "accuracy"}),
        (np.stack([LABELS, 1 - LABELS], 1), {"loss"}),
        (LABELS.astype(np.float32), {"loss"}),
    ):
        metrics = jax.eval_shape(train_step, state, IMAGES, labels, KEY)[1]
        assert set(metrics) == names


def test_mixed_precision_applies_the_network_in_16_bits_and_keeps_parameters_in_32():
    seen = []

    def apply(params, image, *, train=False, key=None):
        seen.append((params["kernel"].dtype, image.dtype))
        return NET.apply({"dense1": params}, image)

    def loss(logits, label):
        seen.append((logits.dtype,))
        return cross_entropy(logits, label)

    net = Layer(lambda key, shape: NET.init(key, shape)["dense1"], apply)
    train_step = make_train_step(net, optax.adam(0.1), loss, jnp.bfloat16)
    state = init_train_state(net.init(KEY, (2, 2, 1)), optax.adam(0.1))
    images = np.ones((5, 2, 2, 1), np.uint8)
    new_state, metrics = jax.eval_shape(train_step, state, images, LABELS, KEY)
    assert seen == [(jnp.bfloat16, jnp.bfloat16), (jnp.float32,)]
    assert {leaf.dtype for leaf in jax.tree.leaves(new_state.params)} == {jnp.dtype("float32")}
    assert metrics["loss"].dtype == jnp.float32


def test_the_optimizer_receives_the_loss():
    def update(updates, state, params=None, **extra):
        value = extra["value"]
        return jax.tree.map(lambda leaf: 0 * leaf + value, updates), state

    optimizer = optax.GradientTransformationExtraArgs(lambda params: (), update)
    params = NET.init(KEY, (2, 2, 1))
    train_step = make_train_step(NET, optimizer, lambda logits, label: 3 + 0 * jnp.sum(logits))
    state, _ = jax.jit(train_step)(init_train_state(params, optimizer), IMAGES, LABELS, KEY)
    np.testing.assert_allclose(state.params["dense1"]["bias"], 3)


@pytest.mark.parametrize("dtype", [jnp.int32, "bits", 3])
def test_a_compute_dtype_that_is_not_floating_is_refused(dtype):
    with pytest.raises(TypeError, match="compute_dtype: expected a floating dtype"):
        check_compute_dtype(dtype)
