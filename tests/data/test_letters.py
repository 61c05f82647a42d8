"""Letters found in images: where they end up in the frame, and what their segmentation does not depend on."""

import hypothesis.extra.numpy as arrays
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn_jax.data import xo
from cnn_jax.data.letters import segment_letter


@pytest.fixture(scope="module")
def letters():
    """Letters of 56x56 on a wide background, distorted in form only."""
    strengths = dict.fromkeys(("contrast", "noise", "shift"), 0.0) | {"deform": 0.5, "shrink": 0.5}
    draw = jax.vmap(lambda key: xo.draw(key, size=56, **strengths))
    draw = jax.jit(draw, compiler_options={"xla_backend_optimization_level": 0})  # compiling takes longer than drawing
    images, labels = draw(jax.random.split(jax.random.key(3), 16))
    assert 0 < jnp.sum(labels) < 16
    return np.pad(np.asarray(images), ((0, 0), (4, 4), (4, 4)), constant_values=-1)


def correlation(image, other):
    return np.corrcoef(image.ravel(), other.ravel())[0, 1]


def segmented(letters, change=lambda image: image):
    return np.stack([segment_letter(change(image)) for image in letters])


def test_frames_hold_the_letter_white_on_black_in_the_middle(letters):
    for image in segmented(letters):
        assert (image.shape, image.dtype) == ((28, 28), np.float32)
        assert image.min() == -1
        assert image.max() == 1
        rows, columns = np.nonzero(image > 0)
        assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(20, abs=1)
        assert rows.min() + rows.max() == pytest.approx(27, abs=2)
        assert columns.min() + columns.max() == pytest.approx(27, abs=2)
        assert image[:3].max() == image[:, :3].max() == image[-3:].max() == image[:, -3:].max() == -1


@pytest.mark.parametrize("size", [9, 28, 64])
def test_frame_size(letters, size):
    image = segment_letter(letters[0], size=size)
    assert image.shape == (size, size)
    rows, columns = np.nonzero(image > 0)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(size * 20 / 28, abs=1)


@pytest.mark.parametrize(
    ("size", "error", "message"),
    [(0, ValueError, "size: expected at least 1, got 0"), (9.0, TypeError, "size: expected an int, got 9.0")],
)
def test_invalid_frame_sizes_are_named(size, error, message):
    with pytest.raises(error, match=message):
        segment_letter(np.eye(9), size=size)


@pytest.mark.parametrize(
    ("change", "tolerance"),
    [
        (lambda x: -x, 1e-5),
        (lambda x: 3 * x + 100, 1e-3),
        (lambda x: -0.01 * x - 5, 1e-3),
        (lambda x: ((x + 1) * 127.5).astype(np.uint8), 0.02),
        (lambda x: x.astype(np.float16), 0.02),
        (lambda x: x * 1e20, 1e-3),
        (lambda x: np.pad(x, ((30, 0), (0, 11)), constant_values=-1), 0.01),
        (lambda x: np.pad(x, ((3, 60), (50, 1)), constant_values=-1), 0.01),
        (lambda x: np.kron(x, np.ones((2, 2))), 0.04),
        (lambda x: np.kron(x, np.ones((7, 7))), 0.12),
    ],
    ids=["negative", "brighter", "negative darker", "uint8", "float16", "huge", "moved", "moved far", "2x", "7x"],
)
def test_segmentation_does_not_depend_on(letters, change, tolerance):
    assert np.abs(segmented(letters, change) - segmented(letters)).mean((1, 2)).max() < tolerance


@pytest.mark.parametrize("turn", [lambda x: x, np.transpose])
@pytest.mark.parametrize("sign", [1, -1])
def test_uneven_light(letters, turn, sign):
    """A slope of light as high as the contrast between ink and background."""
    light = turn(np.tile(np.linspace(-1, 1, 64), (64, 1)))
    pairs = zip(segmented(letters, lambda x: sign * x + light), segmented(letters), strict=True)
    correlations = [correlation(image, expected) for image, expected in pairs]
    assert np.median(correlations) > 0.95
    assert np.mean(np.array(correlations) > 0.7) >= 0.8


def test_specks_are_dropped(letters):
    def add_specks(image):
        image = np.pad(image, 8, constant_values=-1)
        image[[1, 2, 40, 77], [3, 75, 1, 70]] = 1
        return image

    assert np.abs(segmented(letters, add_specks) - segmented(letters)).mean((1, 2)).max() < 0.02


def test_a_little_noise_and_a_lost_pixel(letters):
    rng = np.random.default_rng(0)

    def spoil(image):
        image = image + rng.normal(0, 0.1, image.shape)
        image[2, 3] = np.nan
        return image

    assert np.abs(segmented(letters, spoil) - segmented(letters)).mean((1, 2)).max() < 0.06


@pytest.mark.parametrize("value", [0, -1, 255, np.nan])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (3, 3), (50, 60)])
def test_a_blank_image_gives_a_black_frame(value, shape):
    np.testing.assert_array_equal(segment_letter(np.full(shape, value)), np.full((28, 28), -1))


@pytest.mark.parametrize("shape", [(1, 2), (1, 30), (30, 1), (2, 2), (3, 3), (5, 2000), (3000, 4)])
def test_tiny_and_long_images(shape):
    image = np.random.default_rng(0).random(shape)
    frame = segment_letter(image)
    assert frame.shape == (28, 28)
    assert np.abs(frame).max() <= 1


@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool", "float64"])
def test_a_tiny_x_of_any_dtype(dtype):
    x = np.eye(5) + np.eye(5)[::-1] > 0
    expected = np.kron(np.pad(x, 1), np.ones((4, 4)))
    assert correlation(segment_letter(np.pad(x, 3).astype(dtype)), expected) > 0.7


@pytest.mark.parametrize("shape", [(), (5,), (0, 5), (5, 0), (5, 5, 1), (2, 5, 5, 1)])
def test_arrays_that_are_not_images_are_rejected(shape):
    with pytest.raises(ValueError, match=rf"image: .*{'.*'.join(map(str, shape))}"):
        segment_letter(np.zeros(shape))


PIXELS = st.one_of(st.integers(0, 255).map(float), st.sampled_from([0.0, 255.0, np.nan]))
SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12))


@given(arrays.arrays(np.float32, SHAPES, elements=PIXELS, fill=PIXELS), st.sampled_from([1.0, -1 / 255, 100.0]))
def test_any_image_gives_a_frame(image, scale):
    frame = segment_letter(image * np.float32(scale))
    assert (frame.shape, frame.dtype) == ((28, 28), np.float32)
    assert np.abs(frame).max() <= 1


@pytest.mark.parametrize(
    "image",
    [np.full((9, 9), 1e6), 1 + 1e-6 * np.eye(9), np.where(np.eye(9) > 0, np.inf, 0), 1e300 * np.eye(9)],
    ids=["blank", "faint", "infinite", "enormous"],
)
def test_extreme_gray_levels(image):
    frame = segment_letter(image)
    assert np.abs(frame).max() <= 1


@pytest.mark.parametrize("level", [-1.0, 1.0])
@pytest.mark.parametrize("width", [1, 3])
def test_a_line_around_the_image_is_no_letter(level, width):
    x = np.kron(np.maximum(np.eye(9), np.eye(9)[::-1]) * 2 - 1, np.ones((4, 4)))
    plain = np.pad(x, 12, constant_values=-1) * level
    outlined = np.pad(plain, width, constant_values=level)
    np.testing.assert_allclose(segment_letter(outlined), segment_letter(plain), atol=1e-6)
