from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

import cnn_jax as cnn
from tests.helpers import oracles
from tests.helpers.oracles import assert_same, layouts, noise, seeds, whole

METHODS = ("auto", "conv", "shift", "im2col", "fft")
LAYOUT = {"window_strides": (1, 1), "padding": "VALID", "dimension_numbers": ("NHWC", "HWIO", "NHWC")}


@pytest.mark.parametrize("method", METHODS)
@given(
    layout=layouts(dilated=True, wide_border=True), channels=st.integers(1, 3), kernels=st.integers(1, 3), seed=seeds
)
def test_conv_equals_the_reference(method, layout, channels, kernels, seed):
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


# "auto" must not change its answer where it changes its algorithm: 128 products an output, one channel and many.
@pytest.mark.parametrize("shape", [(8, 16, 1, 2), (8, 17, 1, 2), (2, 2, 32, 3), (2, 2, 33, 3), (1, 1, 200, 1)])
def test_auto_equals_the_reference_on_both_sides_of_its_choice(shape):
    image, kernel = whole(0, 9, 18, shape[2]), whole(1, *shape)
    np.testing.assert_array_equal(cnn.conv(image, kernel), oracles.conv(image, kernel))


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("method", METHODS)
def test_conv_of_noise_is_accurate(method):
    image, kernel = noise(0, 9, 8, 3), noise(1, 5, 5, 3, 4)
    got = cnn.conv(image, kernel, method=method, precision="highest")
    np.testing.assert_allclose(got, oracles.conv(image, kernel), atol=1e-5)


def test_int_options_mean_both_axes():
    image, kernel = whole(0, 8, 9, 1), whole(1, 2, 3, 1, 1)
    both = cnn.conv(image, kernel, stride=(2, 2), dilation=[2, 2])
    np.testing.assert_array_equal(cnn.conv(image, kernel, stride=2, dilation=np.int64(2)), both)


@given(layout=layouts(wide_border=True), channels=st.sampled_from([(), (1,), (3,)]), seed=seeds)
def test_window_sum_equals_the_reference(layout, channels, seed):
    image = whole(seed, *layout.pop("shape"), *channels)
    got = jax.jit(partial(cnn.window_sum, **layout))(image)
    np.testing.assert_array_equal(got, oracles.pool(image, np.sum, **layout))


def test_window_sum_takes_windows_of_any_length():
    image = whole(0, 1, 33)
    for window in (7, 12, 31):
        got = cnn.window_sum(image, (1, window))
        np.testing.assert_array_equal(got, oracles.pool(image, np.sum, window=(1, window), stride=1))


def holders(shape, place, window):
    """Which VALID windows hold the pixel."""
    spot = np.zeros(shape)
    spot[place] = 1
    return oracles.pool(spot, np.max, window=window, stride=1) == 1


@pytest.mark.parametrize("place", [(0, 0), (3, 4), (6, 7)])
def test_a_bad_pixel_spoils_only_the_sums_that_hold_it(place):
    image = whole(0, 7, 8)
    clean, hit = cnn.window_sum(image, 3), holders(image.shape, place, 3)
    for bad in (np.nan, np.inf, 1e30):
        image[place] = bad
        got = np.asarray(cnn.window_sum(image, 3))
        np.testing.assert_array_equal(got[~hit], clean[~hit])
        np.testing.assert_array_equal(got[hit], np.float32(bad))


@pytest.mark.parametrize("method", METHODS)
def test_a_nan_spoils_only_the_dot_products_that_hold_it(method):
    image, kernel = whole(0, 7, 8, 2), whole(1, 3, 3, 2, 2)
    run = jax.jit(partial(cnn.conv, method=method))
    clean, hit = run(image, kernel), holders((7, 8), (2, 4), 3)
    image[2, 4, 1] = np.nan
    got = np.asarray(run(image, kernel))
    assert np.isnan(got[hit]).all()
    assert_same(got[~hit], clean[~hit], method)


