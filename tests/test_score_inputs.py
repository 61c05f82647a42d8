"""Arguments of scores: what is refused, and what the others become."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax as cnn
from cnn_jax._score_inputs import ScoreInputs, check_score_arguments, prepare_score_inputs
from tests.helpers.oracles import NAMES, noise

IMAGE = np.ones((6, 7))
FEATURE = np.ones((3, 3))


def checked(image: Any, feature: Any, **options: Any) -> ScoreInputs:
    defaults = {"mask": None, "stride": 1, "padding": "VALID", "fill": 0.0, "method": "auto", "precision": None}
    return prepare_score_inputs(*check_score_arguments(image, feature, **defaults | options))


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_images_features_and_masks_have_channels(channels):
    mask = np.ones((3, 3), bool)
    inputs = checked(noise(0, 6, 7, *channels), noise(1, 3, 3, *channels), mask=mask)
    channel_count = channels[0] if channels else 1
    assert inputs.mask is not None
    assert inputs.image.shape == (6, 7, channel_count)
    assert inputs.mask is not None
    assert inputs.feature.shape == inputs.mask.shape == (3, 3, channel_count)
    assert inputs.window == (3, 3)


@pytest.mark.parametrize(
    ("dtype", "out_dtype", "accumulation_dtype"),
    [
        ("float32", "float32", "float32"),
        ("bfloat16", "bfloat16", "float32"),
        ("float16", "float16", "float32"),
        ("uint8", "float32", "float32"),
        ("int32", "float32", "float32"),
        ("bool", "float32", "float32"),
    ],
)
def test_all_arrays_are_in_the_dtype_to_accumulate_in(dtype, out_dtype, accumulation_dtype):
    inputs = checked(jnp.ones((6, 7), dtype), jnp.ones((3, 3), dtype), mask=np.ones((3, 3), bool))
    assert inputs.mask is not None
    assert inputs.out_dtype == out_dtype
    assert {array.dtype.name for array in (inputs.image, inputs.feature, inputs.mask)} == {accumulation_dtype}


def test_a_mask_of_rows_and_columns_counts_for_all_channels():
    mask = noise(2, 3, 3) > 0
    inputs = checked(noise(0, 6, 7, 2), noise(1, 3, 3, 2), mask=mask)
    np.testing.assert_array_equal(inputs.mask, np.repeat(mask[..., None], 2, axis=2).astype(np.float32))


@pytest.mark.parametrize(
    ("mask", "weights", "is_binary"),
    [
        ([[True, False, True]], [1, 0, 1], True),
        ([[7, 0, -1]], [1, 0, 1], True),
        ([[0.5, 0.0, 2.0]], [0.5, 0, 2], False),
    ],
)
def test_integer_masks_are_binary_and_float_masks_are_weights(mask, weights, is_binary):
    inputs = checked(IMAGE, np.ones((1, 3)), mask=np.array(mask))
    assert inputs.mask is not None
    assert inputs.mask[0, :, 0].tolist() == weights
    assert inputs.is_binary_mask is is_binary


@pytest.mark.parametrize(
    ("fill", "options"),
    [(2.5, {"constant_values": 2.5}), ("edge", {"mode": "edge"}), ("reflect", {"mode": "reflect"})],
)
def test_the_image_is_padded_with_the_fill(fill, options):
    image = noise(0, 6, 7)
    inputs = checked(image, FEATURE, padding=((2, 0), (1, 3)), fill=fill)
    np.testing.assert_array_equal(inputs.image[..., 0], np.pad(image, ((2, 0), (1, 3)), **options))


def test_options_are_handed_on():
    options = checked(IMAGE, FEATURE, stride=(2, 3), method="fft", precision="high").options
    assert options == ((2, 3), "fft", "high")


ERRORS = [
    ({"image": IMAGE[0]}, ValueError, r"image: .*\(H, W\) or \(H, W, C\), got \(7,\)"),
    ({"image": IMAGE[:0]}, ValueError, r"image: .*empty shape \(0, 7\)"),
    ({"image": IMAGE.astype(np.complex64)}, TypeError, "image: expected a real array .*, got complex64"),
    ({"feature": FEATURE[0]}, ValueError, r"feature: .*\(h, w\) or \(h, w, C\), got \(3,\)"),
    ({"feature": FEATURE[:, :0]}, ValueError, r"feature: .*empty shape \(3, 0\)"),
    ({"feature": FEATURE.astype(np.complex64)}, TypeError, "feature: expected a real array .*, got complex64"),
    ({"feature": [[1, 2], [3]]}, TypeError, "feature: expected a real array .*, got list"),
    ({"feature": FEATURE[..., None]}, ValueError, r"feature: expected the channels .*\(6, 7\), got shape \(3, 3, 1\)"),
    (
        {"image": IMAGE[..., None].repeat(2, 2), "feature": FEATURE[..., None]},
        ValueError,
        r"feature: expected the channels .*\(6, 7, 2\), got shape \(3, 3, 1\)",
    ),
    ({"feature": np.ones((7, 1))}, ValueError, r"feature: expected at most the size .* image \(6, 7\), got \(7, 1\)"),
    ({"feature": np.ones((1, 8)), "padding": "SAME"}, ValueError, r"feature: .* image \(6, 7\), got \(1, 8\)"),
    ({"stride": 0}, ValueError, "stride: expected at least 1, got 0"),
    ({"stride": "2"}, TypeError, "stride: expected an int or two ints, got '2'"),
    ({"padding": "FULL"}, ValueError, "padding: expected 'VALID', 'SAME', 'CEIL' or .*, got 'FULL'"),
    ({"mask": np.ones((3, 4))}, ValueError, r"mask: expected the shape of the feature, \(3, 3\), got \(3, 4\)"),
    ({"mask": np.ones(3)}, ValueError, r"mask: expected the shape of the feature, \(3, 3\), got \(3,\)"),
    ({"mask": 1j * np.ones((3, 3))}, TypeError, "mask: expected a real array"),
    ({"fill": "wrap"}, ValueError, "fill: expected a number, 'edge' or 'reflect', got 'wrap'"),
    ({"fill": None}, TypeError, "fill: expected a number, 'edge' or 'reflect', got None"),
    ({"method": "magic"}, ValueError, "method: expected one of .*'auto'.*, got 'magic'"),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("wrong", "error", "message"), ERRORS)
def test_scores_name_the_wrong_argument(name, wrong, error, message):
    arguments = {"image": IMAGE, "feature": FEATURE} | wrong
    with pytest.raises(error, match=message):
        getattr(cnn, name)(arguments.pop("image"), arguments.pop("feature"), **arguments)
