"""Correlation by Fourier transforms of overlapping tiles: fast for large kernels."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ._cost_model import FFT_COSTS, FftCosts, fft_plan, tile_counts
from ._faults import spoil_windows
from ._geometry import pad_and_dilate
from ._mesh_axes import vary_like
from ._typing import Pads, Pair
from ._xla import CONCURRENT_TRANSFORMS, order_after, reduce_by_rows, with_normal_reciprocal


def fft_correlate(
    image: Array,
    kernel: Array,
    *,
    stride: Pair,
    padding: Pads,
    dilation: Pair,
    lhs_dilation: Pair,
    channels_first: bool,
    divisor: int,
    precision: lax.PrecisionLike,
    costs: FftCosts = FFT_COSTS,
) -> Array:
    """The algorithm "fft" of `_correlate.Algorithm`.

    All positions are computed; those that the stride skips are dropped. A window that holds a pixel that is not finite
    becomes NaN. `precision` has no effect on Fourier transforms.
    """
    image = pad_and_dilate(image, padding, lhs_dilation)
    gaps = [(0, 0, d - 1) for d in dilation]
    weights = kernel.astype(image.dtype)
    spaced = lax.pad(weights, jnp.zeros((), weights.dtype), [*gaps, (0, 0, 0), (0, 0, 0)])
    out = correlate_tiles(image, spaced, divisor, costs)[:, :, :: stride[0], :: stride[1]]
    out = spoil_windows(out, image, kernel.shape[:2], stride, dilation, channel_axis=1)
    return out if channels_first else jnp.moveaxis(out, 1, -1)


def correlate_tiles(
    image: Float[Array, "N H W C"], kernel: Float[Array, "h w C K"], divisor: int = 1, costs: FftCosts = FFT_COSTS
) -> Float[Array, "N K H2 W2"]:
    """Dot products of K kernels with N images at every position where the kernel lies inside, over the divisor.

        out[n, k, y, x] = sum over i, j, c of image[n, y + i, x + j, c] kernel[i, j, c, k] / divisor

    Images are cut into tiles that overlap by the kernel's size less one. Pixels that are not finite count as 0.

    Notes:
      Each tile is centered and scaled first. So rounding is about 1e-6 of the contrast within the tile, and depends
      neither on its brightness nor on other tiles.

      Beside the result, memory holds the kernels' transforms (twice), a copy of the images, and the transforms of two
      tiles: 0.25 GB for 64 kernels of 64x64 in an image of 8 megapixels.
    """
    n, height, width, _ = image.shape
    h, w, _, kernels = kernel.shape
    plan = fft_plan(image.shape, kernel.shape, costs)
    tile = plan.tile
    missing = [(0, max(0, side - size)) for side, size in zip(tile, (height, width), strict=True)]
    image = jnp.pad(jnp.moveaxis(image, -1, 1), [(0, 0), (0, 0), *missing])
    bank = _Bank(_spectra(kernel, tile), kernel.sum(axis=(0, 1)))
    cut = _Cut(
        tile=tile,
        images=plan.images,
        counts=tile_counts((n, height, width), kernel.shape, tile),
        tile_positions=(tile[0] - h + 1, tile[1] - w + 1),
        positions=(image.shape[2] - h + 1, image.shape[3] - w + 1),
    )
    pieces = -(-n // plan.images) * cut.counts[0] * cut.counts[1]
    concurrent = min(CONCURRENT_TRANSFORMS, pieces)

    def step(t: Array, out: Array) -> Array:
        numbers = [jnp.minimum(concurrent * t + i, pieces - 1) for i in range(concurrent)]
        tiles = _transformed(image, numbers, cut)
        zero = order_after(*tiles.normalized, *tiles.spectra).astype(bank.spectra.dtype)
        return lax.fori_loop(0, kernels, lambda k, out: _with_kernel(k, out, tiles, bank, cut, divisor, zero), out)

    out = vary_like(jnp.zeros((n, kernels, *cut.positions), image.dtype), image, kernel)
    out = lax.fori_loop(0, -(-pieces // concurrent), step, out)
    return out[:, :, : height - h + 1, : width - w + 1]


class _Cut(NamedTuple):
    """How images are cut into pieces: the same tile of several images."""

    tile: Pair
    images: int
    counts: Pair
    """Tiles of an image, down and across."""
    tile_positions: Pair
    """Positions of the kernel in a tile."""
    positions: Pair
    """Positions of the kernel in an image."""


class _Bank(NamedTuple):
    """All kernels."""

    spectra: Array
    """(K, C, rows, columns)."""
    sums: Array
    """(C, K)."""


class _Tiles(NamedTuple):
    """Pieces that are transformed at the same time."""

    corners: Sequence[tuple[Array, Array, Array]]
    """First image, row and column of each."""
    normalized: Sequence[Array]
    centers: Sequence[Array]
    scales: Sequence[Array]
    spectra: Sequence[Array]


def _spectra(kernel: Array, tile: Pair) -> Array:
    """The conjugate transforms of all kernels, (K, C, rows, columns)."""
    h, w, *_ = kernel.shape
    framed = jnp.pad(kernel.transpose(3, 2, 0, 1), [(0, 0), (0, 0), (0, tile[0] - h), (0, tile[1] - w)])
    return jnp.conj(lax.fft(framed, lax.FftType.RFFT, tile))


def _transformed(image: Array, numbers: Sequence[Array], cut: _Cut) -> _Tiles:
    """The pieces of these numbers, normalized and transformed."""
    corners = [_corner(number, image, cut) for number in numbers]
    shape = cut.images, image.shape[1], *cut.tile
    tiles = [lax.dynamic_slice(image, (first, 0, top, left), shape) for first, top, left in corners]
    tiles = [jnp.where(jnp.isfinite(tile), tile, 0) for tile in tiles]
    normalized, centers, scales = zip(*map(_normalize, tiles), strict=True)
    spectra = [lax.fft(tile, lax.FftType.RFFT, cut.tile) for tile in normalized]
    return _Tiles(corners, normalized, centers, scales, spectra)


def _corner(number: Array, image: Array, cut: _Cut) -> tuple[Array, Array, Array]:
    """The first image, row and column of a piece. The last pieces overlap those before, so that all are whole."""
    down, across = cut.counts
    rows, columns = cut.tile_positions
    first = jnp.minimum(number // (down * across) * cut.images, image.shape[0] - cut.images)
    top = jnp.minimum(number // across % down * rows, cut.positions[0] - rows)
    left = jnp.minimum(number % across * columns, cut.positions[1] - columns)
    return first, top, left


def _normalize(tiles: Array) -> tuple[Array, Array, Array]:
    """Tiles (N, C, rows, columns) centered and scaled; their centers (N, C) and scales (N,)."""
    low = reduce_by_rows(jnp.min, tiles, 2)
    high = reduce_by_rows(jnp.max, tiles, 2)
    center = low / 2 + high / 2
    contrast = (high / 2 - low / 2).max(axis=1)
    scale = jnp.where(contrast > 0, with_normal_reciprocal(contrast), 1)
    return (tiles - center[..., None, None]) / scale[:, None, None, None], center, scale


def _with_kernel(k: Array, out: Array, tiles: _Tiles, bank: _Bank, cut: _Cut, divisor: int, zero: Array) -> Array:
    """Writes the dot products of some tiles with one kernel, over the divisor."""
    kernel = lax.dynamic_slice_in_dim(bank.spectra, k, 1) + zero
    products = [spectrum * kernel for spectrum in tiles.spectra]
    if bank.spectra.shape[1] > 1:
        products = [product.sum(axis=1, keepdims=True) for product in products]
    maps = [lax.fft(product, lax.FftType.IRFFT, cut.tile) for product in products]
    map_zero = order_after(*products, *maps)
    rows, columns = cut.tile_positions
    for tile_map, center, scale, (first, top, left) in zip(
        maps, tiles.centers, tiles.scales, tiles.corners, strict=True
    ):
        offset = (center * bank.sums[:, k][None]).sum(axis=1) + map_zero
        dots = tile_map[:, 0, :rows, :columns] * scale[:, None, None] + offset[:, None, None]
        out = lax.dynamic_update_slice(out, dots[:, None] / divisor, (first, k, top, left))
    return out
