from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax._validation import (
    as_floats,
    as_pair,
    as_positive_shape,
    as_shape,
    broadcast_mask,
    check_arrays,
    check_bool,
    check_choice,
    check_image,
    check_int,
    check_mask,
    check_number,
    check_numbers,
    check_scalar,
    check_shape,
    check_threshold,
    to_floats,
)


@pytest.mark.parametrize(
    ("dtypes", "common"),
    [
        (["int8", "bool"], "float32"),
        (["bfloat16", "uint8"], "float32"),
        (["float16", "float16"], "float16"),
        (["bfloat16", "float16"], "float32"),
        (["float32", "bfloat16"], "float32"),
    ],
)
def test_arrays_become_floats_of_the_widest_dtype(dtypes, common):
    arrays = {f"array{i}": jnp.zeros(2, dtype) for i, dtype in enumerate(dtypes)}
    assert [array.dtype for array in as_floats(**arrays)] == [common] * len(dtypes)


def test_lists_and_numbers_are_arrays():
    (numbers,) = as_floats(numbers=[1, 2])
    (number,) = as_floats(number=3)
    np.testing.assert_array_equal(numbers, [1.0, 2.0])
    assert (number.shape, number.dtype) == ((), jnp.float32)


@pytest.mark.parametrize(
    ("value", "got"),
    [("x", "str"), (None, "NoneType"), (np.ones(2) * 1j, "complex"), (jnp.zeros(2, "float8_e4m3fn"), "float8_e4m3fn")],
)
def test_what_is_not_real_is_named(value, got):
    with pytest.raises(TypeError, match=rf"image: expected a real array \(floats of 16 bits or more, .*, got {got}"):
        as_floats(image=value)


def test_checked_arrays_stay_on_the_host_and_keep_their_dtype():
    image = np.zeros((2, 3), np.uint8)
    (checked,) = check_arrays(image=image)
    assert checked is image
    assert check_image(image) is image
    assert check_mask(image, (2, 3, 4)) is image
    with pytest.raises(TypeError, match=r"image: expected a real array .*, got ndarray"):
        check_arrays(image=image.astype(">f4"))  # JAX takes no swapped bytes


def test_checked_numbers_stay_numbers():
    half, numbers = check_numbers(half=0.5, numbers=[1, 2])
    assert half == 0.5
    assert isinstance(half, float)
    assert isinstance(numbers, jax.Array)
    assert check_scalar("p", 0.5) == 0.5
    with pytest.raises(TypeError, match="half: expected a real array"):
        check_numbers(half=0.5j)


def test_a_number_does_not_widen_arrays():
    half, image = jax.jit(to_floats)(0.5, jnp.zeros(2, "bfloat16"))
    assert (half.dtype, image.dtype) == (jnp.bfloat16, jnp.bfloat16)


def test_ranks_and_empty_arrays_are_checked():
    check_shape("image", jnp.ones((2, 3)), "H W", "H W C")
    with pytest.raises(ValueError, match=r"image: expected shape \(H, W\) or \(H, W, C\), got \(2,\); use jax.vmap"):
        check_shape("image", jnp.ones(2), "H W", "H W C")
    with pytest.raises(ValueError, match=r"image: expected at least one element, got the empty shape \(0, 3\)"):
        check_shape("image", jnp.ones((0, 3)), "H W")


@pytest.mark.parametrize("value", [2, np.int64(2), (2, 2), [np.int8(2), 2]])
def test_one_int_is_meant_for_both_axes(value):
    assert as_pair("stride", value) == (2, 2)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0, ValueError, "stride: expected at least 1, got 0"),
        ((1, -2), ValueError, r"stride: expected at least 1, got \(1, -2\)"),
        (1.0, TypeError, "stride: expected an int or two ints, got 1.0"),
        ((2,), TypeError, r"stride: expected an int or two ints, got \(2,\)"),
        ("22", TypeError, "stride: expected an int or two ints, got '22'"),
    ],
)
def test_what_is_no_pair_is_named(value, error, message):
    with pytest.raises(error, match=message):
        as_pair("stride", value)


def test_scalars_are_one_number():
    assert check_scalar("p", 2) == 2
    with pytest.raises(ValueError, match=r"p: expected one number, got shape \(2,\); use jax.vmap for several"):
        check_scalar("p", np.ones(2))


def test_masked_arrays_are_refused():
    with pytest.raises(
        TypeError, match="image: expected a plain array, got a MaskedArray, whose mask would be ignored"
    ):
        check_image(np.ma.masked_array(np.ones((2, 3)), np.eye(2, 3) > 0))


