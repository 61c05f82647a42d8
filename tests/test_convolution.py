from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

import cnn_jax as cnn
from cnn_jax._algorithms import METHODS
from tests.helpers import oracles
from tests.helpers.oracles import LAYOUTS, assert_same, layout_id, layouts, noise, seeds, whole, windows_with

DILATED: list[dict[str, Any]] = [
    layout | {"dilation": dilation} for layout, dilation in zip(LAYOUTS, [1, (1, 2), 1, (2, 1)], strict=True)
]


def conv_by_all_methods(image, kernel, **options):
    return {method: cnn.conv(image, kernel, method=method, **options) for method in METHODS}


by_all_methods = jax.jit(conv_by_all_methods, static_argnames=("stride", "padding", "dilation", "precision"))


@pytest.mark.parametrize("layout", DILATED, ids=layout_id)
@pytest.mark.parametrize("kernels", [1, 3])
def test_conv_equals_the_reference(layout, kernels):
    options = dict(layout)
    shape, window = options.pop("shape"), options.pop("window")
    for seed in range(3):
        image, kernel = whole(seed, *shape, 2), whole(seed + 1, *window, 2, kernels)
        expected = oracles.conv(image, kernel, **options)
        for method, got in by_all_methods(image, kernel, **options).items():
            assert_same(got, expected, method)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@given(
    layout=layouts(dilated=True, wide_border=True), channels=st.integers(1, 3), kernels=st.integers(1, 3), seed=seeds
)
def test_conv_equals_the_reference_for_drawn_layouts(method, layout, channels, kernels, seed):
    shape, window = layout.pop("shape"), layout.pop("window")
    image, kernel = whole(seed, *shape, channels), whole(seed + 1, *window, channels, kernels)
    got = jax.jit(partial(cnn.conv, method=method, **layout))(image, kernel)
    assert_same(got, oracles.conv(image, kernel, **layout), method)


@pytest.mark.parametrize("method", ["auto", "conv"])
@pytest.mark.parametrize(("groups", "channels", "kernels"), [(2, 1, 2), (3, 2, 6), (4, 1, 4)])
def test_groups_equal_the_reference(method, groups, channels, kernels):
    image, kernel = whole(0, 5, 4, groups * channels), whole(1, 2, 3, channels, kernels)
    got = cnn.conv(image, kernel, groups=groups, method=method)
    np.testing.assert_array_equal(got, oracles.conv(image, kernel, groups=groups))


# "auto" takes im2col, shift, conv and shift here.
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((8, 16, 1, 2), marks=pytest.mark.slow),
        pytest.param((8, 17, 1, 2), marks=pytest.mark.slow),
        (2, 2, 32, 3),
        (2, 2, 33, 3),
        pytest.param((1, 1, 200, 1), marks=pytest.mark.slow),
    ],
)
def test_auto_equals_the_reference_whatever_it_chooses(shape):
    image, kernel = whole(0, 9, 18, shape[2]), whole(1, *shape)
    np.testing.assert_array_equal(cnn.conv(image, kernel), oracles.conv(image, kernel))


@pytest.mark.usefixtures("optimized")
def test_conv_of_noise_is_accurate():
    image, kernel = noise(0, 9, 8, 3), noise(1, 4, 3, 3, 4)
    expected = oracles.conv(image, kernel)
    for method, got in by_all_methods(image, kernel, precision="highest").items():
        np.testing.assert_allclose(got, expected, atol=1e-5, err_msg=method)


def test_int_options_mean_both_axes():
    image, kernel = whole(0, 8, 9, 1), whole(1, 2, 3, 1, 1)
    both = cnn.conv(image, kernel, stride=(2, 2), dilation=[2, 2], method="conv")
    np.testing.assert_array_equal(cnn.conv(image, kernel, stride=2, dilation=2, method="conv"), both)


