"""Cost model: which convolution algorithm correlates images and kernels of given shapes in the least time.

Times were fitted by `python -m experiments.calibrate --machines` to the measurements in results/, and two of them were
then moved by hand. The machines are one and two cores of an AMD EPYC, with AVX-512 and without, jaxlib 0.10.2 and
0.12.0.1, with the settings of `configure_cpu`. The same script measures the user's machine. The comment of a constant
names rows (task: case) of `python -m experiments.throughput` whose time it predicts.
"""

import dataclasses
import functools
import itertools
import math
from typing import NamedTuple, Unpack

from ._geometry import Spacing, correlation_extents
from ._typing import Pair, Shape


@dataclasses.dataclass(frozen=True)
class CpuCosts:
    """What "shift", "conv" and "im2col" cost on the CPU, and where they are considered."""

    # float32 elements in a vector register of 256 bits, as XLA:CPU uses them.
    register_lanes: int = 8

    # A multiply-add of "shift", all lanes filled. match: 16x256x256, 8x9x9.
    shift_mac_ns: float = 0.0153
    # A "shift" of any size: another core is woken for a part. inference: 1x16x16x1, 8-16.
    shift_start_ns: float = 1200.0
    # Products of one output, of whole maps. More take seconds to compile. match: 16x256x256, 8x9x9 has 81.
    shift_max_products: int = 400
    # Products of one output, of kernels side by side. More gain less than they take to compile. train_step:
    # 256x16x16x1, 8-16 has 144 in the gradient of its second layer's images.
    shift_max_products_side_by_side: int = 81
    # Products of one fused loop. More do not stay in registers. match: 16x256x256, 8x9x9 takes three loops.
    shift_fused_products: int = 27
    # An element of an image that is split into maps first. its images' gradient: 256x28x28x1, 16.
    shift_split_channel_ns: float = 0.42

    # A multiply-add of "conv". conv: 256x16x16x32, 64 and 256x8x8x64, 128.
    conv_mac_ns: float = 0.0047
    # Fewer kernels take the time of this many. its images' gradient: 256x28x28x1, 16.
    conv_min_kernels: int = 16
    # Overhead per output position, for images with fewer channels than register lanes. conv: 256x28x28x1, 16 by "conv".
    conv_position_few_channels_ns: float = 26.5
    # Overhead per output position, for images with more channels. conv: 256x16x16x32, 64.
    conv_position_many_channels_ns: float = 12.0
    # A multiply-add of kernels with more pixels than output positions. its kernels' gradient: 256x8x8x64, 128.
    conv_mac_large_kernel_ns: float = 0.0045
    # A pixel copied into patches for such kernels, and a number of it. its kernels' gradient: 256x16x16x32, 64.
    conv_pixel_large_kernel_ns: float = 1.14
    conv_copy_large_kernel_ns: float = 0.039
    # A number of such a kernel, which is transposed. its kernels' gradient: 256x28x28x1, 16 by "conv".
    conv_move_large_kernel_ns: float = 0.33

    # A multiply-add of "im2col". its kernels' gradient: 256x16x16x32, 64.
    im2col_mac_ns: float = 0.0052
    # An element copied into patches, fewer channels than register lanes. its kernels' gradient: 256x28x28x1, 16.
    im2col_copy_few_channels_ns: float = 0.51
    # An element copied into patches, more channels. its kernels' gradient: 256x16x16x32, 64.
    im2col_copy_many_channels_ns: float = 0.226
    # Elements of patches that stay in the cache while they are multiplied. its kernels' gradient: 256x16x16x32, 64.
    im2col_chunk_numbers: int = 2**20
    # Elements of patches of one image, or one channel. More take too much memory. match: 4x512x512, 8x33x33.
    im2col_max_numbers: int = 2**22
    # Slices that patches are made of. More take seconds to compile. match: 64x64x64, 16x5x5 has 25.
    im2col_max_slices: int = 64


@dataclasses.dataclass(frozen=True)
class FftCosts:
    """What "fft" costs on the CPU, and the tiles that are considered."""

    # Pixels of a tile's sides, besides the whole image: products of 2, 3, 5 and 7, which transform fast. Three of 729
    # or four of 560 cover 2048 with a kernel of 64.
    tile_sides: tuple[int, ...] = (
        *(32, 48, 64, 96, 128, 160, 192, 240, 280, 320),
        *(384, 448, 512, 560, 640, 729, 840, 960, 1080, 1260),
    )
    # Pixels of small tiles that are transformed together, so that cores share other work. match: 4x512x512, 8x33x33.
    batch_pixels: int = 2**18
    # Complex numbers in the transforms of all kernels: 1 GB.
    max_spectrum_numbers: int = 2**27
    # The steps of a correlation of any size. Probe "maps: 1x20x20x1, 9x9x1x1" of experiments.calibrate.
    start_ns: float = 5700.0
    # A pixel's transform. match: 1x2448x3264, 4x31x31.
    transform_pixel_ns: float = 1.3
    # A pixel's product with a kernel takes this share of its transform. match: 1x2448x3264, 4x31x31.
    product_factor: float = 1 / 3
    # A transform is fast if its number of pixels is between these limits. match: 1x2048x2048, 1x64x64.
    fast_min_pixels: float = 1.5e5
    fast_max_pixels: float = 5e5
    # Slowdown of other transforms. match: 1x2048x2048, 1x64x64 with other tiles.
    slow_transform_factor: float = 1.4
    # Slowdown of a single piece: the other core is idle. match: 1x2048x2048, 1x64x64 as one tile.
    single_piece_factor: float = 1.4


