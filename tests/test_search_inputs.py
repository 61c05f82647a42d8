"""The arrays that `find` takes, as users give them."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax._search_inputs import as_array, as_image, as_stacks, shapes_text
from tests.helpers.oracles import noise

GRAY, COLOR = (40, 50), (40, 50, 3)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "photo.png",
            "image: expected an array, got 'photo.png'; find takes arrays, cnn_jax.data.image_io reads files",
        ),
        (pathlib.Path("photo.png"), "image: expected an array, got PosixPath.*image_io reads files"),
        ([[0.0, 1.0], [1.0, 0.0]], "image: expected a real array .* got list; use numpy.asarray"),
        (3.0, "image: expected a real array .* got float"),
        (np.ones((3, 3), complex), "image: expected a real array .* got complex128"),
        (np.full((3, 3), "a"), "image: expected a real array .* got <U1"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(value, message):
    with pytest.raises(TypeError, match=message):
        as_image(value)


def test_arrays_of_other_packages_are_taken():
    class Picture:
        def __array__(self, dtype=None, copy=None):
            return np.eye(3, dtype=np.uint8)

    np.testing.assert_array_equal(as_array("image", Picture()), np.eye(3))


def test_arrays_are_neither_copied_nor_cast():
    image = np.zeros(GRAY, np.uint8)
    assert as_image(image) is image
    assert as_stacks(image, None, GRAY)[0].templates is image


def test_alpha_is_no_color():
    with pytest.raises(ValueError, match=r"image: .* \(40, 50, 4\); the fourth channel .* is alpha.*mask=template"):
        as_image(np.zeros((40, 50, 4)))
    with pytest.raises(ValueError, match=r"features: .* \(5, 6, 4\) for an image of shape \(40, 50, 3\); .*alpha"):
        as_stacks(np.zeros((5, 6, 4)), None, COLOR)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("as_list", [False, True])
def test_a_feature_with_channels_is_no_bank_of_gray_ones(channels, as_list):
    feature = np.zeros((30, 20, channels))
    message = rf"\(30, 20, {channels}\) for an image of shape \(40, 50\), which looks like one feature with {channels}"
    with pytest.raises(ValueError, match=message):
        as_stacks([feature] if as_list else feature, None, GRAY)


def test_narrow_gray_features_are_taken_as_a_list():
    stacks = as_stacks(list(noise(0, 5, 6, 3)), None, GRAY)
    assert [stack.shape for stack in stacks] == [(6, 3)] * 5


@pytest.mark.parametrize("feature", [np.zeros((5, 6)), [np.zeros((5, 6))]])
def test_a_gray_feature_for_a_color_image_is_refused(feature):
    with pytest.raises(
        ValueError, match=r"got shape \(5, 6\) for an image of shape \(40, 50, 3\); make the image gray"
    ):
        as_stacks(feature, None, COLOR)


def test_a_gray_bank_for_a_color_image_is_refused():
    with pytest.raises(ValueError, match=r"got shape \(7, 5, 6\) for an image of shape \(40, 50, 3\)"):
        as_stacks(np.zeros((7, 5, 6)), None, COLOR)


def test_a_feature_a_bank_and_a_list_are_told_apart():
    one = as_stacks(np.zeros((5, 6)), None, GRAY)
    bank = as_stacks(np.zeros((7, 5, 6)), None, GRAY)
    several = as_stacks((np.zeros((5, 6)), np.zeros((7, 6))), None, GRAY)
    color_bank = as_stacks(np.zeros((7, 5, 6, 3)), np.ones((7, 5, 6)), COLOR)
    assert [[(stack.indices, stack.shape) for stack in stacks] for stacks in (one, bank, several, color_bank)] == [
        [([0], (5, 6))],
        [(list(range(7)), (5, 6))],
        [([0], (5, 6)), ([1], (7, 6))],
        [(list(range(7)), (5, 6, 3))],
    ]


@pytest.mark.parametrize("fault", [np.nan, np.inf, -np.inf])
def test_a_pixel_that_is_not_finite_names_its_feature(fault):
    bank = noise(0, 4, 5, 6)
    bank[2, 1, 1] = fault
    with pytest.raises(ValueError, match="features: expected finite pixels, got NaN or infinity in feature 2; mask"):
        as_stacks(bank, None, GRAY)
    with pytest.raises(ValueError, match="in feature 2"):
        as_stacks(list(jnp.asarray(bank)), None, GRAY)


def test_pixels_that_are_masked_out_need_not_be_finite():
    feature = noise(0, 5, 6, 3)
    feature[1, 1, 2] = np.nan
    mask = np.ones((5, 6), bool)
    mask[1, 1] = False
    assert as_stacks(feature, mask, COLOR)[0].masks is mask
    with pytest.raises(ValueError, match="in feature 0"):
        as_stacks(feature, ~mask, COLOR)


def test_traced_features_are_not_looked_into():
    jax.eval_shape(lambda feature: as_stacks(feature, None, GRAY)[0].templates, jnp.full((5, 6), jnp.nan))


@pytest.mark.parametrize(
    ("features", "mask", "error", "message"),
    [
        ([], None, ValueError, "features: expected an array, or a list of at least one, got an empty list"),
        ([np.ones((2, 3))], [], ValueError, "mask: expected one mask for each feature, 1 in all, got 0$"),
        (np.ones((2, 5, 6)), np.ones((3, 5, 6)), ValueError, "one mask for each feature, 2 in all, got 3$"),
        (
            np.ones((5, 5, 6)),
            np.ones((5, 6)),
            ValueError,
            r"5 in all, got one of shape \(5, 6\); repeat it, as in mask=\[mask\] \* 5",
        ),
        ([np.ones((5, 6))] * 2, jnp.ones((5, 6)), ValueError, r"2 in all, got one of shape \(5, 6\); repeat it"),
        ([np.ones((5, 6))] * 2, np.ones(2), ValueError, r"2 in all, got one of shape \(2,\); repeat it"),
        (
            np.ones((5, 6)),
            [np.ones((5, 6))],
            ValueError,
            r"mask: expected an array for one feature of shape \(5, 6\), got a list of 1; pass a list of features",
        ),
        ([np.ones((2, 3))], [np.ones((3, 2))], ValueError, r"mask\[0\]: expected the shape of the feature, \(2, 3\)"),
        (np.ones((5, 6)), np.full((5, 6), "a"), TypeError, "mask: expected a real array"),
        (np.ones((5, 6)), [[1] * 6] * 5, TypeError, "mask: expected a real array .* got list"),
        ([[1.0, 2.0]], None, TypeError, r"features\[0\]: expected a real array .* got list"),
        (np.ones(5), None, ValueError, r"features: expected shape \(h, w\), got shape \(5,\) for an image"),
        (np.ones((0, 6)), None, ValueError, "features: expected at least one element"),
    ],
)
def test_wrong_features_and_masks_are_named(features, mask, error, message):
    with pytest.raises(error, match=message):
        as_stacks(features, mask, GRAY)


@pytest.mark.parametrize("weight", [np.nan, np.inf, -1])
@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_weights_are_finite_and_not_negative(weight, array):
    feature = noise(0, 5, 6)
    masks = np.ones((3, 5, 6), np.float32)
    masks[1, 2, 3] = weight
    message = r"expected finite weights of at least 0, got one that is negative, NaN or infinite"
    with pytest.raises(ValueError, match=r"^mask\[1\]: " + message):
        as_stacks(np.stack([feature] * 3), array(masks), GRAY)
    with pytest.raises(ValueError, match=r"^mask\[1\]: " + message):
        as_stacks([feature] * 3, list(array(masks)), GRAY)
    with pytest.raises(ValueError, match=r"^mask: " + message):
        as_stacks(feature, array(masks[1]), GRAY)


def test_some_pixel_of_a_feature_counts():
    feature = noise(0, 5, 6)
    masks = np.ones((3, 5, 6), bool)
    masks[2] = False
    message = "expected a weight above 0, got none; no pixel of the feature counts"
    with pytest.raises(ValueError, match=r"^mask\[2\]: " + message):
        as_stacks(np.stack([feature] * 3), masks, GRAY)
    with pytest.raises(ValueError, match=r"^mask\[2\]: " + message):
        as_stacks([feature] * 3, jnp.asarray(masks), GRAY)
    with pytest.raises(ValueError, match=r"^mask: " + message):
        as_stacks(feature, masks[2], GRAY)


def test_traced_masks_are_not_looked_into():
    jax.eval_shape(lambda mask: as_stacks(noise(0, 5, 6), mask, GRAY)[0].masks, jnp.full((5, 6), jnp.nan))


def test_a_stack_of_masks_goes_with_a_list_of_features():
    masks = np.ones((2, 5, 6), bool)
    stacks = as_stacks([noise(0, 5, 6)] * 2, masks, GRAY)
    np.testing.assert_array_equal(np.stack([np.asarray(stack.masks) for stack in stacks]), masks)


@pytest.mark.parametrize("hides", [False, True])
def test_masked_arrays_are_refused(hides):
    """What is masked out of them is lost in a plain array."""
    masked = np.ma.masked_array(noise(0, 5, 6), np.full((5, 6), hides))
    message = r"expected a plain array, got a MaskedArray, .*image.filled\(value\).*mask=~template.mask"
    with pytest.raises(TypeError, match="image: " + message):
        as_image(masked)
    with pytest.raises(TypeError, match="features: " + message):
        as_stacks(masked, None, GRAY)
    with pytest.raises(TypeError, match=r"mask: " + message):
        as_stacks(noise(0, 5, 6), masked, GRAY)


def test_messages_list_a_few_shapes():
    stacks = as_stacks([np.ones((n, 5)) for n in range(1, 9)] + [np.ones((1, 5))], None, GRAY)
    assert shapes_text(stacks) == "(1, 5), (2, 5), (3, 5), (4, 5), (5, 5), ..."