def test_a_nan_spoils_only_the_dot_products_that_hold_it():
    layout = DILATED[0]
    image, kernel = whole(0, *layout["shape"], 2), whole(1, *layout["window"], 2, 3)
    options = {name: layout[name] for name in ("stride", "padding", "dilation")}
    clean = by_all_methods(image, kernel, **options)
    marked = np.zeros(layout["shape"])
    marked[2, 4] = 1
    hit = oracles.pool(marked, np.max, window=layout["window"], stride=1) == 1
    image[2, 4, 1] = np.nan
    for method, got in by_all_methods(image, kernel, **options).items():
        got = np.asarray(got)
        assert np.isnan(got[hit]).all(), method
        assert_same(got[~hit], np.asarray(clean[method])[~hit], method)


def check_gradients(method, order):
    image, kernel = noise(0, 3, 4, 1), noise(1, 2, 2, 1, 2)
    conv = partial(cnn.conv, stride=(1, 2), padding="SAME", method=method)
    with jax.enable_x64(True):
        arguments = image.astype(np.float64), kernel.astype(np.float64)
        check_grads(jax.jit(conv), arguments, order=order, modes=["fwd", "rev"], rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_agree_with_differences(method):
    check_gradients(method, order=1)


@pytest.mark.parametrize(
    "method", ["conv", *(pytest.param(method, marks=pytest.mark.slow) for method in METHODS if method != "conv")]
)
def test_second_derivatives_agree_with_differences(method):
    check_gradients(method, order=2)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"stride": 2, "padding": "CEIL"}, marks=pytest.mark.slow),
        {"stride": (1, 2), "dilation": (2, 1), "padding": ((1, 2), (0, 3))},
    ],
)
def test_gradients_of_all_methods_are_equal(options):
    image, kernel = whole(0, 6, 7, 2), whole(1, 3, 2, 2, 3)

    def loss(image, kernel, method):
        out = cnn.conv(image, kernel, method=method, **options)
        return jnp.sum(out * jnp.cos(jnp.arange(out.size).reshape(out.shape)))

    @jax.jit
    def gradients(image, kernel):
        return {method: jax.grad(loss, (0, 1))(image, kernel, method) for method in METHODS}

    by_method = gradients(image, kernel)
    for method in METHODS:
        for got, plain in zip(by_method[method], by_method["conv"], strict=True):
            np.testing.assert_allclose(got, plain, rtol=1e-5, atol=1e-4 if method == "fft" else 1e-5)


def test_a_constant_argument_may_be_an_integer():
    image, kernel = whole(0, 5, 5, 1), whole(1, 3, 3, 1, 1)

    @jax.jit
    def gradients(kernel, image):
        return {
            method: jax.grad(lambda k, method=method: cnn.conv(image, k, method=method).sum())(kernel)
            for method in METHODS
        }

    expected = oracles.pool(image, np.sum, window=3, stride=1)
    for method, got in gradients(kernel, image.astype(np.int32)).items():
        assert_same(got[..., 0], expected, method)


FUNCTIONS = [
    jax.jit(lambda x: cnn.conv(x[..., None], x[:2, :2, None, None])),
    jax.jit(lambda x: cnn.window_sum(x, 2)),
]


@pytest.mark.parametrize("dtype", ["uint8", "bool", "int32", "int8"])
@pytest.mark.parametrize("function", FUNCTIONS, ids=["conv", "window_sum"])
def test_integers_and_bools_become_float32(function, dtype):
    image = (np.arange(20).reshape(4, 5) % 3).astype(dtype)
    got = function(image)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, function(image.astype(np.float32)))


@pytest.mark.parametrize(
    ("dtypes", "wider"),
    [
        (("bfloat16", "float32"), "float32"),
        (("float32", "float16"), "float32"),
        (("bfloat16", "float16"), "float32"),
        (("uint8", "float32"), "float32"),
        (("bfloat16", "bfloat16"), "bfloat16"),
    ],
)
def test_the_wider_dtype_of_image_and_kernel_wins(dtypes, wider):
    image = jax.ShapeDtypeStruct((3, 3, 1), dtypes[0])
    kernel = jax.ShapeDtypeStruct((2, 2, 1, 1), dtypes[1])
    assert jax.eval_shape(cnn.conv, image, kernel).dtype == wider


