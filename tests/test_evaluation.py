"""Evaluation: any number of images through one program, on all devices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

from cnn_jax.evaluation import accuracy, evaluate, predict
from cnn_jax.layers import Activation, Chain, Conv, Dense, Flatten, Layer
from cnn_jax.norms import BatchNorm

KEY = jax.random.key(0)
NET = Chain(Flatten(), Dense(3))
PARAMS = NET.init(KEY, (2, 2, 1))
IMAGES = np.random.default_rng(0).normal(size=(7, 2, 2)).astype(np.float32)
LABELS = np.array([0, 1, 2, 2, 1, 0, 1])
LOGITS = IMAGES.reshape(7, 4).astype(np.float64) @ np.asarray(PARAMS["dense1"]["kernel"], np.float64)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7])
def test_any_number_of_images_has_an_output_each(count):
    outputs = predict(NET, PARAMS, IMAGES[:count], batch_size=3)
    assert isinstance(outputs, np.ndarray)
    assert outputs.shape == (count, 3)
    np.testing.assert_allclose(outputs, LOGITS[:count], atol=1e-6)


def test_one_program_serves_any_number_of_images():
    traced = []

    def apply(params, image, *, train=False, key=None):
        traced.append(train)
        return image.reshape(-1)

    net = Layer(lambda key, shape: {}, apply)
    for images in (IMAGES, IMAGES[:4], IMAGES[:1], jnp.asarray(IMAGES), IMAGES[..., None]):
        np.testing.assert_array_equal(predict(net, {}, images, batch_size=3), np.asarray(images).reshape(-1, 4))
    assert traced == [False]


def test_images_of_bytes_and_outputs_of_pixels():
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 3, 2)).astype(np.uint8)
    net = Activation(lambda image: 0.5 * jnp.asarray(image, jnp.float32))
    np.testing.assert_array_equal(predict(net, {}, images, batch_size=2), 0.5 * images.astype(np.float32))


def test_the_metrics_are_means_over_all_images():
    log_probs = LOGITS - np.log(np.exp(LOGITS).sum(-1, keepdims=True))
    for batch_size in (3, 7, 100):
        metrics = evaluate(NET, PARAMS, (IMAGES, LABELS), batch_size=batch_size)
        assert metrics == {
            "loss": pytest.approx(-log_probs[range(7), LABELS].mean(), rel=1e-5),
            "accuracy": pytest.approx(np.mean(LOGITS.argmax(-1) == LABELS)),
        }


def test_metrics_of_ones_own():
    def loss(logits, label):
        return jnp.mean((logits - label.astype(logits.dtype)) ** 2)

    metrics = {"loss": loss, "accuracy": accuracy, "squares": lambda logits, label: logits**2}
    values = evaluate(NET, PARAMS, (IMAGES, LABELS), metrics=metrics, batch_size=4)
    assert values["loss"] == pytest.approx(np.mean((LOGITS - LABELS[:, None]) ** 2), rel=1e-5)
    assert values["squares"] == pytest.approx(np.mean(LOGITS**2), rel=1e-5)
    assert values["accuracy"] == pytest.approx(np.mean(LOGITS.argmax(-1) == LABELS))


def test_a_nan_in_an_image_is_no_secret():
    images = IMAGES.copy()
    images[2] = np.nan
    assert np.isnan(evaluate(NET, PARAMS, (images, LABELS), batch_size=3)["loss"])
    outputs = predict(NET, PARAMS, images, batch_size=3)
    np.testing.assert_array_equal(np.isnan(outputs).any(-1), np.arange(7) == 2)


def test_parameters_and_images_on_a_mesh():
    mesh = Mesh(np.array(jax.devices()[:1]), ("batch",))
    on_mesh = jax.device_put(PARAMS, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
    for params in (PARAMS, on_mesh):
        np.testing.assert_array_equal(
            predict(NET, params, IMAGES, batch_size=3, mesh=mesh), predict(NET, PARAMS, IMAGES, batch_size=3)
        )


def test_statistics_that_were_never_taken_are_refused():
    net = Chain(Conv(2, 2), BatchNorm(), Flatten(), Dense(3))
    params = net.init(KEY, (2, 2, 1))
    for call in (lambda: predict(net, params, IMAGES), lambda: evaluate(net, params, (IMAGES, LABELS))):
        with pytest.raises(ValueError, match=r"batch_norm1/variance .* call calibrate"):
            call()


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        ((IMAGES, LABELS[:-1]), {}, ValueError, r"data: expected as many labels as images \(7\), got 6"),
        ((IMAGES[:0], LABELS[:0]), {}, ValueError, "data: expected at least one image, got none"),
        ((IMAGES[0], LABELS[:2]), {}, ValueError, r"data: expected images \(H, W\) or \(H, W, C\)"),
        ((IMAGES, LABELS + 1), {}, ValueError, "data: expected labels from 0 to 2, got 1 to 3; pass metrics="),
        ((IMAGES, LABELS.astype(np.float32)), {}, TypeError, "data: .*one integer label per image.*; pass metrics="),
        (None, {}, TypeError, "data: .*None"),
        ((IMAGES, LABELS), {"batch_size": 0}, ValueError, "batch_size: .*0"),
        ((IMAGES, LABELS), {"mesh": 1}, TypeError, "mesh: .*int"),
        ((IMAGES, LABELS), {"metrics": accuracy}, TypeError, "metrics: expected a dict of functions by name, got"),
        ((IMAGES, LABELS), {"metrics": {"a": "b"}}, TypeError, r"metrics\['a'\]: expected a function metric"),
        ((IMAGES, LABELS), {"metrics": {"a": lambda x, y: None}}, TypeError, "a: expected .* one that returns None"),
    ],
)
def test_bad_arguments(data, options, error, message):
    with pytest.raises(error, match=message):
        evaluate(NET, PARAMS, data, **options)


def test_labels_of_another_kind_with_their_loss():
    targets = np.stack([LABELS, 1 - LABELS, LABELS], 1).astype(np.float32)
    metrics = {"loss": lambda logits, label: optax.sigmoid_binary_cross_entropy(logits, label)}
    log_odds = LOGITS.astype(np.float64)
    expected = np.mean(np.logaddexp(0, log_odds) - targets * log_odds)
    assert evaluate(NET, PARAMS, (IMAGES, targets), metrics=metrics)["loss"] == pytest.approx(expected, rel=1e-5)


class Several(Layer):
    """A network of a user with several outputs."""

    name = "several"

    def apply(self, params: Any, image: Any, **options: Any) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        return {"mean": image.mean(), "pair": (image[0, 0], image[1, 1])}


def test_outputs_of_several_arrays_are_a_tree():
    for count in (0, 3, 7):
        outputs = predict(Several(), {}, IMAGES[:count], batch_size=3)
        np.testing.assert_allclose(outputs["mean"], IMAGES[:count].reshape(count, 4).mean(1), rtol=1e-6)
        np.testing.assert_array_equal(outputs["pair"][1].reshape(count), IMAGES[:count, 1, 1].reshape(count))


def test_a_mask_is_not_dropped():
    with pytest.raises(TypeError, match="images: expected a plain array, got a MaskedArray"):
        predict(NET, PARAMS, np.ma.masked_less(IMAGES, 0))