@dataclasses.dataclass(frozen=True)
class AcceleratorCosts:
    """Times on accelerators, as fractions of those on the CPU. They are not measured, and favor the convolution."""

    conv_factor: float = 1e-3
    fft_factor: float = 1e-2


CPU_COSTS = CpuCosts()
FFT_COSTS = FftCosts()
ACCELERATOR_COSTS = AcceleratorCosts()


class BestMethods(NamedTuple):
    """The fastest method on each kind of device."""

    cpu: str
    accelerator: str


class FftPlan(NamedTuple):
    """How the FFT algorithm cuts images."""

    tile: Pair
    """Rows and columns of a tile."""
    images: int
    """Images whose tiles are transformed together."""
    cost_ns: float


def best_methods(
    image: Shape,
    kernel: Shape,
    *,
    channels_first: bool,
    cpu_costs: CpuCosts = CPU_COSTS,
    fft_costs: FftCosts = FFT_COSTS,
    accelerator_costs: AcceleratorCosts = ACCELERATOR_COSTS,
    **spacing: Unpack[Spacing],
) -> BestMethods:
    """The fastest methods for images (N, H, W, C) and kernels (h, w, C, K) of these shapes."""
    cpu = cpu_times_ns(
        image, kernel, channels_first=channels_first, cpu_costs=cpu_costs, fft_costs=fft_costs, **spacing
    )
    accelerator = {
        "conv": cpu["conv"] * accelerator_costs.conv_factor,
        "fft": cpu["fft"] * accelerator_costs.fft_factor,
    }
    return BestMethods(min(cpu, key=cpu.__getitem__), min(accelerator, key=accelerator.__getitem__))


def cpu_times_ns(
    image: Shape,
    kernel: Shape,
    *,
    channels_first: bool,
    cpu_costs: CpuCosts = CPU_COSTS,
    fft_costs: FftCosts = FFT_COSTS,
    **spacing: Unpack[Spacing],
) -> dict[str, float]:
    """The times on the CPU of the methods that are considered."""
    direct = direct_times_ns(image, kernel, channels_first=channels_first, cpu_costs=cpu_costs, **spacing)
    return {**direct, "fft": fft_plan(*transformed_shapes(image, kernel, **spacing), fft_costs).cost_ns}


def transformed_shapes(image: Shape, kernel: Shape, **spacing: Unpack[Spacing]) -> tuple[Shape, Shape]:
    """The shapes of images and kernels with their zeros, as `fft_plan` takes them."""
    extents = correlation_extents(image[1:3], kernel[:2], **spacing)
    return (image[0], *extents.padded_size, image[3]), (*extents.effective_kernel_size, *kernel[2:])


def direct_times_ns(
    image: Shape, kernel: Shape, *, channels_first: bool, cpu_costs: CpuCosts = CPU_COSTS, **spacing: Unpack[Spacing]
) -> dict[str, float]:
    """The times on the CPU of the methods without Fourier transforms that are considered."""
    *kernel_size, _, kernels = kernel
    extents = correlation_extents(image[1:3], kernel_size, **spacing)
    work = _Work(image[0], extents.padded_size, image[3], math.prod(kernel_size), kernels, extents.output_size)
    times = {"conv": _conv_ns(work, cpu_costs)}
    maps_first = channels_first or kernels < cpu_costs.register_lanes
    max_products = cpu_costs.shift_max_products if maps_first else cpu_costs.shift_max_products_side_by_side
    if work.taps * work.channels <= max_products:
        times["shift"] = _shift_ns(work, maps_first, cpu_costs)
    if _im2col_fits(work, cpu_costs):
        times["im2col"] = _im2col_ns(work, cpu_costs)
    return times


class _Work(NamedTuple):
    """The sizes that times depend on."""

    images: int
    padded_size: Pair
    channels: int
    taps: int
    """Pixels of a kernel."""
    kernels: int
    output_size: Pair

    @property
    def positions(self) -> int:
        return math.prod(self.output_size)

    @property
    def multiply_adds(self) -> int:
        return self.images * self.positions * self.taps * self.channels * self.kernels