def cancelling(dtype):
    """16 numbers that add up to 8, each 1 beside numbers so large that a 16-bit sum would lose it."""
    large = 4 / float(jnp.finfo(dtype).eps)
    numbers = np.array([large] * 4 + [-large] * 4 + [1.0] * 8)
    return jnp.asarray(np.random.default_rng(0).permutation(numbers).reshape(4, 4), dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def test_16_bit_floats_add_up_in_float32(dtype):
    image = cancelling(dtype)
    assert image.reshape(-1).sum(dtype=dtype) != 8  # a 16-bit sum is wrong

    @jax.jit
    def sums(image):
        ones = jnp.ones((4, 4, 1, 1), dtype)
        out = [cnn.window_sum(image, 4)[0, 0]]
        for method in METHODS:
            conv = partial(cnn.conv, image[..., None], method=method)
            out.append(conv(ones)[0, 0, 0])
            out.append(jax.grad(lambda kernel, conv=conv: conv(kernel).sum())(ones[:1, :1])[0, 0, 0, 0])
        return out

    assert [(float(total), total.dtype) for total in sums(image)] == [(8.0, jnp.dtype(dtype))] * (1 + 2 * len(METHODS))


def test_float64_stays_float64():
    image, kernel = noise(0, 5, 6, 2).astype(np.float64), noise(1, 3, 2, 2, 2).astype(np.float64)
    with jax.enable_x64(True):
        results = by_all_methods(image, kernel)
        sums = cnn.window_sum(image, 3)
    expected = oracles.conv(image, kernel)
    for got in results.values():
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-13)
    assert sums.dtype == np.float64
    np.testing.assert_allclose(sums, oracles.pool(image, np.sum, window=3, stride=1), rtol=1e-12, atol=1e-13)


TRANSPOSED: list[dict[str, Any]] = [
    {},
    {"stride": 2},
    {"stride": (3, 1), "padding": "SAME"},
    {"stride": (1, 2), "padding": "CEIL"},
    {"stride": 2, "padding": ((1, 0), (0, 2))},
]


@pytest.mark.parametrize("options", TRANSPOSED, ids=str)
def test_conv_transpose_equals_the_reference_and_is_the_transpose_of_conv(options):
    image, kernel = whole(0, 3, 4, 2), whole(1, 2, 3, 2, 5)
    out = cnn.conv_transpose(image, kernel, **options)
    np.testing.assert_array_equal(out, oracles.conv_transpose(image, kernel, **options))
    other = whole(2, *out.shape)
    back = cnn.conv(other, jnp.swapaxes(kernel, 2, 3), **options)
    assert back.shape == image.shape
    assert float(jnp.vdot(out, other)) == float(jnp.vdot(image, back))


@pytest.mark.parametrize("method", METHODS)
def test_conv_transpose_by_every_method_batched_and_differentiated(method):
    images, kernel = whole(0, 2, 3, 4, 2), whole(1, 2, 3, 2, 5)
    function = partial(cnn.conv_transpose, stride=2, method=method)
    batch = jax.jit(jax.vmap(function, (0, None)))
    assert_same(batch(images, kernel)[1], oracles.conv_transpose(images[1], kernel, stride=2), method)
    if method == "auto":
        check_grads(
            batch, (jnp.asarray(images), jnp.asarray(kernel)), order=1, modes=["fwd", "rev"], atol=0.1, rtol=0.1
        )


def test_conv_transpose_of_a_batch_is_one_dense_convolution():
    images, kernel = whole(0, 2, 3, 4, 2), whole(1, 2, 3, 2, 5)
    assert oracles.convolutions(jax.vmap(partial(cnn.conv_transpose, stride=2), (0, None)), images, kernel) == [True]


