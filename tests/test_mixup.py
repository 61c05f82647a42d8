"""Mixup and CutMix: images and labels are mixed by the same weights, which come from a Beta distribution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import augment
from tests.helpers.oracles import noise

KEY = jax.random.key(0)
LABEL, SECOND_LABEL = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
EXAMPLE = jnp.asarray(noise(0, 8, 10, 3)), LABEL
SECOND_EXAMPLE = jnp.asarray(noise(1, 8, 10, 3)), SECOND_LABEL
KEYS = jax.random.split(jax.random.key(2), 4000)


@functools.cache
def draw_many(mix):
    """A compiled function of alpha and two examples that draws 4000 mixtures."""

    @jax.jit
    def draw(alpha, first, second):
        return jax.vmap(lambda key: mix(key, first, second, alpha=alpha))(KEYS)

    return lambda alpha, first, second: jax.tree.map(np.asarray, draw(alpha, first, second))


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_mixup_draws_weights_from_beta(alpha):
    _, labels = draw_many(augment.mixup)(alpha, EXAMPLE, SECOND_EXAMPLE)
    weights = labels[:, 0]
    assert weights.mean() == pytest.approx(0.5, abs=0.02)
    assert weights.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_cutmix_draws_areas_from_beta_clipped_at_the_border(alpha):
    generator = np.random.default_rng(0)
    expected = []
    for area in generator.beta(alpha, alpha, 20_000):
        sides = []
        for length in (8, 10):
            side = round(np.sqrt(area) * length)
            first = generator.integers(length) - side // 2
            sides.append(min(first + side, length) - max(first, 0))
        expected.append(np.prod(sides) / 80)
    _, labels = draw_many(augment.cutmix)(alpha, EXAMPLE, SECOND_EXAMPLE)
    areas = labels[:, 1]
    assert areas.mean() == pytest.approx(np.mean(expected), abs=0.02)
    assert areas.std() == pytest.approx(np.std(expected), abs=0.02)


def test_mixup_mixes_images_as_labels():
    images, labels = draw_many(augment.mixup)(0.2, EXAMPLE, SECOND_EXAMPLE)
    weights = labels[:, 0]
    np.testing.assert_allclose(labels.sum(1), 1, atol=1e-6)
    assert weights.min() < 0.05
    assert weights.max() > 0.95
    weights = weights[:, None, None, None]
    expected = weights * np.asarray(EXAMPLE[0]) + (1 - weights) * np.asarray(SECOND_EXAMPLE[0])
    np.testing.assert_allclose(images, expected, atol=1e-5)


def test_cutmix_mixes_areas_as_labels():
    images, labels = draw_many(augment.cutmix)(1.0, EXAMPLE, SECOND_EXAMPLE)
    is_second = images == np.asarray(SECOND_EXAMPLE[0])
    np.testing.assert_allclose(is_second[..., 0].mean((1, 2)), labels[:, 1], atol=1e-6)
    assert np.all(is_second.all(-1) == is_second.any(-1))
    np.testing.assert_array_equal(np.where(is_second, EXAMPLE[0], images), np.broadcast_to(EXAMPLE[0], images.shape))
    assert labels[:, 1].min() == 0
    assert labels[:, 1].max() > 0.7


@pytest.mark.parametrize("dtype", [pytest.param(jnp.bfloat16, marks=pytest.mark.slow), jnp.float16])
def test_labels_of_16_bits_get_the_share_of_all_pixels(dtype):
    """Of 2560 pixels: more than 16 bits can count."""
    first = jnp.ones((40, 64), dtype), LABEL.astype(dtype)
    second = jnp.zeros((40, 64)), SECOND_LABEL.astype(dtype)
    cutmix = jax.jit(jax.vmap(augment.cutmix, (0, None, None)))
    images, labels = cutmix(jax.random.split(KEY, 5), first, second)
    for image, label in zip(images, labels, strict=True):
        share = np.asarray(image, np.float32).mean()
        np.testing.assert_array_equal(label, jnp.array([share, 1 - share]).astype(dtype))


def test_mixtures_keep_the_dtypes_of_images_and_labels():
    first, second = (EXAMPLE[0].astype(jnp.bfloat16), LABEL), (SECOND_EXAMPLE[0].astype(jnp.bfloat16), SECOND_LABEL)
    image, label = augment.mixup(KEY, first, second)
    assert (image.dtype, label.dtype) == (jnp.bfloat16, jnp.float32)
    expected = label[0] * EXAMPLE[0] + label[1] * SECOND_EXAMPLE[0]
    np.testing.assert_allclose(image.astype(jnp.float32), expected, atol=0.03)


def mix_all(key, first, second, alpha):
    return [augment.mixup(key, first, second, alpha=alpha), augment.cutmix(key, first, second, alpha=alpha)]


@pytest.mark.parametrize("mix", [augment.mixup, augment.cutmix])
def test_alpha_may_be_traced(mix):
    traced = jax.tree.map(lambda leaf: leaf[3], draw_many(mix)(0.5, EXAMPLE, SECOND_EXAMPLE))
    expected = jax.jit(functools.partial(mix, alpha=0.5))(KEYS[3], EXAMPLE, SECOND_EXAMPLE)
    jax.tree.map(lambda got, value: np.testing.assert_allclose(got, value, atol=1e-4), traced, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_64_bits_change_no_dtype(dtype):
    with jax.enable_x64(True):
        first, second = jax.tree.map(lambda leaf: leaf.astype(dtype), (EXAMPLE, SECOND_EXAMPLE))
        for alpha in (0.3, jnp.float32(0.3), np.float64(0.3)):
            out = jax.eval_shape(functools.partial(mix_all, alpha=alpha), KEY, first, second)
            assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {jnp.dtype(dtype)}
        traced = jax.eval_shape(mix_all, KEY, first, second, jnp.float32(0.3))
        assert {leaf.dtype for leaf in jax.tree.leaves(traced)} == {jnp.dtype(dtype)}


IMAGE = EXAMPLE[0]


@pytest.mark.parametrize("mix", [augment.mixup, augment.cutmix])
@pytest.mark.parametrize(
    ("first", "second", "options", "message"),
    [
        (EXAMPLE, (IMAGE[1:], LABEL), {}, r"second: expected the shape of first \(8, 10, 3\), got \(7, 10, 3\)"),
        (EXAMPLE, (IMAGE, LABEL[1:]), {}, r"second: expected the shape of first \(2,\), got \(1,\)"),
        ((IMAGE, 1), (IMAGE, 0), {}, "first: expected a label with a probability"),
        (EXAMPLE, EXAMPLE, {"alpha": 0}, "alpha: expected .* above 0, got 0"),
        (EXAMPLE, EXAMPLE, {"alpha": np.nan}, "alpha: expected a finite number.*, got nan"),
        (EXAMPLE, EXAMPLE, {"alpha": np.inf}, "alpha: expected a finite number.*, got inf"),
        (EXAMPLE, EXAMPLE, {"alpha": -np.inf}, "alpha: expected a finite number.*, got -inf"),
    ],
)
def test_bad_examples(mix, first, second, options, message):
    with pytest.raises(ValueError, match=message):
        mix(KEY, first, second, **options)


@pytest.mark.parametrize("alpha", ["0.2", (0.1, 0.2), None, 1j, jnp.ones(2)])
def test_alpha_is_a_number(alpha):
    with pytest.raises(TypeError, match=r"alpha: expected a finite number.*, got"):
        augment.cutmix(KEY, EXAMPLE, SECOND_EXAMPLE, alpha=alpha)