def _conv_ns(work: _Work, costs: CpuCosts) -> float:
    pixels = work.images * work.positions * work.taps
    products = pixels * work.channels * max(work.kernels, costs.conv_min_kernels)
    if work.taps > work.positions:
        return (
            costs.conv_mac_large_kernel_ns * products
            + costs.conv_pixel_large_kernel_ns * pixels
            + costs.conv_copy_large_kernel_ns * pixels * work.channels
            + costs.conv_move_large_kernel_ns * work.taps * work.channels * work.kernels
        )
    few_channels = work.channels < costs.register_lanes
    position_ns = costs.conv_position_few_channels_ns if few_channels else costs.conv_position_many_channels_ns
    return costs.conv_mac_ns * products + work.images * work.positions * position_ns


def _shift_ns(work: _Work, maps_first: bool, costs: CpuCosts) -> float:
    # Columns or kernels that fill no register are computed one by one.
    lanes = costs.register_lanes
    row = work.output_size[1] if maps_first else work.kernels
    products_ns = costs.shift_start_ns + costs.shift_mac_ns * work.multiply_adds * (1 + 2 * (row % lanes) / row)
    if work.channels == 1 or not maps_first:
        return products_ns
    return products_ns + costs.shift_split_channel_ns * work.images * math.prod(work.padded_size) * work.channels


def _im2col_fits(work: _Work, costs: CpuCosts) -> bool:
    elements = work.positions * work.taps * _im2col_lanes(work)
    return min(work.taps, work.positions) <= costs.im2col_max_slices and elements <= costs.im2col_max_numbers


def _im2col_lanes(work: _Work) -> int:
    """Elements side by side in a slice: the channels, or the images if there are fewer positions than taps."""
    return work.channels if work.taps <= work.positions else work.images


def _im2col_ns(work: _Work, costs: CpuCosts) -> float:
    few = _im2col_lanes(work) < costs.register_lanes
    copy_ns = costs.im2col_copy_few_channels_ns if few else costs.im2col_copy_many_channels_ns
    patch_numbers = work.images * work.positions * work.taps * work.channels
    return costs.im2col_mac_ns * work.multiply_adds + copy_ns * patch_numbers


@functools.cache
def fft_plan(image: Shape, kernel: Shape, costs: FftCosts = FFT_COSTS) -> FftPlan:
    """The fastest way to cut images (N, H, W, C) for kernels (h, w, C, K) of these shapes.

    Tiles at which the transforms of all kernels take more than `max_spectrum_numbers` are left out. If all tiles do,
    the smallest one is taken.
    """
    sides = [
        [side for side in costs.tile_sides if k <= side < n] + [next_fast_len(n)]
        for n, k in zip(image[1:3], kernel[:2], strict=True)
    ]
    plans = [tile_plan(image, kernel, (rows, columns), costs) for rows, columns in itertools.product(*sides)]
    spectra = kernel[2] * kernel[3]
    fitting = [plan for plan in plans if spectra * math.prod(plan.tile) <= costs.max_spectrum_numbers]
    if not fitting:
        return min(plans, key=lambda plan: math.prod(plan.tile))
    return min(fitting, key=lambda plan: plan.cost_ns)


def tile_plan(image: Shape, kernel: Shape, tile: Pair, costs: FftCosts) -> FftPlan:
    """The plan of `fft_plan` with tiles of this size."""
    n, *_, channels = image
    kernels = kernel[3]
    area = math.prod(tile)
    images = max(1, min(n // 2, costs.batch_pixels // (area * channels)))
    pieces = -(-n // images) * math.prod(tile_counts(image, kernel, tile))
    factor = 1.0 if costs.fast_min_pixels <= area * images <= costs.fast_max_pixels else costs.slow_transform_factor
    # Two pieces are transformed at the same time.
    pixels = area * images * (pieces + pieces % 2 if pieces > 1 else costs.single_piece_factor)
    transforms_ns = costs.transform_pixel_ns * factor * (pixels * (channels + kernels) + area * channels * kernels)
    products_ns = costs.transform_pixel_ns * costs.product_factor * pixels * channels * kernels
    return FftPlan(tile, images, costs.start_ns + transforms_ns + products_ns)


def tile_counts(image: Shape, kernel: Shape, tile: Pair) -> Pair:
    """The tiles that cover an image, down and across; neighbors overlap by the kernel's size less one."""
    down, across = (-(-(n - k + 1) // (t - k + 1)) for n, k, t in zip(image[1:3], kernel[:2], tile, strict=True))
    return down, across


def next_fast_len(n: int) -> int:
    """The smallest length of at least n whose prime factors are 2, 3, 5 and 7, which transforms fast.

    >>> next_fast_len(11)
    12
    """
    while True:
        remaining = n
        for factor in (2, 3, 5, 7):
            while remaining % factor == 0:
                remaining //= factor
        if remaining == 1:
            return n
        n += 1
