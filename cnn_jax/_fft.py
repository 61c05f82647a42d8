"""The sliding dot product by Fourier transforms of overlapping tiles."""

import functools
import itertools
import math
import operator
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Sides of tiles (besides the whole image) that are considered: products of 2, 3, 5 and 7, which transform fast.
SIDES = (32, 48, 64, 96, 128, 160, 192, 240, 280, 320, 384, 448, 512, 560, 640, 720, 840, 960, 1080, 1260)
# Small tiles are transformed together, up to about so many pixels: enough for two cores to share the rest of the work.
AT_ONCE = 2**18
MOST_SPECTRA = 2**27  # numbers in the kernels' transforms
# Nanoseconds on two CPU cores, measured: a pixel's transform, where tiles (several small ones together) have between so
# many pixels, and how much longer elsewhere; a pixel's product; and how much longer a piece takes that has no other
# beside it.
TRANSFORM, FAST, SLOWER, PRODUCT, ALONE = 1.2, (1.5e5, 5e5), 1.4, 0.4, 1.4


class Plan(NamedTuple):
    """How to cut images: the tile's rows and columns, how many images at once, and the cost of all, in nanoseconds."""

    tile: tuple[int, int]
    at_once: int
    cost: float


@functools.cache
def best_plan(image: tuple[int, ...], kernel: tuple[int, ...]) -> Plan:
    """The plan that costs least for images (N, H, W, C) and kernels (h, w, C, K) of these shapes.

    Tiles whose transforms of all kernels exceed MOST_SPECTRA are left out, unless all do: then the smallest is taken.
    """
    sides = [[s for s in SIDES if k <= s < n] + [next_fast_len(n)] for n, k in zip(image[1:3], kernel[:2], strict=True)]
    plans = [_plan(image, kernel, (rows, columns)) for rows, columns in itertools.product(*sides)]
    spectra = kernel[2] * kernel[3]
    small = [plan for plan in plans if spectra * math.prod(plan.tile) <= MOST_SPECTRA]
    return min(small, key=lambda plan: plan.cost) if small else min(plans, key=lambda plan: math.prod(plan.tile))