@pytest.mark.parametrize("fault", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("method", ["auto", "conv"])
def test_many_channels_at_once_spoil_no_more(method, fault):
    images, kernel = noise(0, 5, 9, 9, 32), noise(1, 3, 3, 32, 20)
    run = jax.jit(jax.vmap(partial(cnn.conv, padding="SAME", method=method), (0, None)))
    clean = run(images, kernel)
    images[2, 4, 5, 6] = fault
    got = np.asarray(run(images, kernel))
    hit = np.zeros(got.shape, bool)
    hit[2, 3:6, 4:7] = True
    assert not np.isfinite(got[hit]).any()
    assert np.isnan(got[hit]).all() == np.isnan(fault)
    np.testing.assert_allclose(got[~hit], clean[~hit], atol=1e-4)


def test_sums_that_overflow_are_not_hidden():
    images, kernel = np.full((16, 16, 16, 64), 1e30, np.float32), 1e30 * np.sign(noise(0, 3, 3, 64, 64))
    got = jax.jit(jax.vmap(partial(cnn.conv, method="conv"), (0, None)))(images, kernel)
    plain = jax.jit(partial(jax.lax.conv_general_dilated, **LAYOUT))(images, kernel)
    assert not np.isfinite(plain).any()
    np.testing.assert_array_equal(got, plain)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_agree_with_differences(method):
    image, kernel = noise(0, 3, 4, 1), noise(1, 2, 2, 1, 2)
    conv = partial(cnn.conv, stride=(1, 2), padding="SAME", method=method)
    with jax.enable_x64(True):
        arguments = image.astype(np.float64), kernel.astype(np.float64)
        check_grads(jax.jit(conv), arguments, order=2, modes=["fwd", "rev"], rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"stride": 2, "padding": "CEIL"}, {"dilation": 2, "padding": ((1, 2), (0, 3))}]
)
def test_gradients_of_all_methods_are_equal(options):
    image, kernel = whole(0, 6, 7, 2), whole(1, 3, 2, 2, 3)

    def loss(image, kernel, method):
        scores = cnn.conv(image, kernel, method=method, **options)
        return jnp.sum(scores * jnp.cos(jnp.arange(scores.size).reshape(scores.shape)))

    gradient = jax.jit(jax.grad(loss, (0, 1)), static_argnames="method")
    for method in ("auto", "shift", "im2col", "fft"):
        for got, plain in zip(gradient(image, kernel, method), gradient(image, kernel, "conv"), strict=True):
            np.testing.assert_allclose(got, plain, rtol=1e-5, atol=1e-4 if method == "fft" else 1e-5)


@pytest.mark.parametrize(
    ("window", "options"),
    [
        ((3, 3), {"padding": "SAME"}),
        ((1, 1), {"stride": 2}),
        ((2, 4), {"stride": (1, 2), "padding": "SAME"}),
        ((5, 3), {"dilation": (1, 2), "padding": ((2, 2), (0, 1))}),
        ((3, 2), {"stride": 3, "dilation": 2, "padding": ((3, 0), (1, 1))}),
    ],
)
@pytest.mark.parametrize("channels", [(1, 16), (32, 40)])
def test_gradients_of_a_batch_in_a_scan_equal_the_plain_ones(window, options, channels):
    images, kernel = noise(0, 6, 11, 12, channels[0]), 0.1 * noise(1, *window, *channels)

    def ours(images, kernel):
        return jax.vmap(lambda image: cnn.conv(image, kernel, **options))(images)

    def plain(images, kernel):
        stride, dilation = (tuple(np.broadcast_to(options.get(name, 1), 2)) for name in ("stride", "dilation"))
        padding, layout = options.get("padding", "VALID"), ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            images, kernel, stride, padding, rhs_dilation=dilation, dimension_numbers=layout, precision="highest"
        )

    def curved(conv):
        return jax.grad(lambda images, kernel: jnp.sum(jnp.sin(conv(images, kernel))), (0, 1))

    def slope_of_gradient(conv):
        return jax.grad(lambda i, k: sum(jnp.sum(jnp.cos(g)) for g in curved(conv)(i, k)), (0, 1))

    def first_and_second(conv, images, kernel):
        return curved(conv)(images, kernel), slope_of_gradient(conv)(images, kernel)

    def step(carry, _):
        return carry, first_and_second(ours, *carry)

    in_scan = jax.jit(lambda *both: jax.tree.map(lambda g: g[1], jax.lax.scan(step, both, length=2)[1]))
    expected = jax.jit(partial(first_and_second, plain))(images, kernel)
    for got, want in zip(jax.tree.leaves(in_scan(images, kernel)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())


@pytest.mark.parametrize(("wanted", "count"), [(0, 2), (1, 2), ((0, 1), 3)])
@pytest.mark.parametrize("method", ["auto", "conv"])
def test_a_gradient_costs_one_convolution_for_each_argument_wanted(method, wanted, count):
    def loss(image, kernel):
        return jnp.sum(cnn.conv(image, kernel, method=method) ** 2)

    args = jnp.ones((5, 5, 1)), jnp.ones((3, 3, 1, 2))
    assert oracles.convolutions(jax.grad(loss, wanted), *args) == [True] * count


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_argument_may_be_an_integer(method):
    image, kernel = whole(0, 5, 5, 1), whole(1, 3, 3, 1, 1)

    def total(kernel, image):
        return cnn.conv(image, kernel, method=method).sum()

    got = jax.grad(total)(kernel, image.astype(np.int32))
    assert_same(got[..., 0], oracles.pool(image, np.sum, window=3, stride=1), method)


def over_kernels_in_images(conv):
    return jax.vmap(lambda image, kernels: jax.vmap(lambda k: conv(image, k))(kernels), (0, None))


def over_images_in_kernels(conv):
    return jax.vmap(lambda images, kernel: jax.vmap(lambda i: conv(i, kernel))(images), (None, 0), 1)


@pytest.mark.parametrize("nest", [over_kernels_in_images, over_images_in_kernels])
@pytest.mark.parametrize("method", METHODS)
def test_vmap_equals_loops_and_is_one_dense_convolution(nest, method):
    images, kernels = whole(0, 3, 6, 5, 2), whole(1, 4, 2, 3, 2, 2)
    conv = partial(cnn.conv, stride=2, padding="SAME", method=method)
    looped = [[oracles.conv(i, k, stride=2, padding="SAME") for k in kernels] for i in images]
    assert_same(jax.jit(nest(conv))(images, kernels), looped, method)
    if method in ("auto", "conv"):
        assert oracles.convolutions(nest(conv), images, kernels) == [True]


@pytest.mark.parametrize("nest", [over_kernels_in_images, over_images_in_kernels])
def test_the_gradient_of_shared_kernels_is_dense_too(nest):
    def loss(kernels, images):
        return jnp.sum(nest(cnn.conv)(images, kernels) ** 2)

    images, kernels = whole(0, 3, 6, 5, 1), whole(1, 4, 2, 3, 1, 2)
    assert oracles.convolutions(jax.grad(loss), kernels, images) == [True, True]


@pytest.mark.parametrize("dtype", ["uint8", "bool", "int32", "int8"])
@pytest.mark.parametrize(
    "function", [lambda x: cnn.conv(x[..., None], x[:2, :2, None, None]), lambda x: cnn.window_sum(x, 2)]
)
def test_integers_and_bools_become_float32(function, dtype):
    image = (np.arange(20).reshape(4, 5) % 3).astype(dtype)
    got = function(image)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, function(image.astype(np.float32)))


