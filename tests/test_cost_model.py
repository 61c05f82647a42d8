"""The choice of the method and of tiles, also under other constants."""

import dataclasses
import itertools
from typing import Any

import pytest

from cnn_jax._cost_model import (
    CPU_COSTS,
    FFT_COSTS,
    AcceleratorCosts,
    FftCosts,
    best_methods,
    fft_plan,
    next_fast_len,
    tile_counts,
)
from cnn_jax._padding import NO_PADDING

PLAIN: dict[str, Any] = {
    "stride": (1, 1),
    "padding": NO_PADDING,
    "dilation": (1, 1),
    "lhs_dilation": (1, 1),
    "channels_first": False,
}
SAME_3X3: dict[str, Any] = PLAIN | {"padding": ((1, 1), (1, 1))}


# The choices in rows of experiments.throughput.
@pytest.mark.parametrize(
    ("image", "kernel", "options", "chosen"),
    [
        ((256, 28, 28, 1), (3, 3, 1, 16), PLAIN, ("shift", "conv")),
        ((16, 256, 256, 1), (9, 9, 1, 8), PLAIN, ("shift", "conv")),
        ((4, 512, 512, 1), (33, 33, 1, 8), PLAIN, ("fft", "conv")),
        ((1, 2048, 2048, 1), (64, 64, 1, 1), PLAIN, ("fft", "fft")),
        ((256, 16, 16, 32), (3, 3, 32, 64), SAME_3X3, ("conv", "conv")),
        ((256, 32, 32, 3), (3, 3, 3, 32), SAME_3X3, ("shift", "conv")),
        ((1, 28, 28, 256), (28, 28, 256, 16), SAME_3X3, ("im2col", "conv")),  # the gradient of kernels
        ((64, 8, 8, 256), (8, 8, 256, 128), SAME_3X3, ("conv", "conv")),
    ],
)
def test_the_method_fits_the_work(image, kernel, options, chosen):
    assert best_methods(image, kernel, **options) == chosen


def test_choices_follow_the_costs():
    image, kernel = (16, 32, 32, 8), (3, 3, 8, 16)
    costly = dataclasses.replace(CPU_COSTS, conv_mac_ns=9.0, shift_mac_ns=9.0, im2col_mac_ns=9.0)
    for method, name in [("shift", "shift_mac_ns"), ("im2col", "im2col_mac_ns"), ("conv", "conv_mac_ns")]:
        cheap = dataclasses.replace(costly, **{name: 0.0}, shift_split_channel_ns=0.0)
        slow_fft = FftCosts(transform_pixel_ns=1e6)
        assert best_methods(image, kernel, cpu_costs=cheap, fft_costs=slow_fft, **SAME_3X3).cpu == method
    assert best_methods(image, kernel, cpu_costs=costly, **SAME_3X3).cpu == "fft"
    free_fft = AcceleratorCosts(fft_factor=0.0)
    assert best_methods(image, kernel, accelerator_costs=free_fft, **SAME_3X3).accelerator == "fft"


@pytest.mark.parametrize(
    ("limit", "method", "channels_first"),
    [
        ("shift_max_products", "shift", True),
        ("shift_max_products_side_by_side", "shift", False),
        ("im2col_max_numbers", "im2col", False),
        ("im2col_max_slices", "im2col", False),
    ],
)
def test_a_method_beyond_its_limit_is_not_considered(limit, method, channels_first):
    free: dict[str, Any] = (
        {"shift_mac_ns": 0.0} if method == "shift" else {"im2col_mac_ns": 0.0, "im2col_copy_many_channels_ns": 0.0}
    )
    cheap = dataclasses.replace(CPU_COSTS, **free, shift_split_channel_ns=0.0)
    image, kernel, options = (16, 32, 32, 8), (3, 3, 8, 16), SAME_3X3 | {"channels_first": channels_first}
    assert best_methods(image, kernel, cpu_costs=cheap, **options).cpu == method
    beyond = dataclasses.replace(cheap, **{limit: 1})
    assert best_methods(image, kernel, cpu_costs=beyond, **options).cpu != method


@pytest.mark.parametrize("n", [1, 2, 11, 13, 97, 511, 1025, 2448])
def test_fast_lengths_have_small_factors(n):
    smooth = [a * b * c * d for a, b, c, d in itertools.product(*[[p**k for k in range(13)] for p in (2, 3, 5, 7)])]
    assert next_fast_len(n) == min(length for length in smooth if length >= n)


@pytest.mark.parametrize("size", [(5, 5), (64, 64), (100, 2000), (2448, 3264)])
@pytest.mark.parametrize("kernel", [(1, 1), (5, 3), (5, 5)])
@pytest.mark.parametrize("many", [1, 300])
def test_tiles_hold_the_kernel_and_cover_the_image(size, kernel, many):
    image, bank = (many, *size, 1), (*kernel, 1, many)
    plan = fft_plan(image, bank)
    assert all(k <= t <= next_fast_len(n) for k, t, n in zip(kernel, plan.tile, size, strict=True))
    assert 1 <= plan.images <= many
    assert plan.tile[0] * plan.tile[1] * many <= FFT_COSTS.max_spectrum_numbers
    counts = tile_counts(image, bank, plan.tile)
    for count, t, k, n in zip(counts, plan.tile, kernel, size, strict=True):
        assert count * (t - k + 1) >= n - k + 1 > (count - 1) * (t - k + 1)


def test_too_many_kernels_and_channels_take_the_smallest_tiles():
    plan = fft_plan((8, 500, 500, 512), (5, 5, 512, 512))
    assert (plan.tile, plan.images) == ((32, 32), 1)


def test_plans_follow_the_costs():
    image, kernel = (1, 1000, 1000, 1), (9, 9, 1, 1)
    assert fft_plan(image, kernel, FftCosts(tile_sides=())).tile == (1000, 1000)
    assert fft_plan(image, kernel, FftCosts(fast_min_pixels=0, fast_max_pixels=5000)).tile[0] < 100
