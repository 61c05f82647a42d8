"""Convolutions in the forms for TPUs. Here they run on the CPU; what a TPU gets is read from the program for it."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import cnn_jax as cnn
from cnn_jax import _tpu_conv
from cnn_jax._padding import NO_PADDING
from cnn_jax._tpu_conv import band_conv, is_raised, row_conv, tpu_form
from tests.helpers import oracles
from tests.helpers.oracles import noise, whole

FORMS = [row_conv, band_conv]
PLAIN = {"stride": (1, 1), "padding": NO_PADDING, "dilation": (1, 1), "lhs_dilation": (1, 1)}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("stride", "dilation"), [((1, 1), (1, 1)), ((2, 3), (1, 1)), ((1, 1), (2, 3)), ((3, 2), (1, 2))]
)
def test_forms_equal_the_dot_products_of_windows(form, channels, stride, dilation):
    image, kernel = whole(0, 2, 9, 23, channels), whole(1, 3, 4, channels, 2)
    expected = [oracles.conv(single, kernel, stride=stride, dilation=dilation) for single in image]
    got = form(jnp.asarray(image), jnp.asarray(kernel), stride=stride, dilation=dilation, precision="highest")
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("matrix_side", [8, 20, 128])
def test_bands_of_any_number_of_blocks(monkeypatch, matrix_side):
    monkeypatch.setattr(_tpu_conv, "MATRIX_SIDE", matrix_side)
    for width in (4, 5, 19, 31):
        image, kernel = whole(width, 2, 6, width, 1), whole(1, 3, 4, 1, 3)
        expected = [oracles.conv(single, kernel) for single in image]
        got = band_conv(jnp.asarray(image), jnp.asarray(kernel), stride=(1, 1), dilation=(1, 1), precision=None)
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fault", [np.nan, np.inf])
def test_a_fault_spoils_only_the_windows_that_hold_it(form, fault):
    image, kernel = whole(0, 2, 9, 23, 1), whole(1, 3, 4, 1, 2)
    options = {"stride": (1, 2), "dilation": (2, 1), "precision": None}
    clean = np.asarray(form(jnp.asarray(image), jnp.asarray(kernel), **options))
    image[1, 4, 10] = fault
    got = np.asarray(form(jnp.asarray(image), jnp.asarray(kernel), **options))
    hit = np.zeros(got.shape, bool)
    hit[1, 0:5:2, 4:6] = True  # rows 0, 2 and 4 see row 4; columns 7 to 10, of every second one, see column 10
    assert not np.isfinite(got[hit]).any()
    np.testing.assert_array_equal(got[~hit], clean[~hit])


@pytest.mark.parametrize("form", FORMS)
def test_16_bits_add_up_in_float32(form):
    image, kernel = jnp.ones((1, 5, 260, 1), "bfloat16"), jnp.ones((2, 257, 1, 2), "bfloat16")
    out = form(image, kernel, stride=(1, 1), dilation=(1, 1), precision=None)
    assert (out.dtype, out.shape) == (jnp.float32, (1, 4, 4, 2))
    assert (out == 514).all()


@pytest.mark.parametrize(
    ("kernel", "form"),
    [
        ((9, 9, 1, 1), band_conv),
        ((9, 9, 1, 4), band_conv),
        ((9, 9, 1, 5), row_conv),
        ((9, 9, 1, 127), row_conv),
        ((9, 9, 1, 128), None),
        ((9, 9, 7, 18), row_conv),
        ((9, 9, 7, 19), None),
        ((9, 9, 8, 1), None),
        ((5, 5, 1, 1), None),
        ((26, 1, 1, 1), row_conv),
        ((64, 8, 1, 5), row_conv),
        ((65, 8, 1, 5), None),
        ((128, 128, 1, 8), band_conv),
        ((128, 129, 1, 1), None),
    ],
)
def test_choice_of_a_form(kernel, form):
    image = (1, 1000, 1200, kernel[2])
    assert tpu_form(image, kernel, precision="highest", **PLAIN) is form
    assert tpu_form(image, kernel, precision=None, **PLAIN) is None


@pytest.mark.parametrize("precision", ["highest", "high", lax.Precision.HIGH, ("default", "highest")])
def test_raised_precisions(precision):
    assert is_raised(precision)


@pytest.mark.parametrize(
    "precision", [None, "default", lax.Precision.DEFAULT, ("default", "bfloat16"), "BF16_BF16_F32"]
)
def test_precisions_of_one_pass(precision):
    assert not is_raised(precision)


def test_jax_may_raise_the_default():
    with jax.default_matmul_precision("highest"):
        assert is_raised(None)
        assert not is_raised("default")


@pytest.mark.parametrize(("side", "kernels", "form"), [(64, 1, "dot_general"), (11, 8, "convolution3")])
@pytest.mark.parametrize("method", ["conv", "auto"])
def test_only_tpus_get_a_form(side, kernels, form, method):
    """Also where "auto" takes another method for other devices."""
    arguments = noise(0, 480, 640), noise(1, kernels, side, side)
    score = jax.vmap(partial(cnn.match, method=method), (None, 0))
    assert products(score, arguments, "tpu") == [form]
    assert products(score, arguments, "cuda") == ([] if method == "auto" and side == 64 else ["convolution4"])


def test_maps_as_kernels_have_no_form():
    """In the gradient of a feature, the kernel is a map."""
    gradient = jax.grad(lambda feature, image: cnn.match(image, feature, method="conv").sum())
    assert products(gradient, (noise(0, 6, 6), noise(1, 20, 20)), "tpu") == ["convolution4"]


def products(function, arguments, platform):
    """The products of matrices and the convolutions of a program, these with the number of their axes."""
    text = jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
    convolutions = re.findall(r"stablehlo.convolution.*: \(tensor<([\dx]+)xf32>", text)
    dots = re.findall(r"stablehlo.(dot_general)", text)
    return [*dots, *(f"convolution{len(shape.split('x'))}" for shape in convolutions)]