@pytest.mark.parametrize("weight", [np.nan, np.inf, -1])
def test_weights_are_finite_and_not_negative(weight):
    for array in (np.asarray, jnp.asarray):
        with pytest.raises(ValueError, match="mask: expected finite weights of at least 0, got one that is negative"):
            check_mask(array([[1.0, weight]]), (1, 2))
    jax.eval_shape(lambda mask: check_mask(mask, (1, 2)), jnp.array([[1.0, weight]]))
    check_mask(np.zeros((1, 2)), (1, 2))
    check_mask(np.array([[1, -1]]), (1, 2))


def test_thresholds_are_no_nan():
    assert check_threshold("limit", -np.inf) == -np.inf
    assert jnp.isnan(check_threshold("limit", jnp.array(np.nan)))
    for nan in (float("nan"), np.float32("nan"), np.array(np.nan)):
        with pytest.raises(ValueError, match=r"limit: expected a number, got .*nan"):
            check_threshold("limit", nan)
    with pytest.raises(ValueError, match="limit: expected at least 0, got -1"):
        check_threshold("limit", -1, "at least 0", lambda value: value >= 0)


def test_ints_have_a_minimum():
    assert check_int("steps", np.int64(1)) == 1
    assert check_int("seed", 0, minimum=0) == 0
    with pytest.raises(ValueError, match="steps: expected at least 1, got 0"):
        check_int("steps", 0)
    with pytest.raises(TypeError, match=r"steps: expected an int, got 1\.5"):
        check_int("steps", 1.5)


def test_bools_are_python_bools():
    assert check_bool("per_feature", True) is True
    for value in (1, None, jnp.array(True)):
        with pytest.raises(TypeError, match="per_feature: expected True or False, got"):
            check_bool("per_feature", value)


def test_numbers_are_finite_and_accepted():
    assert check_number("rate", np.float32(0.5)) == 0.5
    assert check_number("rate", jnp.asarray(0.5)) == 0.5
    for wrong in (float("nan"), float("inf"), -1):
        with pytest.raises(ValueError, match="rate: expected a number of at least 0, got"):
            check_number("rate", wrong, "a number of at least 0", lambda rate: rate >= 0)
    not_numbers: list[Any] = ["1", None, np.ones(2)]
    for wrong in not_numbers:
        with pytest.raises(TypeError, match="rate: expected a finite number, got"):
            check_number("rate", wrong)


def test_traced_numbers_pass_unchecked():
    def twice(rate):
        return 2 * check_number("rate", rate, "no number", lambda rate: False)

    assert jax.eval_shape(twice, jax.ShapeDtypeStruct((), "float32")).shape == ()
    with pytest.raises(TypeError, match="rate: expected no number"):
        jax.eval_shape(twice, jax.ShapeDtypeStruct((2,), "float32"))


def test_choices_are_named():
    assert check_choice("fill", "edge", ("edge", "reflect")) == "edge"
    with pytest.raises(ValueError, match=r"fill: expected one of \('edge', 'reflect'\), got 'wrap'"):
        check_choice("fill", "wrap", ("edge", "reflect"))


def test_shapes_are_ints():
    assert as_shape((np.int64(3), 4)) == (3, 4)
    assert as_positive_shape([3, 4]) == (3, 4)
    assert as_positive_shape(()) == ()
    with pytest.raises(TypeError, match=r"shape: expected ints such as \(H, W, C\), got 3; init takes \(key, shape\)"):
        as_shape(3)
    with pytest.raises(TypeError, match=r"shape: expected ints .*, got \(3, 0.5\)$"):
        as_positive_shape((3, 0.5))
    with pytest.raises(ValueError, match=r"shape: expected sizes of at least 1, got \(3, 0\)"):
        as_positive_shape((3, 0))


def test_masks_are_broadcast_over_channels():
    mask = np.array([[1, 0], [2, 1]])
    spread = broadcast_mask(mask, (2, 2, 3))
    assert (spread.shape, spread.dtype) == ((2, 2, 3), jnp.bool_)
    np.testing.assert_array_equal(spread[..., 2], mask != 0)
    weights = broadcast_mask(mask / 2, (2, 2))
    np.testing.assert_array_equal(weights, mask / 2)
    with pytest.raises(
        ValueError, match=r"mask: expected the shape of the feature, \(2, 3, 1\) or \(2, 3\), got \(2, 2\)"
    ):
        broadcast_mask(mask, (2, 3, 1))