def test_16_bit_floats_stay_16_bit_floats_in_conv_transpose():
    out = cnn.conv_transpose(jnp.ones((3, 3, 1), jnp.bfloat16), jnp.ones((2, 2, 1, 1), jnp.bfloat16))
    assert out.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("image", "kernel", "options", "error", "message"),
    [
        ((3, 3), (2, 2, 1, 1), {}, ValueError, r"image: expected shape \(H, W, C\)"),
        ((3, 3, 2), (2, 2, 1), {}, ValueError, r"kernel: expected shape \(h, w, C, K\)"),
        ((3, 3, 2), (2, 2, 1, 4), {}, ValueError, r"kernel: expected shape \(h, w, 2, K\), got \(2, 2, 1, 4\)"),
        ((3, 3, 2), (2, 2, 2, 4), {"stride": 0}, ValueError, "stride: .*0"),
        ((3, 3, 2), (2, 2, 2, 4), {"padding": "FULL"}, ValueError, "padding: .*FULL"),
        ((1, 3, 2), (2, 2, 2, 4), {"padding": ((1, 1), (0, 0))}, ValueError, "padding: expected less than .* output"),
        ((3, 3, 2), (2, 2, 2, 4), {"method": "magic"}, ValueError, "method: .*magic"),
    ],
)
def test_conv_transpose_names_the_wrong_argument(image, kernel, options, error, message):
    with pytest.raises(error, match=message):
        cnn.conv_transpose(np.ones(image), np.ones(kernel), **options)


@pytest.mark.parametrize("layout", LAYOUTS, ids=layout_id)
@pytest.mark.parametrize("channels", [(), (3,)])
def test_window_sum_equals_the_reference(layout, channels):
    options = dict(layout)
    image = whole(0, *options.pop("shape"), *channels)
    got = jax.jit(partial(cnn.window_sum, **options))(image)
    np.testing.assert_array_equal(got, oracles.pool(image, np.sum, **options))


@pytest.mark.slow
@given(layout=layouts(wide_border=True), channels=st.sampled_from([(), (1,), (3,)]), seed=seeds)
def test_window_sum_equals_the_reference_for_drawn_layouts(layout, channels, seed):
    image = whole(seed, *layout.pop("shape"), *channels)
    got = jax.jit(partial(cnn.window_sum, **layout))(image)
    np.testing.assert_array_equal(got, oracles.pool(image, np.sum, **layout))


def test_window_sum_takes_windows_of_any_length():
    image = whole(0, 1, 33)
    lengths = (7, 12, 31)
    sums = jax.jit(lambda image: [cnn.window_sum(image, (1, length)) for length in lengths])(image)
    for length, got in zip(lengths, sums, strict=True):
        np.testing.assert_array_equal(got, oracles.pool(image, np.sum, window=(1, length), stride=1))


def test_a_bad_pixel_spoils_only_the_sums_that_hold_it():
    run = jax.jit(partial(cnn.window_sum, window=3))
    for pixel in [(0, 0), (3, 4), (6, 7)]:
        image = whole(0, 7, 8)
        clean, hit = np.asarray(run(image)), windows_with(pixel, (7, 8), 3)
        for bad in (np.nan, np.inf, 1e30):
            image[pixel] = bad
            got = np.asarray(run(image))
            np.testing.assert_array_equal(got[~hit], clean[~hit])
            np.testing.assert_array_equal(got[hit], np.float32(bad))


