"""The sliding dot product by Fourier transforms: overlapping tiles, two of them in one complex transform."""

import functools
import itertools
import math
from collections.abc import Iterator

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# Tiles of these sizes (besides the whole image) are considered: fast to transform, and they stay in a core's cache.
TILES = (32, 48, 64, 80, 96, 120, 144, 180, 192, 240, 280, 320, 384, 448, 512, 640, 768)
# XLA:CPU runs a transform inside a larger program on one core; so many independent ones keep several cores busy.
GROUPS = 8
GROUP_COST = 2**15  # of one more group, in pixels transformed
MOST_BYTES = 2**26  # of products at a time, for each group


def correlate(image: Float[Array, "N H W C"], kernel: Float[Array, "h w C K"]) -> Float[Array, "K N H2 W2"]:
    """Slides K kernels over N images and takes the dot product at every position where the kernel lies inside.

        out[k, n, y, x] = sum over i, j, c of image[n, y + i, x + j, c] kernel[i, j, c, k]

    Each image is cut into tiles that overlap by the kernel's size less one. Two tiles are the real and the imaginary
    part of one complex transform: kernels are real, so that the two never mix. Every tile is centred and scaled
    before, so that rounding is relative to the contrast within a tile (about 1e-6 of it) and not to its brightness or
    to its neighbours. Pixels must be finite: one that is not would spoil two whole tiles.

    Products are formed for so many kernels at a time that memory beyond the result stays small: about 0.1 GB for 64
    kernels of 64x64 in an image of 8 megapixels.
    """
    (n, height, width, channels), (h, w, _, kernels) = image.shape, kernel.shape
    tile = best_tile((height, width), (h, w))
    rows, columns = height - h + 1, width - w + 1
    step = tile[0] - h + 1
    strips = -(-rows // step)
    area = n * pixels((height, width), (h, w), tile)
    spectra, sums = _spectra(kernel, tile), kernel.sum(axis=(0, 1))

    by_image, by_strip = _groups(n, strips, -(-columns // (tile[1] - w + 1)), math.prod(tile) * (kernels + channels))
    at_once = max(1, min(kernels, MOST_BYTES * by_image * by_strip // (area * 16)))

    out = jnp.zeros((kernels, n, rows, columns), image.dtype)
    for (first, last), (top, bottom) in itertools.product(_parts(n, by_image), _parts(strips, by_strip)):
        start, stop = top * step, min(bottom * step, rows)
        part = image[first:last, start : stop + h - 1]
        out = _fill(out, part, sums, spectra, (h, w), (first, start), at_once)
    return out


@functools.cache
def _groups(images: int, strips: int, tiles: int, area: int) -> tuple[int, int]:
    """How many groups to split the images and each one's strips (of so many tiles) into."""

    def cost(split: tuple[int, int]) -> float:
        (many, few), groups = split, split[0] * split[1]
        pairs = sum(
            -(-(last - first) * (bottom - top) * tiles // 2)
            for (first, last), (top, bottom) in itertools.product(_parts(images, many), _parts(strips, few))
        )
        return pairs * area * max(1.0, 1.6 - 0.1 * groups) + groups * GROUP_COST

    splits = itertools.product(range(1, min(images, GROUPS) + 1), range(1, min(strips, GROUPS) + 1))
    return min((split for split in splits if math.prod(split) <= GROUPS), key=cost)


def _parts(total: int, parts: int) -> Iterator[tuple[int, int]]:
    return itertools.pairwise(total * i // parts for i in range(parts + 1))


def _spectra(kernel: Array, tile: tuple[int, int]) -> Array:
    """The conjugate transforms of the kernels, (K, C, *tile)."""
    h, w = kernel.shape[:2]
    kernel = jnp.pad(kernel.transpose(3, 2, 0, 1), [(0, 0), (0, 0), (0, tile[0] - h), (0, tile[1] - w)])
    return jnp.conj(lax.fft(lax.complex(kernel, jnp.zeros_like(kernel)), lax.FftType.FFT, tile))


def _fill(
    out: Array, image: Array, sums: Array, spectra: Array, size: tuple[int, int], corner: tuple[int, int], at_once: int
) -> Array:
    """Writes the dot products of some images' rows into `out` from (image, row) `corner` on."""
    tile, kernels = spectra.shape[2:], spectra.shape[0]
    n, rows, columns = image.shape[0], image.shape[1] - size[0] + 1, out.shape[3]
    step = [t - s + 1 for t, s in zip(tile, size, strict=True)]
    counts = -(-rows // step[0]), -(-columns // step[1])
    tiles = _cut(image, counts[0], step[0], tile[0], axis=1, to=1)
    tiles = _cut(tiles, counts[1], step[1], tile[1], axis=3, to=2)
    tiles = jnp.moveaxis(tiles, -1, 3).reshape(-1, image.shape[3], *tile)
    many = len(tiles)
    tiles = jnp.pad(tiles, [(0, many % 2), (0, 0), (0, 0), (0, 0)])

    low, high = (reduce(tiles, axis=(2, 3), keepdims=True) / 2 for reduce in (jnp.min, jnp.max))
    centre, scale = low + high, (high - low).max(axis=1, keepdims=True)
    tiles = (tiles - centre) / jnp.where(scale > 0, scale, 1)
    half = len(tiles) // 2
    transforms = lax.fft(lax.complex(tiles[:half], tiles[half:]), lax.FftType.FFT, tile)

    def products(spectra: Array, sums: Array) -> Array:
        # One channel at a time: XLA:CPU fuses this, and has no fast batched complex matrix product.
        product = sum(transforms[None, :, c] * spectra[:, c, None] for c in range(image.shape[3]))
        back = lax.fft(product, lax.FftType.IFFT, tile)[..., : step[0], : step[1]]
        maps = jnp.concatenate([back.real, back.imag], axis=1)[:, :many]
        offset = jnp.einsum("ck,pc->kp", sums, centre[:many, :, 0, 0], precision="highest")
        maps = maps * scale[None, :many, 0] + offset[..., None, None]
        maps = maps.reshape(len(maps), n, *counts, *step).transpose(0, 1, 2, 4, 3, 5)
        return maps.reshape(len(maps), n, counts[0] * step[0], counts[1] * step[1])[:, :, :rows, :columns]

    if at_once == kernels:
        return lax.dynamic_update_slice(out, products(spectra, sums), (0, corner[0], corner[1], 0))

    def some(i: Array, out: Array) -> Array:
        first = jnp.minimum(i * at_once, kernels - at_once)  # the last ones overlap those before, and are the same
        maps = products(
            lax.dynamic_slice_in_dim(spectra, first, at_once), lax.dynamic_slice_in_dim(sums, first, at_once, 1)
        )
        return lax.dynamic_update_slice(out, maps, (first, corner[0], corner[1], 0))

    return lax.fori_loop(0, -(-kernels // at_once), some, out)


def _cut(image: Array, count: int, step: int, length: int, *, axis: int, to: int) -> Array:
    """Overlapping pieces along an axis, `step` apart and filled up with zeros, along a new axis at `to`."""
    borders = [(0, 0)] * image.ndim
    borders[axis] = (0, max(0, (count - 1) * step + length - image.shape[axis]))
    image = jnp.pad(image, borders)
    return jnp.stack([lax.slice_in_dim(image, i * step, i * step + length, axis=axis) for i in range(count)], to)


@functools.cache
def best_tile(size: tuple[int, int], kernel: tuple[int, int]) -> tuple[int, int]:
    """The tile, rows and columns, with which all of an image of this size costs least."""
    rows, columns = ([t for t in TILES if k <= t < n] + [good_length(n)] for n, k in zip(size, kernel, strict=True))
    tiles = itertools.product(rows, columns)
    return min(tiles, key=lambda tile: pixels(size, kernel, tile) * _slowness(math.prod(tile)))


def pixels(size: tuple[int, int], kernel: tuple[int, int], tile: tuple[int, int]) -> int:
    """How many pixels all tiles of an image have together."""
    return math.prod(-(-(n - k + 1) // (t - k + 1)) * t for n, k, t in zip(size, kernel, tile, strict=True))


def _slowness(area: int) -> float:
    """Time a pixel for a transform of this area, 1 where it stays in a core's cache; measured."""
    return 1 + 0.15 * max(0.0, math.log2(area / 2**17)) + 0.1 * max(0.0, 12 - math.log2(area))


def good_length(n: int) -> int:
    """The smallest length of at least n whose prime factors are 2, 3, 5 and 7, which transforms fast."""
    while True:
        rest = n
        for factor in (2, 3, 5, 7):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return n
        n += 1


def cost(image: tuple[int, ...], kernel: tuple[int, ...]) -> float:
    """What `correlate` takes for these shapes on two CPU cores, in nanoseconds; measured."""
    (n, *size, channels), (*window, _, kernels) = image, kernel
    tile = best_tile((size[0], size[1]), (window[0], window[1]))
    padded = pixels((size[0], size[1]), (window[0], window[1]), tile)
    slowness = _slowness(math.prod(tile))
    outputs = n * kernels * (size[0] - window[0] + 1) * (size[1] - window[1] + 1)
    transforms = 3.2 * slowness * n * padded * (channels + kernels)
    products = 0.35 * n * padded * channels * kernels
    return transforms + products + 8 * slowness * math.prod(tile) * channels * kernels + outputs
