"""What a network saw, against plain NumPy and by what must hold."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax as cnn
from cnn_jax import explain, nets
from tests.helpers import oracles

NETS = {
    "xo_net": (nets.xo_net(features=(3, 4, 4)), (14, 14, 1)),
    "lenet5": (nets.lenet5(classes=3), (28, 28, 1)),
    "resnet9": (nets.resnet9(features=1, classes=4), (32, 32, 3)),
}
SMALL = cnn.Chain(cnn.Conv(3), cnn.Activation(jax.nn.relu), cnn.MaxPool(), cnn.Conv(2), cnn.Flatten(), cnn.Dense(4))
LINEAR = cnn.Chain(cnn.Conv(2, stride=2), cnn.AvgPool(), cnn.Flatten(), cnn.Dense(3))


@functools.cache
def given(name):
    """A network with parameters, three images, and the network compiled for many images at once."""
    net, shape = NETS[name]
    params = net.init(jax.random.key(1), shape)
    images = jax.random.uniform(jax.random.key(2), (3, *shape), minval=-1, maxval=1)
    return net, params, images, jax.jit(jax.vmap(functools.partial(net.apply, params)))


def small(net=SMALL, shape=(9, 8, 2), seed=3):
    params = jax.tree.map(
        lambda leaf: jax.random.normal(jax.random.key(seed), leaf.shape), net.init(jax.random.key(seed), shape)
    )
    return net, params, jax.random.uniform(jax.random.key(seed + 1), shape, minval=-1, maxval=1)


def compiled(function, *arguments, **options):
    """The function of arrays, compiled; networks among its arguments stay as they are."""
    arrays = [argument for argument in arguments if not isinstance(argument, cnn.Layer)]

    @jax.jit
    def run(*arrays):
        rest = iter(arrays)
        given = (argument if isinstance(argument, cnn.Layer) else next(rest) for argument in arguments)
        return function(*given, **options)

    return run(*arrays)


@pytest.mark.parametrize("name", NETS)
def test_everything_runs_under_jit_and_vmap(name):
    net, params, images, _ = given(name)

    def one(image, label):
        return {
            "saliency": explain.saliency(net, params, image, label=label),
            "smooth_grad": explain.smooth_grad(jax.random.key(0), net, params, image, label=label, samples=3),
            "integrated_gradients": explain.integrated_gradients(net, params, image, label=label, steps=4),
            "occlusion": explain.occlusion(net, params, image, label=label, stride=7),
            "grad_cam": explain.grad_cam(net, params, image, label=label),
            "stages": explain.stages(net, params, image),
        }

    @jax.jit
    def everything(images, labels):
        twice = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), params)
        return (
            jax.vmap(one)(images, labels),
            jax.vmap(explain.kernels_as_images)(twice),
            jax.vmap(lambda images: explain.top_activating_patches(net, params, images, count=2))(images[None]),
        )

    labels = jnp.array([0, 1, 1])
    maps, features, patches = everything(images, labels)
    back, _, other = everything(images[::-1], labels[::-1])  # images of a batch do not know of each other
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two[::-1], rtol=1e-3, atol=1e-5), maps, back)
    np.testing.assert_allclose(patches.values, other.values, rtol=1e-5)

    count, rows, columns, _ = images.shape
    stages = jax.jit(jax.vmap(net.stages, (None, 0)))(params, images)
    assert list(maps["stages"]) == [name for name, stage in stages.items() if stage.ndim == 4]
    for name, stage in maps["stages"].items():
        np.testing.assert_allclose(stage, stages[name], rtol=1e-4, atol=1e-5)
    *_, unpooled = (stage for name, stage in maps["stages"].items() if "pool" not in name)
    assert maps["grad_cam"].shape == unpooled.shape[:-1]
    assert maps["saliency"].shape == maps["smooth_grad"].shape == (count, rows, columns)
    assert maps["integrated_gradients"].shape == images.shape
    assert maps["occlusion"].shape == (count, -(-rows // 7), -(-columns // 7))
    assert patches.values.shape == (1, unpooled.shape[-1], 2)
    np.testing.assert_allclose(features[0], features[1], rtol=1e-6)


@pytest.mark.parametrize("name", NETS)
def test_integrated_gradients_add_up_to_the_difference(name):
    net, params, images, apply = given(name)
    got = compiled(explain.integrated_gradients, net, params, images[0], label=1, steps=64)
    difference = np.subtract(*apply(jnp.stack([images[0], jnp.full_like(images[0], -1), images[1]]))[:2])[1]
    assert np.asarray(got, np.float64).sum() == pytest.approx(difference, rel=1e-3, abs=1e-4)

    gradient = jax.jit(jax.vmap(jax.grad(lambda image: net.apply(params, image)[1])))
    way = np.asarray(images[0]) + 1
    shares = (np.arange(1000, dtype=np.float32) + 0.5) / 1000
    parts = [np.asarray(gradient(-1 + share[:, None, None, None] * way), np.float64) for share in np.split(shares, 10)]
    expected = way * np.concatenate(parts).mean(axis=0)
    assert np.linalg.norm(got - expected) < 0.05 * np.linalg.norm(expected)


@pytest.mark.parametrize("name", NETS)
def test_occlusion_is_a_loop_over_windows(name):
    net, params, images, apply = given(name)
    image, label = images[0], int(apply(images[:1])[0].argmax())
    got = compiled(explain.occlusion, net, params, image, window=(4, 5), stride=(3, 4), fill=0.5)
    covered = []
    for y in range(0, image.shape[0], 3):
        for x in range(0, image.shape[1], 4):
            other = np.array(image)
            other[max(y - 1, 0) : y + 3, max(x - 2, 0) : x + 3] = 0.5
            covered.append(other)
    expected = (apply(images[:1]) - apply(np.stack(covered)))[:, label].reshape(got.shape)
    np.testing.assert_allclose(got, expected, atol=1e-5 * float(jnp.abs(apply(images)).max()) + 1e-5)


def dense(params, name, vector):
    return vector @ np.asarray(params[name]["kernel"], np.float64) + np.asarray(params[name].get("bias", 0), np.float64)


def gradients_of_the_last_stage(name, params, maps, label):
    """∂ score / ∂ maps by hand: what follows the last pooling is one dense layer, or three with tanh between them."""
    flat = np.asarray(maps, np.float64).ravel()
    kernels = {layer: np.asarray(own["kernel"], np.float64) for layer, own in params.items() if "dense" in layer}
    if name == "lenet5":
        first = np.tanh(dense(params, "dense1", flat))
        second = np.tanh(dense(params, "dense2", first))
        back = kernels["dense3"][:, label] * (1 - second**2)
        back = kernels["dense2"] @ back * (1 - first**2)
        return (kernels["dense1"] @ back).reshape(maps.shape)
    return (kernels["dense1"][:, label] * (0.125 if name == "resnet9" else 1)).reshape(maps.shape)


@pytest.mark.parametrize("name", NETS)
def test_grad_cam_of_the_last_stage(name):
    net, params, images, apply = given(name)
    image = images[0]
    *_, last = explain.stages(net, params, image)

    @jax.jit
    def make(label):
        return explain.stages(net, params, image), explain.grad_cam(net, params, image, label=label, stage=last)

    shown = 0.0
    for label in range(apply(images).shape[1]):
        stages, got = make(label)
        *_, maps = stages.values()
        weights = gradients_of_the_last_stage(name, params, maps, label).mean(axis=(0, 1))
        expected = np.maximum((np.asarray(maps, np.float64) * weights).sum(-1), 0)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
        shown = max(shown, expected.max())
    assert shown > 0


def test_grad_cam_of_a_stage_within():
    """By NumPy: back through a dense layer, a convolution and max-pooling."""
    net, params, image = small()
    kernel = np.asarray(params["conv2"]["kernel"], np.float64)
    maps = np.asarray(net.stages(params, image)["relu1"], np.float64)  # (7, 6, 3)
    back = np.asarray(params["dense1"]["kernel"], np.float64)[:, 2].reshape(1, 1, 2)
    assert back.size == 2  # pooled is (3, 3, 3), so that the second convolution has one position
    pooled = (kernel * back).sum(-1)
    gradient = np.zeros_like(maps)
    for (y, x, k), value in np.ndenumerate(pooled):
        patch = maps[2 * y : 2 * y + 2, 2 * x : 2 * x + 2, k]
        top, left = np.unravel_index(patch.argmax(), patch.shape)
        gradient[2 * y + top, 2 * x + left, k] += value if patch.max() > 0 or (top, left) == (0, 0) else 0
    expected = np.maximum((maps * gradient.mean(axis=(0, 1))).sum(-1), 0)
    assert expected.max() > 0
    got = compiled(explain.grad_cam, net, params, image, stage="relu1", label=2)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_gradients_of_what_is_linear():
    """The score is a weighted sum of the pixels: the weights, found one by one, are all that there is to say."""
    net, params, image = small(LINEAR, (9, 8, 2))
    size = image.size
    units = np.eye(size, dtype=np.float32).reshape(size, *image.shape)
    scores = jax.jit(jax.vmap(net.apply, (None, 0)))(params, np.concatenate([units, np.zeros((1, *image.shape))]))
    weights = (np.asarray(scores)[:-1] - np.asarray(scores)[-1])[:, 1].reshape(image.shape)
    largest, own = np.abs(weights).max(-1), jax.random.normal(jax.random.key(9), image.shape)

    @jax.jit
    def found(image):
        of = functools.partial(functools.partial, label=1)
        return {
            "saliency": of(explain.saliency)(net, params, image),
            "smooth": of(explain.smooth_grad)(jax.random.key(0), net, params, image, samples=2),
            "from grey": of(explain.integrated_gradients)(net, params, image, baseline=0.0, steps=1),
            "from other": of(explain.integrated_gradients)(net, params, image, baseline=own, steps=1),
            "hidden": of(explain.occlusion)(net, params, image, window=1, fill=0.0),
        }

    expected = {
        "saliency": largest,
        "smooth": largest,
        "from grey": np.asarray(image) * weights,
        "from other": np.asarray(image - own) * weights,
        "hidden": (np.asarray(image) * weights).sum(-1),
    }
    for name, got in found(image).items():
        np.testing.assert_allclose(got, expected[name], atol=1e-4, err_msg=name)


def test_smooth_grad_is_a_mean_over_noisy_copies():
    net, params, image = small()
    key = jax.random.key(5)
    deviation = 0.2 * float(image.max() - image.min())
    noise = deviation * jax.random.normal(key, (6, *image.shape))
    gradient = jax.jit(jax.grad(lambda other: net.apply(params, other)[0]))
    expected = np.abs(np.mean([gradient(image + own) for own in noise], axis=0)).max(-1)
    got = compiled(explain.smooth_grad, key, net, params, image, label=0, samples=6, noise=0.2)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_the_largest_score_is_explained_by_default():
    net, params, image = small()
    label = int(net.apply(params, image).argmax())

    @jax.jit
    def all_of(image, label):
        kinds = (explain.saliency, explain.occlusion, explain.grad_cam, explain.integrated_gradients)
        return [(make(net, params, image), make(net, params, image, label=label)) for make in kinds]

    for by_default, asked in all_of(image, label):
        np.testing.assert_allclose(by_default, asked, atol=1e-6)
    assert any(not np.allclose(by_default, asked) for by_default, asked in all_of(image, (label + 1) % 4))


def test_an_image_like_its_baseline_has_nothing_to_explain():
    net, params, image = small()

    def total(image):
        return explain.integrated_gradients(net, params, image, baseline=0.0, steps=8).sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(jnp.zeros_like(image))
    assert value == 0
    assert np.all(np.isfinite(gradient))


def test_labels_of_every_kind():
    net, params, image = small()
    expected = compiled(explain.saliency, net, params, image, label=2)
    for label in (np.int64(2), np.array(2), jnp.array(2)):
        np.testing.assert_allclose(compiled(explain.saliency, net, params, image, label=label), expected, rtol=1e-6)
    traced = jax.jit(lambda label: explain.saliency(net, params, image, label=label))
    np.testing.assert_allclose(traced(2), expected, rtol=1e-6)
    with pytest.raises(TypeError, match="label: expected an int"):
        traced(2.0)


@pytest.mark.parametrize(("padding", "stride", "shape"), [("VALID", 2, (11, 13, 2)), ("SAME", 1, (6, 7, 1))])
def test_best_patches_by_looking_at_every_one(padding, stride, shape):
    net = cnn.Chain(cnn.Conv(4, (3, 2), padding=padding, stride=stride), cnn.Activation(jnp.tanh), cnn.Flatten())
    images = np.asarray(jax.random.normal(jax.random.key(0), (70, *shape)))  # more than are in work at a time
    params = net.init(jax.random.key(1), shape)
    kernel = np.asarray(params["conv1"]["kernel"], np.float64)
    found = compiled(explain.top_activating_patches, net, params, images, stage="conv1", count=3)
    assert found.patches.shape == (4, 3, 3, 2, shape[2])
    answers = np.stack([oracles.conv(image, kernel, stride=stride, padding=padding) for image in images])
    for k in range(4):
        best = answers[..., k].max(axis=(1, 2))
        np.testing.assert_array_equal(found.indices[k], np.argsort(-best)[:3])
        np.testing.assert_allclose(found.values[k], np.sort(-best)[:3] * -1, rtol=1e-5)
        for patch, value, i, y, x in zip(*(np.asarray(part[k]) for part in found), strict=True):
            assert answers[i, y, x, k] == answers[i, ..., k].max()
            np.testing.assert_allclose((patch * kernel[..., k]).sum(), value, rtol=1e-5)  # the border's zeros too


def test_best_patches_of_a_deep_stage_give_its_answers_alone():
    net = cnn.Chain(cnn.Conv(3), cnn.MaxPool(), cnn.Conv(2), cnn.Activation(jax.nn.relu), cnn.Flatten(), cnn.Dense(2))
    params = net.init(jax.random.key(0), (15, 16, 1))
    images = jax.random.normal(jax.random.key(1), (5, 15, 16, 1))
    found = compiled(explain.top_activating_patches, net, params, images, count=2)  # of relu1, the last stage of images
    assert found.patches.shape == (2, 2, 8, 8, 1)
    body = cnn.Chain(cnn.Conv(3), cnn.MaxPool(), cnn.Conv(2), cnn.Activation(jax.nn.relu))
    own = {name: params[name] for name in ("conv1", "conv2")}
    for k in range(2):
        alone = jax.jit(jax.vmap(body.apply, (None, 0)))(own, found.patches[k])
        assert alone.shape == (2, 1, 1, 2)
        np.testing.assert_allclose(alone[:, 0, 0, k], found.values[k], rtol=1e-4, atol=1e-5)


def test_a_feature_that_answers_nothing_has_the_first_place():
    net = cnn.Chain(cnn.Conv(2), cnn.Activation(jax.nn.relu), cnn.Flatten())
    params = net.init(jax.random.key(0), (5, 5, 1))
    params["conv1"]["bias"] = jnp.array([-100.0, 0.0])
    found = compiled(
        explain.top_activating_patches, net, params, jax.random.normal(jax.random.key(1), (4, 5, 5, 1)), count=2
    )
    np.testing.assert_array_equal(found.values[0], 0)
    np.testing.assert_array_equal([found.y[0], found.x[0]], 0)
    assert np.all(found.values[1] > 0)


def test_features_are_images_on_one_scale():
    net = cnn.Chain(cnn.Match(4, (3, 2)), cnn.Residual(cnn.Conv(4, padding="SAME")), cnn.Flatten(), cnn.Dense(2))
    params = net.init(jax.random.key(0), (6, 6, 3))
    first = explain.kernels_as_images(params, stage="match1")
    bank = np.asarray(params["match1"]["features"])
    assert first.shape == (4, 3, 2, 3)
    np.testing.assert_allclose(first[1] * np.abs(bank).max(), bank[..., 1], rtol=1e-6)
    later = params | {"conv1": {"kernel": jnp.ones((1, 1, 1, 1))}}
    np.testing.assert_array_equal(explain.kernels_as_images(later), first)
    assert explain.kernels_as_images(params, stage="residual1/conv1").shape == (4, 3, 3, 4)
    np.testing.assert_array_equal(explain.kernels_as_images({"conv1": {"kernel": jnp.zeros((1, 1, 1, 2))}}), 0)


@pytest.mark.parametrize(
    ("call", "error", "complaint"),
    [
        (lambda n, p, i: explain.saliency(n, p, i, label=4), ValueError, "label: expected 0 to 3, got 4"),
        (lambda n, p, i: explain.saliency(n, p, i, label=-1), ValueError, "label: expected 0 to 3, got -1"),
        (lambda n, p, i: explain.saliency(n, p, i, label=jnp.array(7)), ValueError, "label: expected 0 to 3, got 7"),
        (lambda n, p, i: explain.saliency(n, p, i, label=True), TypeError, "label: expected an int .* got True"),
        (lambda n, p, i: explain.saliency(n, p, i, label=[0, 1]), TypeError, "label: expected an int"),
        (lambda n, p, i: explain.saliency(n, p, i, label=np.arange(2)), TypeError, "label: expected an int"),
        (lambda n, p, i: explain.top_activating_patches(n, p, i[None], count=1.5), TypeError, "count: .* got 1.5"),
        (lambda n, p, i: explain.top_activating_patches(n, p, i[None], count=0), ValueError, "count: .* got 0"),
        (lambda n, p, i: explain.saliency(n, p, i[..., 0]), ValueError, r"image: expected shape \(H, W, C\), got"),
        (lambda n, p, i: explain.saliency(n, p, "image"), TypeError, "image: expected a real array"),
        (lambda n, p, i: explain.saliency(cnn.Conv(1), {}, i), (ValueError, KeyError), "kernel"),
        (lambda n, p, i: explain.saliency(cnn.MaxPool(), {}, i), ValueError, r"net: .* scores \(K,\), got shape"),
        (lambda n, p, i: explain.occlusion(n, p, i, window=0), ValueError, "window: .* got 0"),
        (lambda n, p, i: explain.occlusion(n, p, i, stride=1.5), TypeError, "stride: .* got 1.5"),
        (lambda n, p, i: explain.occlusion(n, p, i, fill=float("nan")), ValueError, "fill: .* got nan"),
        (lambda n, p, i: explain.integrated_gradients(n, p, i, steps=0), ValueError, "steps: .* got 0"),
        (lambda n, p, i: explain.integrated_gradients(n, p, i, baseline=jnp.ones(8)), ValueError, "baseline: "),
        (lambda n, p, i: explain.smooth_grad(jax.random.key(0), n, p, i, noise=-1), ValueError, "noise: .* got -1"),
        (lambda n, p, i: explain.smooth_grad(jax.random.key(0), n, p, i, samples=0), ValueError, "samples: .* got 0"),
        (lambda n, p, i: explain.grad_cam(n, p, i, stage="dense1"), ValueError, "stage: .*'conv2'.* got 'dense1'"),
        (
            lambda n, p, i: explain.top_activating_patches(n, p, i),
            ValueError,
            r"images: expected shape \(N, H, W, C\), got",
        ),
        (lambda n, p, i: explain.top_activating_patches(n, p, i[None]), ValueError, "count: expected 1 to 1, .* got 9"),
        (
            lambda n, p, i: explain.top_activating_patches(n, p, i[None], count=1, stage="x"),
            ValueError,
            "stage: .* got 'x'",
        ),
        (lambda n, p, i: explain.kernels_as_images(p, stage="dense1"), ValueError, "'conv1', 'conv2'.* got 'dense1'"),
        (lambda n, p, i: explain.kernels_as_images({"a": jnp.ones(3)}), ValueError, "stage: .* got None"),
    ],
)
def test_what_is_wrong_is_named(call, error, complaint):
    with pytest.raises(error, match=complaint):
        call(*small())