def _plan(image: tuple[int, ...], kernel: tuple[int, ...], tile: tuple[int, int]) -> Plan:
    (n, *_, channels), kernels, area = image, kernel[3], math.prod(tile)
    at_once = max(1, min(n // 2, AT_ONCE // (area * channels)))
    pieces = -(-n // at_once) * math.prod(_counts(image, kernel, tile))
    slowness = 1.0 if FAST[0] <= area * at_once <= FAST[1] else SLOWER
    pixels = area * at_once * (pieces + pieces % 2 if pieces > 1 else ALONE)
    transforms = TRANSFORM * slowness * (pixels * (channels + kernels) + area * channels * kernels)
    return Plan(tile, at_once, transforms + PRODUCT * pixels * channels * kernels)


def _counts(image: tuple[int, ...], kernel: tuple[int, ...], tile: tuple[int, int]) -> list[int]:
    """How many tiles it takes down and across."""
    return [-(-(n - k + 1) // (t - k + 1)) for n, k, t in zip(image[1:3], kernel[:2], tile, strict=True)]


def fft_correlate(image: Float[Array, "N H W C"], kernel: Float[Array, "h w C K"]) -> Float[Array, "N K H2 W2"]:
    """Slides K kernels over N images and takes the dot product at every position where the kernel lies inside.

        out[n, k, y, x] = sum over i, j, c of image[n, y + i, x + j, c] kernel[i, j, c, k]

    Each image is cut into tiles that overlap by the kernel's size less one. Every tile is centred and scaled before, so
    that rounding is relative to the contrast within a tile (about 1e-6 of it) and not to its brightness or to other
    tiles. Pixels must be finite: one that is not would spoil a whole tile.

    One kernel and two pieces at a time: beyond the result there are the kernels' transforms (twice), a copy of the
    image, and the transforms of two pieces. For 64 kernels of 64x64 in an image of 8 megapixels this is 0.25 GB.
    """
    (n, height, width, _), (h, w, channels, kernels) = image.shape, kernel.shape
    tile, at_once, _ = best_plan(image.shape, kernel.shape)
    inner = tile[0] - h + 1, tile[1] - w + 1
    down, across = _counts(image.shape, kernel.shape, tile)
    beyond = [(0, max(0, side - size)) for side, size in zip(tile, (height, width), strict=True)]
    image = jnp.pad(jnp.moveaxis(image, -1, 1), [(0, 0), (0, 0), *beyond])
    rows, columns = image.shape[2] - h + 1, image.shape[3] - w + 1
    framed = jnp.pad(kernel.transpose(3, 2, 0, 1), [(0, 0), (0, 0), (0, tile[0] - h), (0, tile[1] - w)])
    spectra, sums = jnp.conj(lax.fft(framed, lax.FftType.RFFT, tile)), kernel.sum(axis=(0, 1))

    pieces = -(-n // at_once) * down * across
    # Two pieces in every step: XLA:CPU runs a transform inside a larger program on one core. (Accelerators would rather
    # have more of it at once, but memory bounds that too.)
    in_step = min(2, pieces)

    def step(t: Array, out: Array) -> Array:
        numbers = [jnp.minimum(in_step * t + i, pieces - 1) for i in range(in_step)]
        # The last tiles and images overlap those before, so that all are whole.
        corners = [
            (
                jnp.minimum(i // (down * across) * at_once, n - at_once),
                jnp.minimum(i // across % down * inner[0], rows - inner[0]),
                jnp.minimum(i % across * inner[1], columns - inner[1]),
            )
            for i in numbers
        ]
        tiles = [
            lax.dynamic_slice(image, (first, 0, top, left), (at_once, channels, *tile)) for first, top, left in corners
        ]
        tiles, centres, scales = zip(*map(_normalized, tiles), strict=True)
        transforms = [lax.fft(each, lax.FftType.RFFT, tile) for each in tiles]
        apart = order_after(*tiles, *transforms).astype(spectra.dtype)

        def with_kernel(k: Array, out: Array) -> Array:
            kernel = lax.dynamic_slice_in_dim(spectra, k, 1) + apart
            products = [each * kernel for each in transforms]
            if channels > 1:
                products = [each.sum(axis=1, keepdims=True) for each in products]
            maps = [lax.fft(each, lax.FftType.IRFFT, tile) for each in products]
            still_apart = order_after(*products, *maps)
            for each, centre, scale, (first, top, left) in zip(maps, centres, scales, corners, strict=True):
                offset = (centre * sums[:, k][None]).sum(axis=1) + still_apart
                dots = each[:, 0, : inner[0], : inner[1]] * scale[:, None, None] + offset[:, None, None]
                out = lax.dynamic_update_slice(out, dots[:, None], (first, k, top, left))
            return out

        return lax.fori_loop(0, kernels, with_kernel, out)

    out = lax.fori_loop(0, -(-pieces // in_step), step, jnp.zeros((n, kernels, rows, columns), image.dtype))
    return out[:, :, : height - h + 1, : width - w + 1]


def _normalized(tiles: Array) -> tuple[Array, Array, Array]:
    """Tiles (N, C, *tile) centred and scaled, what was taken away (N, C), and what each was divided by (N,)."""
    low, high = tiles.min(axis=(2, 3)), tiles.max(axis=(2, 3))
    centre, contrast = low / 2 + high / 2, (high / 2 - low / 2).max(axis=1)
    scale = jnp.where(contrast > 0, contrast, 1)
    return (tiles - centre[..., None, None]) / scale[:, None, None, None], centre, scale


def order_after(*arrays: Array) -> Array:
    """Zero, from all of these arrays; what adds it has to wait for them all.

    So XLA cannot give one the memory of another that is used up, and two cores can work on them at the same time. Where
    XLA computes the first number of an array anew, this fails to help, so an array is what a transform takes or gives.
    """
    return 0 * functools.reduce(operator.add, [array[(0,) * array.ndim].real for array in arrays])


def next_fast_len(n: int) -> int:
    """The smallest length of at least n whose prime factors are 2, 3, 5 and 7, which transforms fast."""
    while True:
        rest = n
        for factor in (2, 3, 5, 7):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return n
        n += 1
