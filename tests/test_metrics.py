"""Metrics: the accuracy where labels are classes, and means over examples and places."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax._metrics import accuracy, are_classes, batch_metrics, default_loss, example_values, metrics_for

GENERATOR = np.random.default_rng(0)
LOGITS = GENERATOR.normal(size=(5, 3, 4, 2)).astype(np.float32)
CLASSES = GENERATOR.integers(0, 2, (5, 3, 4)).astype(np.int32)


def test_the_accuracy_of_pixels_is_the_share_of_right_ones():
    metrics = batch_metrics(default_loss, jnp.asarray(LOGITS), jnp.asarray(CLASSES))
    assert float(metrics["accuracy"]) == pytest.approx(np.mean(LOGITS.argmax(-1) == CLASSES))
    log_probs = LOGITS - np.log(np.exp(LOGITS.astype(np.float64)).sum(-1, keepdims=True))
    expected = -np.take_along_axis(log_probs, CLASSES[..., None], -1).mean()
    assert float(metrics["loss"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8])
def test_labels_of_any_integer_dtype_are_classes(dtype):
    labels = CLASSES[:, 0, 0].astype(dtype)
    expected = np.mean(LOGITS[:, 0, 0].argmax(-1) == labels)
    assert float(accuracy(LOGITS[:, 0, 0], labels)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("shape", "labels"),
    [
        ((5, 1), np.zeros(5, int)),  # one logit and a binary label
        ((5,), np.zeros(5, int)),
        ((5, 4, 4, 1), np.zeros((5, 4, 4), int)),
        ((5, 3), np.zeros((5, 3), int)),  # several binary labels
        ((5, 3), np.zeros(5)),
        ((5, 3), np.zeros(5, bool)),
        ((5, 3), np.zeros((5, 1), int)),
    ],
)
def test_other_labels_are_no_classes_and_have_no_accuracy(shape, labels):
    assert not are_classes(np.zeros(shape), labels)
    assert list(metrics_for(default_loss, np.zeros(shape), labels)) == ["loss"]
    with pytest.raises(ValueError, match="label: expected integers of shape"):
        accuracy(np.zeros(shape), labels)


def test_outputs_that_are_no_array_have_a_loss_only():
    def loss(logits, label):
        return (logits["mean"] - label) ** 2

    metrics = batch_metrics(loss, {"mean": jnp.ones(4)}, jnp.arange(4.0))
    assert {name: float(value) for name, value in metrics.items()} == {"loss": 1.5}


def test_an_example_has_one_value_of_every_metric():
    metrics = {"loss": optax.softmax_cross_entropy_with_integer_labels, "right": lambda logits, label: label == 1}
    values = example_values(metrics, jnp.asarray(LOGITS), jnp.asarray(CLASSES))
    assert {name: value.shape for name, value in values.items()} == {"loss": (5,), "right": (5,)}
    np.testing.assert_allclose(values["right"], CLASSES.mean((1, 2)), rtol=1e-6)