IMAGE, KERNEL = np.ones((6, 7, 2), np.float32), np.ones((3, 3, 2, 4), np.float32)
CONV_ERRORS = [
    ({"image": IMAGE[0]}, ValueError, r"image: .*\(H, W, C\), got \(7, 2\)"),
    ({"image": IMAGE[None]}, ValueError, r"image: .*\(H, W, C\), got \(1, 6, 7, 2\); use jax.vmap"),
    ({"image": IMAGE[:0]}, ValueError, r"image: .*empty shape \(0, 7, 2\)"),
    ({"image": IMAGE * 1j}, TypeError, "image: expected a real array .*, got complex64"),
    ({"image": "x"}, TypeError, "image: expected a real array .*, got str"),
    ({"image": None}, TypeError, "image: expected a real array .*, got NoneType"),
    ({"kernel": KERNEL[0]}, ValueError, r"kernel: .*\(h, w, C, K\), got \(3, 2, 4\)"),
    ({"kernel": KERNEL[..., :0]}, ValueError, r"kernel: .*empty shape \(3, 3, 2, 0\)"),
    ({"kernel": KERNEL * 1j}, TypeError, "kernel: expected a real array .*, got complex64"),
    ({"kernel": KERNEL[:, :, :1]}, ValueError, r"kernel: expected .*groups.*, got \(3, 3, 1, 4\)"),
    ({"image": IMAGE[:2]}, ValueError, r"kernel: expected at most .* padded image \(2, 7\), got \(3, 3\)"),
    ({"dilation": 3}, ValueError, r"kernel: .* padded image \(6, 7\), got \(7, 7\) \(padding='VALID'\)"),
    ({"padding": "FULL"}, ValueError, "padding: expected 'VALID', 'SAME', 'CEIL' or .*, got 'FULL'"),
    ({"padding": 1}, TypeError, "padding: expected 'VALID'.*, got 1"),
    ({"padding": ((1, 1),)}, ValueError, r"padding: expected 'VALID'.*, got \(\(1, 1\),\)"),
    ({"padding": ((1, 1), (-1, 0))}, ValueError, "padding: .*none negative, got"),
    ({"padding": ((1, 1), (0.5, 0))}, TypeError, "padding: expected 'VALID'"),
    ({"stride": 0}, ValueError, "stride: expected at least 1, got 0"),
    ({"stride": (1, -2)}, ValueError, r"stride: expected at least 1, got \(1, -2\)"),
    ({"stride": 1.0}, TypeError, "stride: expected an int or two ints, got 1.0"),
    ({"stride": (1, 1, 1)}, TypeError, r"stride: expected an int or two ints, got \(1, 1, 1\)"),
    ({"dilation": 0}, ValueError, "dilation: expected at least 1, got 0"),
    ({"groups": 0}, ValueError, "groups: expected at least 1, got 0"),
    ({"groups": (2, 7), "kernel": KERNEL[:, :, :1]}, TypeError, "groups"),
    ({"groups": 3}, ValueError, r"kernel: expected .*groups = 3, got \(3, 3, 2, 4\)"),
    ({"kernel": KERNEL[:, :, :1, :3], "groups": 2}, ValueError, "groups: expected a divisor of the 3 kernels, got 2"),
    ({"kernel": KERNEL[:, :, :1], "groups": 2, "method": "shift"}, ValueError, "groups: expected 1 .*, got 2"),
    ({"kernel": KERNEL[:, :, :1], "groups": 2, "method": "fft"}, ValueError, "groups: expected 1 .*, got 2"),
    ({"method": "magic"}, ValueError, "method: expected one of .*'auto'.*, got 'magic'"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), CONV_ERRORS)
def test_conv_names_the_wrong_argument(wrong, error, message):
    arguments = {"image": IMAGE, "kernel": KERNEL} | wrong
    with pytest.raises(error, match=message):
        cnn.conv(arguments.pop("image"), arguments.pop("kernel"), **arguments)


WINDOW_SUM_ERRORS = [
    (IMAGE[0, 0], 2, {}, ValueError, r"image: .*\(H, W\) or \(H, W, C\), got \(2,\)"),
    (IMAGE[..., :0], 2, {}, ValueError, "image: .*empty"),
    (IMAGE, 7, {}, ValueError, r"window: expected at most .* padded image \(6, 7\), got \(7, 7\)"),
    (IMAGE, 0, {}, ValueError, "window: expected at least 1, got 0"),
    (IMAGE, 2.5, {}, TypeError, "window: expected an int or two ints, got 2.5"),
    (IMAGE, 2, {"stride": -1}, ValueError, "stride: expected at least 1, got -1"),
    (IMAGE, 2, {"padding": "valid"}, ValueError, "padding: expected 'VALID'.*, got 'valid'"),
]


@pytest.mark.parametrize(("image", "window", "options", "error", "message"), WINDOW_SUM_ERRORS)
def test_window_sum_names_the_wrong_argument(image, window, options, error, message):
    with pytest.raises(error, match=message):
        cnn.window_sum(image, window, **options)
