"""Wrong arguments of `fit`: each is named, with what it should be."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import augment
from cnn_jax._fit_arguments import check_classes, check_images_and_labels, check_optimizer, check_trainable
from cnn_jax.data.dataset import LabeledImages
from cnn_jax.layers import Chain, Dense, Flatten
from cnn_jax.training import fit

NET = Chain(Flatten(), Dense(2))
KEY = jax.random.key(0)
IMAGES = np.zeros((4, 2, 2), np.float32)
LABELS = np.array([0, 1, 0, 1])
PARAMS = {"dense1": {"kernel": jnp.ones((4, 2)), "bias": jnp.zeros(2)}}
TEXT = ["cat", "dog", "cat", "dog"]


def run(net: Any = NET, data: Any = (IMAGES, LABELS), **options: Any):
    defaults: dict[str, Any] = {"optimizer": optax.sgd(0.1), "steps": 1, "batch_size": 2, "key": KEY, "progress": False}
    return fit(net, data, **(defaults | options))


def no_batch(key):
    return jnp.zeros((2, 2)), 0.5


WRONG = {
    "params as net": ({"net": PARAMS}, TypeError, "net: expected a Layer, such as a Chain, got dict"),
    "a layer not made": ({"net": Flatten}, TypeError, "net: expected a Layer, .* got Flatten, which is to be called"),
    "an optimizer not made": (
        {"optimizer": optax.adam},
        TypeError,
        r"optimizer: expected an optax optimizer, such as optax.adam\(1e-3\), got adam, which is to be called",
    ),
    "a rate": ({"optimizer": 0.1}, TypeError, "optimizer: expected an optax optimizer, .* got 0.1"),
    "a number": ({"optimizer": 3}, TypeError, "optimizer: expected an optax optimizer, .* got 3"),
    "a name": ({"optimizer": "adam"}, TypeError, "optimizer: expected an optax optimizer, .* got 'adam'"),
    "a seed": ({"key": 0}, TypeError, r"key: expected a random key, such as jax.random.key\(0\), got 0"),
    "several keys": ({"key": jax.random.split(KEY)}, TypeError, r"key: expected .* got keys of shape \(2,\)"),
    "an array as key": ({"key": jnp.zeros(2)}, TypeError, "key: expected .* got an array of float32"),
    "the loss's name": ({"loss": "mse"}, TypeError, r"loss: expected a function loss\(logits, label\), got 'mse'"),
    "augment's result": ({"augment": IMAGES}, TypeError, r"augment: expected a function augment.*, got ndarray"),
    "progress": ({"progress": 1}, TypeError, "progress: expected True or False, got 1"),
    "text labels": (
        {"data": (IMAGES, TEXT)},
        TypeError,
        r"data: expected labels that are numbers, got an array of <U3; number them: .*numpy.unique\(labels",
    ),
    "text in an array": ({"data": (IMAGES, np.array(TEXT))}, TypeError, "data: expected labels .* got an array of <U3"),
    "labels of many kinds": ({"data": (IMAGES, ["cat", None, 1, 2])}, TypeError, "data: .* got an array of object"),
    "labeled images": (
        {"data": LabeledImages(IMAGES.astype(np.uint8), LABELS.astype(np.int32), ("X", "O"))},
        TypeError,
        r"data: expected \(images, labels\), .* got LabeledImages; pass \(data.images, data.labels\)",
    ),
    "images only": ({"data": IMAGES}, TypeError, r"data: expected \(images, labels\), .* got ndarray"),
    "a dict": ({"data": {"images": 1, "labels": 2}}, TypeError, r"data: expected \(images, labels\), .* got dict"),
    "images of two shapes": (
        {"data": ([np.zeros((2, 2)), np.zeros((3, 2))], [0, 1])},
        TypeError,
        "data: expected images of one shape, got list",
    ),
    "fewer labels": ({"data": (IMAGES, LABELS[:3])}, ValueError, r"data: .* as many labels as images \(4\), got 3"),
    "one label": ({"data": (IMAGES, 1)}, ValueError, r"data: .* as many labels as images \(4\), got one number"),
    "float labels": (
        {"data": (IMAGES, LABELS * 0.5)},
        TypeError,
        r"data: the default loss needs one integer label per image, got float32 of shape \(4,\); pass loss=",
    ),
    "float labels drawn": ({"data": no_batch}, TypeError, "data: the default loss needs one integer label per image"),
    "float labels of augment": (
        {"augment": lambda key, batch: (batch.images, batch.labels.astype(float))},
        TypeError,
        "data: the default loss needs one integer label per image",
    ),
    "labels from 1": ({"data": (IMAGES, LABELS + 1)}, ValueError, "data: expected labels from 0 to 1, got 1 to 2"),
    "negative labels": ({"data": (IMAGES, -LABELS)}, ValueError, "data: expected labels from 0 to 1, got -1 to 0"),
    "no labels": ({"data": (IMAGES, None)}, TypeError, "data: expected labels that are numbers, got None"),
    "masked images": (
        {"data": (np.ma.masked_array(IMAGES), LABELS)},
        TypeError,
        "data: expected plain images, got a MaskedArray",
    ),
    "an augment that returns nothing": (
        {"augment": lambda key, batch: None},
        TypeError,
        r"augment: expected a function that returns \(images, labels\), got one that returns None",
    ),
    "a sample without a label": (
        {"data": lambda key: (jnp.zeros((2, 2)),)},
        TypeError,
        r"data: expected a function that returns \(image, label\), got one that returns a tuple of 1",
    ),
    "a sample alone": ({"data": lambda key: jnp.zeros((2, 2))}, TypeError, r"data: .* that returns \(image, label\)"),
    "the net as parameters": ({"params": NET}, TypeError, "params: expected arrays of floats, got Chain$"),
    "one logit": (
        {"net": Chain(Flatten(), Dense(1)), "data": (IMAGES, LABELS * 0)},
        ValueError,
        r"net: expected at least 2 logits for the default loss, got the output shape \(1,\); pass loss=",
    ),
    "integer parameters": (
        {"params": jax.tree.map(lambda leaf: leaf.astype(int), PARAMS)},
        TypeError,
        "params: expected arrays of floats, got int32 at dense1/bias",
    ),
    "a name in the parameters": (
        {"params": (PARAMS, "xo_net")},
        TypeError,
        "params: expected arrays of floats, got 'xo_net' at 1",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_is_named_with_what_it_should_be(case):
    options, error, message = WRONG[case]
    with pytest.raises(error, match=f"^{message}"):
        run(**options)


def test_functions_of_one_image_are_no_augment():
    with pytest.raises(TypeError, match=r"image: expected a real array .* got Batch"):
        run(augment=augment.flip)


def test_whatever_can_init_and_update_is_an_optimizer():
    check_optimizer(optax.MultiSteps(optax.sgd(0.1), every_k_schedule=2))
    check_optimizer(optax.inject_hyperparams(optax.adam)(learning_rate=0.1))


def test_floats_of_all_kinds_can_be_trained():
    check_trainable({"a": 1.0, "b": np.float32(1), "c": jnp.zeros(2, jnp.bfloat16), "d": (np.zeros(2), None)})


def test_arrays_stay_what_they_are():
    images, labels = check_images_and_labels("data", [IMAGES, LABELS.tolist()])
    assert images is IMAGES
    assert isinstance(labels, np.ndarray)
    on_device = jnp.zeros((2, 1, 1))
    assert check_images_and_labels("data", (on_device, [0, 1]))[0] is on_device


def test_labels_of_every_pixel_are_classes_of_its_logits():
    logits = np.zeros((5, 6, 2))
    check_classes("data", np.ones((4, 5, 6), int), logits, "")
    check_classes("data", jax.ShapeDtypeStruct((4, 5, 6), "int8"), logits, "")
    with pytest.raises(TypeError, match=r"needs integers of shape \(5, 6\) per image, got int64 of shape \(4,\)"):
        check_classes("data", LABELS, logits, "")
    with pytest.raises(ValueError, match=r"net: expected one array of logits .*, got a dict; pass loss="):
        check_classes("data", LABELS, {"logits": logits}, "pass loss=")
