"""Attribution maps against plain NumPy and against their definitions."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

import cnn_jax as cnn
from cnn_jax import explain
from cnn_jax.layers import Layer, Params
from tests.helpers.sample_networks import sample_network

NETWORKS = ["small", *(pytest.param(name, marks=pytest.mark.slow) for name in ("xo_net", "lenet5", "resnet9"))]
NOISE_KEY = jax.random.key(5)
WINDOW = (4, 5)
STRIDE = (3, 4)
FILL = 0.5
SAMPLES = 10
NOISE = 0.2


class Explained(NamedTuple):
    """A network, three images and their maps, computed by one program."""

    net: Layer
    params: Params
    images: Array
    labels: np.ndarray
    logits: np.ndarray
    maps: dict[str, Array]
    default_maps: dict[str, Array]
    compute: Callable[[Array, Array], tuple[dict[str, Array], dict[str, Array]]]
    gradient: Callable[[Array], Array]


@pytest.fixture(scope="module", params=NETWORKS)
def explained(request):
    net, params, images = sample_network(request.param)
    logits = np.asarray(jax.jit(jax.vmap(net.apply, (None, 0)))(params, images))
    labels = np.array([logits[0].argmax(), 1, (logits[2].argmax() + 1) % logits.shape[1]])

    def maps(image, **options):
        return {
            "saliency": explain.saliency(net, params, image, **options),
            "smooth_grad": explain.smooth_grad(NOISE_KEY, net, params, image, samples=SAMPLES, noise=NOISE, **options),
            "integrated_gradients": explain.integrated_gradients(net, params, image, steps=64, **options),
            "occlusion": explain.occlusion(net, params, image, window=WINDOW, stride=STRIDE, fill=FILL, **options),
            "grad_cam": explain.grad_cam(net, params, image, **options),
        }

    @jax.jit
    @jax.vmap
    def compute(image, label):
        return maps(image, label=label), maps(image)

    @jax.jit
    @jax.vmap
    def gradient(image):
        return jax.grad(lambda image: net.apply(params, image)[1])(image)

    maps_of_labels, default_maps = compute(images, labels)
    return Explained(net, params, images, labels, logits, maps_of_labels, default_maps, compute, gradient)


def test_maps_have_a_value_per_pixel_window_or_position(explained):
    count, rows, columns, _ = explained.images.shape
    shapes = {name: values.shape for name, values in explained.maps.items()}
    *_, unpooled = (
        stage
        for name, stage in jax.eval_shape(explained.net.stages, explained.params, explained.images[0]).items()
        if stage.ndim == 3 and "pool" not in name
    )
    assert shapes["saliency"] == shapes["smooth_grad"] == (count, rows, columns)
    assert shapes["integrated_gradients"] == explained.images.shape
    assert shapes["occlusion"] == (count, -(-rows // STRIDE[0]), -(-columns // STRIDE[1]))
    assert shapes["grad_cam"] == (count, *unpooled.shape[:2])


def test_images_of_a_batch_do_not_influence_each_other(explained):
    reversed_maps, _ = explained.compute(explained.images[::-1], explained.labels[::-1])
    for name, values in explained.maps.items():
        np.testing.assert_allclose(values, reversed_maps[name][::-1], rtol=1e-3, atol=1e-5, err_msg=name)


def test_the_largest_logit_is_explained_by_default(explained):
    for name, values in explained.maps.items():
        by_default = explained.default_maps[name]
        np.testing.assert_allclose(by_default[0], values[0], rtol=1e-4, atol=1e-5, err_msg=name)
        assert not np.allclose(by_default[2], values[2])


def test_integrated_gradients_add_up_to_the_difference_from_black(explained):
    black = np.full_like(explained.images[:1], -1)
    black_logits = jax.jit(jax.vmap(explained.net.apply, (None, 0)))(explained.params, black)
    difference = float(explained.logits[1, 1] - black_logits[0, 1])
    total = np.asarray(explained.maps["integrated_gradients"][1], np.float64).sum()
    assert total == pytest.approx(difference, rel=1e-3, abs=1e-4)


def test_integrated_gradients_are_means_along_the_way_from_black(explained):
    path = np.asarray(explained.images[1]) + 1
    midpoints = ((np.arange(1000, dtype=np.float32) + 0.5) / 1000).reshape(-1, SAMPLES, 1, 1, 1)
    gradients = np.concatenate([explained.gradient(-1 + t * path) for t in midpoints]).astype(np.float64)
    expected = path * gradients.mean(axis=0)
    got = np.asarray(explained.maps["integrated_gradients"][1])
    assert np.linalg.norm(got - expected) < 0.05 * np.linalg.norm(expected)


def test_smooth_grad_is_a_mean_over_noisy_copies(explained):
    image = explained.images[1]
    deviation = NOISE * float(image.max() - image.min())
    noise = deviation * jax.random.normal(NOISE_KEY, (SAMPLES, *image.shape))
    expected = np.abs(np.mean(explained.gradient(image[None] + noise), axis=0)).max(-1)
    np.testing.assert_allclose(explained.maps["smooth_grad"][1], expected, rtol=1e-3, atol=1e-4)


def test_occlusion_is_a_loop_over_windows(explained):
    image = np.asarray(explained.images[0])
    got = explained.maps["occlusion"][0]
    covered = []
    for y in range(0, image.shape[0], STRIDE[0]):
        for x in range(0, image.shape[1], STRIDE[1]):
            copy = image.copy()
            copy[max(y - 1, 0) : y + 3, max(x - 2, 0) : x + 3] = FILL
            covered.append(copy)
    logits = jax.jit(jax.vmap(explained.net.apply, (None, 0)))(explained.params, np.stack(covered))
    expected = (explained.logits[0] - np.asarray(logits))[:, explained.labels[0]].reshape(got.shape)
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(explained.logits).max() + 1e-5)


def dense(params, name, vector):
    bias = np.asarray(params[name].get("bias", 0), np.float64)
    return vector @ np.asarray(params[name]["kernel"], np.float64) + bias


def gradient_of_the_last_stage(name, params, activations, label):
    """∂ logit / ∂ activations by hand: one dense layer, or three with tanh between them, follows the last pooling."""
    kernels = {layer: np.asarray(values["kernel"], np.float64) for layer, values in params.items() if "dense" in layer}
    if name == "lenet5":
        first = np.tanh(dense(params, "dense1", np.asarray(activations, np.float64).ravel()))
        second = np.tanh(dense(params, "dense2", first))
        gradient = kernels["dense3"][:, label] * (1 - second**2)
        gradient = kernels["dense2"] @ gradient * (1 - first**2)
        return (kernels["dense1"] @ gradient).reshape(activations.shape)
    return (kernels["dense1"][:, label] * (0.125 if name == "resnet9" else 1)).reshape(activations.shape)


@pytest.mark.parametrize("name", NETWORKS)
def test_grad_cam_of_the_last_stage(name):
    net, params, (image, *_) = sample_network(name)
    *_, last = explain.stages(net, params, image)

    @jax.jit
    def compute(label):
        return explain.stages(net, params, image), explain.grad_cam(net, params, image, label=label, stage=last)

    classes = jax.eval_shape(net.apply, params, image).shape[0]
    largest = 0.0
    for label in range(classes):
        stages, got = compute(label)
        activations = stages[last]
        weights = gradient_of_the_last_stage(name, params, activations, label).mean(axis=(0, 1))
        expected = np.maximum((np.asarray(activations, np.float64) * weights).sum(-1), 0)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
        largest = max(largest, expected.max())
    assert largest > 0


def test_grad_cam_of_an_inner_stage():
    """By NumPy: back through a dense layer, a convolution and max-pooling."""
    net, params, (image, *_) = sample_network("small")

    @jax.jit
    def compute(label):
        return net.stages(params, image)["relu1"], explain.grad_cam(net, params, image, stage="relu1", label=label)

    activations = np.asarray(compute(0)[0], np.float64)  # (7, 6, 3)
    largest = 0.0
    for label in range(4):
        _, got = compute(label)
        gradient = gradient_of_relu1(params, activations, label)
        expected = np.maximum((activations * gradient.mean(axis=(0, 1))).sum(-1), 0)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
        largest = max(largest, expected.max())
    assert largest > 0


def gradient_of_relu1(params, activations, label):
    logit_weights = np.asarray(params["dense1"]["kernel"], np.float64)[:, label].reshape(1, 1, 2)
    pooled = (np.asarray(params["conv2"]["kernel"], np.float64) * logit_weights).sum(-1)  # conv2 has one position
    gradient = np.zeros_like(activations)
    for (y, x, k), value in np.ndenumerate(pooled):
        window = activations[2 * y : 2 * y + 2, 2 * x : 2 * x + 2, k]
        top, left = np.unravel_index(window.argmax(), window.shape)
        gradient[2 * y + top, 2 * x + left, k] += value if window.max() > 0 or (top, left) == (0, 0) else 0
    return gradient


def test_maps_of_a_linear_network_are_its_weights():
    """The logit is a weighted sum of the pixels; the weights are the logits of images with one bright pixel."""
    net, params, (image, *_) = sample_network("linear")
    size = image.size
    units = np.eye(size + 1, size, dtype=np.float32).reshape(size + 1, *image.shape)
    logits = np.asarray(jax.jit(jax.vmap(net.apply, (None, 0)))(params, units))[:, 1]
    weights = (logits[:-1] - logits[-1]).reshape(image.shape)
    baseline = jax.random.normal(jax.random.key(9), image.shape)

    @jax.jit
    def compute(image):
        options = {"net": net, "params": params, "image": image, "label": 1}
        return {
            "saliency": explain.saliency(**options),
            "smooth_grad": explain.smooth_grad(jax.random.key(0), samples=2, **options),
            "integrated_gradients": explain.integrated_gradients(baseline=0.0, steps=1, **options),
            "from an image": explain.integrated_gradients(baseline=baseline, steps=1, **options),
            "occlusion": explain.occlusion(window=1, fill=0.0, **options),
        }

    expected = {
        "saliency": np.abs(weights).max(-1),
        "smooth_grad": np.abs(weights).max(-1),
        "integrated_gradients": np.asarray(image) * weights,
        "from an image": np.asarray(image - baseline) * weights,
        "occlusion": (np.asarray(image) * weights).sum(-1),
    }
    for name, got in compute(image).items():
        np.testing.assert_allclose(got, expected[name], atol=1e-4, err_msg=name)


def test_an_image_like_its_baseline_has_nothing_to_explain():
    net, params, (image, *_) = sample_network("linear")

    def total(image):
        return explain.integrated_gradients(net, params, image, label=0, baseline=0.0, steps=8).sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(jnp.zeros_like(image))
    assert value == 0
    assert np.all(np.isfinite(gradient))


def test_labels_of_every_kind():
    net, params, (image, *_) = sample_network("linear")

    @jax.jit
    def compute(traced):
        labels = (2, np.int64(2), np.array(2), jnp.array(2), traced)
        return [explain.saliency(net, params, image, label=label) for label in labels]

    expected, *others = compute(2)
    for got in others:
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_a_traced_label_of_floats_names_the_argument():
    net, params, (image, *_) = sample_network("small")
    with pytest.raises(TypeError, match="label: expected an int"):
        jax.eval_shape(lambda label: explain.saliency(net, params, image, label=label), 2.0)


def random_grad(net, params, image, **options):
    return explain.smooth_grad(jax.random.key(0), net, params, image, **options)


@pytest.mark.parametrize(
    ("function", "options", "error", "message"),
    [
        (explain.saliency, {"label": 4}, ValueError, "label: expected 0 to 3, got 4"),
        (explain.saliency, {"label": -1}, ValueError, "label: expected 0 to 3, got -1"),
        (explain.saliency, {"label": jnp.array(7)}, ValueError, "label: expected 0 to 3, got 7"),
        (explain.saliency, {"label": True}, TypeError, "label: expected an int .* got True"),
        (explain.saliency, {"label": [0, 1]}, TypeError, "label: expected an int"),
        (explain.saliency, {"label": np.arange(2)}, TypeError, "label: expected an int"),
        (explain.saliency, {"image": jnp.ones((9, 8))}, ValueError, r"image: expected shape \(H, W, C\), got"),
        (explain.saliency, {"image": "image"}, TypeError, "image: expected a real array"),
        (explain.saliency, {"net": cnn.Conv(1), "params": {}}, ValueError, "params: expected bias"),
        (explain.saliency, {"net": cnn.MaxPool(), "params": {}}, ValueError, r"net: .* logits \(K,\), got shape"),
        (explain.occlusion, {"window": 0}, ValueError, "window: .* got 0"),
        (explain.occlusion, {"stride": 1.5}, TypeError, "stride: .* got 1.5"),
        (explain.occlusion, {"fill": float("nan")}, ValueError, "fill: .* got nan"),
        (explain.integrated_gradients, {"steps": 0}, ValueError, "steps: .* got 0"),
        (explain.integrated_gradients, {"baseline": jnp.ones(8)}, ValueError, r"baseline: .* \(9, 8, 2\), got \(8,\)"),
        (random_grad, {"noise": -1}, ValueError, "noise: .* got -1"),
        (random_grad, {"samples": 0}, ValueError, "samples: .* got 0"),
        (explain.grad_cam, {"stage": "dense1"}, ValueError, r"stage: expected one of \[.*'conv2'\], got 'dense1'"),
    ],
)
def test_every_function_names_the_argument(function, options, error, message):
    net, params, (image, *_) = sample_network("small")
    with pytest.raises(error, match=message):
        function(**({"net": net, "params": params, "image": image} | options))
