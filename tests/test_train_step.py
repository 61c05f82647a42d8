"""One training step, against its formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from cnn_jax._train_state import TrainState, split_run_key
from cnn_jax._train_step import check_compute_dtype, train_step
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
    step = train_step(NET, optax.sgd(0.5), loss=cross_entropy)
    state, metrics = step(TrainState.create(params, optax.sgd(0.5), KEY), IMAGES, LABELS)

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
    step = train_step(net, optax.sgd(0.1), loss=lambda logits, label: jnp.sum(logits**2))
    state = TrainState.create(net.init(KEY, (2, 2, 1)), optax.sgd(0.1), KEY)
    for _ in range(3):
        state, metrics = step(state, IMAGES, LABELS)
        seen.append(float(metrics["loss"]))
    assert len(set(seen)) == 3
    keys = jax.random.split(jax.random.fold_in(split_run_key(KEY).step, 1), 5)
    draws = [float(jax.random.normal(key, (1,))[0]) for key in keys]
    assert seen[0] == pytest.approx(np.mean(np.square(draws)), rel=1e-5)


def test_accuracy_is_measured_where_labels_are_integer_classes():
    def squared(logits, label):
        return jnp.mean((logits - label.astype(logits.dtype)) ** 2)

    step = train_step(NET, optax.sgd(0.5), loss=squared)
    state = TrainState.create(NET.init(KEY, (2, 2, 1)), optax.sgd(0.5), KEY)
    for labels, names in (
        (LABELS, {"loss", "accuracy"}),
        (np.stack([LABELS, 1 - LABELS], 1), {"loss"}),
        (LABELS.astype(np.float32), {"loss"}),
    ):
        metrics = jax.eval_shape(step, state, IMAGES, labels)[1]
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
    step = train_step(net, optax.adam(0.1), loss=loss, compute_dtype=jnp.bfloat16)
    state = TrainState.create(net.init(KEY, (2, 2, 1)), optax.adam(0.1), KEY)
    images = np.ones((5, 2, 2, 1), np.uint8)
    new_state, metrics = jax.eval_shape(step, state, images, LABELS)
    assert seen == [(jnp.bfloat16, jnp.bfloat16), (jnp.float32,)]
    assert {leaf.dtype for leaf in jax.tree.leaves(new_state.params)} == {jnp.dtype("float32")}
    assert metrics["loss"].dtype == jnp.float32


def test_the_optimizer_receives_the_loss():
    def update(updates, state, params=None, **extra):
        value = extra["value"]
        return jax.tree.map(lambda leaf: 0 * leaf + value, updates), state

    optimizer = optax.GradientTransformationExtraArgs(lambda params: (), update)
    params = NET.init(KEY, (2, 2, 1))
    step = train_step(NET, optimizer, loss=lambda logits, label: 3 + 0 * jnp.sum(logits))
    state, _ = step(TrainState.create(params, optimizer, KEY), IMAGES, LABELS)
    np.testing.assert_allclose(state.params["dense1"]["bias"], 3)


@pytest.mark.parametrize("dtype", [jnp.int32, "bits", 3])
def test_a_compute_dtype_that_is_not_floating_is_refused(dtype):
    with pytest.raises(TypeError, match="compute_dtype: expected a floating dtype"):
        check_compute_dtype(dtype)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({}, optax.sgd(0.1)), "net: expected a Layer"),
        ((NET, optax.sgd), "optimizer: expected an optax optimizer, .* got sgd, which is to be called"),
    ],
)
def test_arguments_of_another_kind_are_named(arguments, message):
    with pytest.raises(TypeError, match=message):
        train_step(*arguments)


def test_a_state_of_an_optimizer_that_is_to_be_called_is_refused():
    with pytest.raises(TypeError, match="optimizer: expected an optax optimizer"):
        TrainState.create({}, optax.adam, KEY)  # pyright: ignore[reportArgumentType]


def test_the_same_arguments_give_the_same_function_compiled_once():
    optimizer = optax.sgd(0.1)
    traced = []

    def loss(logits, label):
        traced.append(label)
        return cross_entropy(logits, label)

    step = train_step(NET, optimizer, loss=loss)
    state = TrainState.create(NET.init(KEY, (2, 2, 1)), optimizer, KEY)
    for _ in range(3):
        state, _ = train_step(NET, optimizer, loss=loss)(state, IMAGES, LABELS)
    assert train_step(NET, optimizer, loss=loss) is step
    assert len(traced) == 1


def test_the_given_state_stays_valid_unless_its_memory_is_donated():
    step = train_step(NET, optax.sgd(0.5), loss=cross_entropy)
    state = TrainState.create(NET.init(KEY, (2, 2, 1)), optax.sgd(0.5), KEY)
    first, _ = step(state, IMAGES, LABELS)
    again, _ = step(state, IMAGES[..., 0], LABELS)
    np.testing.assert_array_equal(first.params["dense1"]["kernel"], again.params["dense1"]["kernel"])
    jax.jit(step, donate_argnums=0)(first, IMAGES, LABELS)
    assert first.params["dense1"]["kernel"].is_deleted()


def test_steps_in_a_scan_are_the_steps_of_a_loop():
    step = train_step(NET, optax.sgd(0.5), loss=cross_entropy)
    start = TrainState.create(NET.init(KEY, (2, 2, 1)), optax.sgd(0.5), KEY)
    state = start
    losses = []
    for _ in range(3):
        state, metrics = step(state, IMAGES, LABELS)
        losses.append(metrics["loss"])
    scanned, rows = jax.lax.scan(lambda state, _: step(state, IMAGES, LABELS), start, length=3)
    np.testing.assert_allclose(rows["loss"], losses, rtol=1e-6)
    np.testing.assert_allclose(scanned.params["dense1"]["bias"], state.params["dense1"]["bias"], atol=1e-6)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_a_sharded_batch_gives_the_step_of_one_device(kind):
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(kind,))
    images = np.random.default_rng(0).normal(size=(8, 2, 2, 1)).astype(np.float32)
    labels = np.arange(8) % 2
    step = train_step(NET, optax.adam(0.1))
    state = TrainState.create(NET.init(KEY, (2, 2, 1)), optax.adam(0.1), KEY)
    expected, _ = step(state, images, labels)
    sharding = NamedSharding(mesh, PartitionSpec("batch"))
    sharded, _ = step(state, jax.device_put(images, sharding), jax.device_put(labels, sharding))
    np.testing.assert_allclose(sharded.params["dense1"]["kernel"], expected.params["dense1"]["kernel"], atol=1e-6)


def test_images_of_another_rank_are_refused():
    step = train_step(NET, optax.sgd(0.5), loss=cross_entropy)
    state = TrainState.create(NET.init(KEY, (2, 2, 1)), optax.sgd(0.5), KEY)
    with pytest.raises(ValueError, match=r"images: expected images \(H, W\) or \(H, W, C\), got shape \(4,\)"):
        step(state, IMAGES.reshape(5, 4), LABELS)


def test_a_line_search_evaluates_the_loss_of_the_batch():
    optimizer = optax.lbfgs()
    state = TrainState.create(NET.init(KEY, (2, 2, 1)), optimizer, KEY)
    step = train_step(NET, optimizer)
    losses = []
    for _ in range(5):
        state, metrics = step(state, IMAGES, LABELS)
        losses.append(float(metrics["loss"]))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.3 * losses[0]