def test_the_wider_dtype_of_image_and_kernel_wins():
    image = np.ones((3, 3, 1))
    for dtypes in (("bfloat16", "float32"), ("float32", "float16"), ("bfloat16", "float16"), ("uint8", "float32")):
        a, b = (jnp.asarray(image, dtype) for dtype in dtypes)
        assert cnn.conv(a, b[:2, :2, None]).dtype == jnp.float32
    half = jnp.asarray(image, "bfloat16")
    assert cnn.conv(half, half[:2, :2, None]).dtype == jnp.bfloat16


def drowned(dtype):
    """16 numbers that add up to 8, each 1 beside numbers so large that a 16-bit sum would lose it."""
    large = 4 / float(jnp.finfo(dtype).eps)
    numbers = np.array([large] * 4 + [-large] * 4 + [1.0] * 8)
    return jnp.asarray(np.random.default_rng(0).permutation(numbers).reshape(4, 4), dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bit_floats_add_up_in_float32(dtype):
    image = drowned(dtype)
    assert image.reshape(-1).sum(dtype=dtype) != 8  # the bait is alive
    sums = [cnn.window_sum(image, 4)[0, 0]]
    for method in METHODS:
        ones = jnp.ones((4, 4, 1, 1), dtype)
        sums.append(cnn.conv(image[..., None], ones, method=method)[0, 0, 0])
        sums.append(
            jax.grad(lambda k, m=method: cnn.conv(image[..., None], k, method=m).sum())(ones[:1, :1])[0, 0, 0, 0]
        )
    assert [(float(s), s.dtype) for s in sums] == [(8.0, jnp.dtype(dtype))] * (1 + 2 * len(METHODS))


def test_float64_stays_float64():
    image, kernel = noise(0, 5, 6, 2).astype(np.float64), noise(1, 3, 2, 2, 2).astype(np.float64)
    with jax.enable_x64(True):
        results = [cnn.conv(image, kernel, method=method) for method in METHODS]
        sums = cnn.window_sum(image, 3)
    for got in results:
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, oracles.conv(image, kernel), rtol=1e-12, atol=1e-13)
    assert sums.dtype == np.float64
    np.testing.assert_allclose(sums, oracles.pool(image, np.sum, window=3, stride=1), rtol=1e-12, atol=1e-13)


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


def test_groups_is_one_int():
    with pytest.raises(TypeError, match="groups"):
        cnn.conv(IMAGE, KERNEL[:, :, :1], groups=(2, 7))


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
