"""What `experiments.device` checks: functions of the library on the device beside NumPy in float64."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import cnn_jax

# Largest errors, as fractions of the largest magnitude: of float32, and of products of fewer bits.
FLOAT32 = 2e-5
FEWER_BITS = 2e-2


class Check(NamedTuple):
    """A result of the library and the right one."""

    name: str
    result: Callable[[], Any]
    expected: np.ndarray
    tolerance: float = FLOAT32


def patches(image: np.ndarray, window: tuple[int, int], stride: int = 1) -> np.ndarray:
    """All windows of an image (H, W) in float64: (H', W', h, w)."""
    return sliding_window_view(image.astype(np.float64), window)[::stride, ::stride]


def centered(pixels: np.ndarray) -> np.ndarray:
    """Windows, or a feature, less their means."""
    return pixels - pixels.mean(axis=(-2, -1), keepdims=True)


def scores(image: np.ndarray, feature: np.ndarray) -> Mapping[str, np.ndarray]:
    """The score maps by their definitions."""
    p = patches(image, feature.shape)
    f = feature.astype(np.float64)

    def total(values: np.ndarray) -> np.ndarray:
        return values.sum(axis=(-2, -1))

    norms = np.sqrt(total(p**2) * (f**2).sum())
    difference = total((p - f) ** 2)
    return {
        "match": total(p * f) / f.size,
        "cosine": total(p * f) / norms,
        "zncc": total(centered(p) * centered(f)) / np.sqrt(total(centered(p) ** 2) * (centered(f) ** 2).sum()),
        "squared_difference": difference,
        "normalized_squared_difference": difference / norms,
    }


def convolved(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The convolution of (H, W, C) with (h, w, C, K), in float64."""
    windows = sliding_window_view(image.astype(np.float64), kernel.shape[:2], axis=(0, 1))
    return np.einsum("yxcij,ijck->yxk", windows, kernel.astype(np.float64))


def checks(size: int) -> Iterator[Check]:
    """All checks, on images with this many rows."""
    generator = np.random.default_rng(0)

    def noise(*shape: int) -> np.ndarray:
        return generator.uniform(-1, 1, shape).astype(np.float32)

    image, feature = noise(size, size + 3), noise(7, 9)
    for name, expected in scores(image, feature).items():
        score = getattr(cnn_jax, name)
        yield Check(name, lambda score=score: score(image, feature), expected)
    bright = image + np.float32(300)
    expected = scores(bright, feature)["zncc"]
    yield Check("zncc of a bright image", lambda: cnn_jax.zncc(bright, feature), expected, 1e-4)

    colors, kernel = noise(size, size, 8), noise(3, 3, 8, 16)
    expected = convolved(colors, kernel)
    for method in ("auto", "conv", "shift", "im2col", "fft"):
        options = {"method": method, "precision": "highest"}
        yield Check(f"conv, {method}", lambda options=options: cnn_jax.conv(colors, kernel, **options), expected)
    yield Check("conv, default precision", lambda: cnn_jax.conv(colors, kernel), expected, FEWER_BITS)
    ct = noise(*expected.shape)

    def gradients() -> Any:
        def total(image: jax.Array, kernel: jax.Array) -> jax.Array:
            return (cnn_jax.conv(image, kernel, precision="highest") * ct).sum()

        return jax.grad(total, (0, 1))(jnp.asarray(colors), jnp.asarray(kernel))

    padded = np.pad(ct, ((2, 2), (2, 2), (0, 0)))
    expected = convolved(padded, kernel[::-1, ::-1].swapaxes(2, 3))
    yield Check("conv's gradient of the image", lambda: gradients()[0], expected)
    windows = sliding_window_view(colors.astype(np.float64), ct.shape[:2], axis=(0, 1))
    expected = np.einsum("ijcyx,yxk->ijck", windows, ct.astype(np.float64))
    yield Check("conv's gradient of the kernel", lambda: gradients()[1], expected)

    pools = {"max_pool": np.max, "min_pool": np.min, "avg_pool": np.mean}
    for name, reduce in pools.items():
        for window, stride in ((2, 2), (3, 2)):
            pool = getattr(cnn_jax, name)
            expected = reduce(patches(image, (window, window), stride), axis=(-2, -1))
            call = jax.jit(lambda x, pool=pool, window=window, stride=stride: pool(x, window=window, stride=stride))
            yield Check(f"{name} {window}, {stride}", lambda call=call: call(image), expected)
    coarse = generator.integers(0, 3, (size, size)).astype(np.float32)  # equal pixels in most windows
    yield Check(
        "max_pool's gradient of equal pixels",
        lambda: jax.grad(lambda x: cnn_jax.max_pool(x).sum())(jnp.asarray(coarse)),
        first_maxima(coarse),
    )
    yield Check("window_sum", lambda: cnn_jax.window_sum(image, window=5), patches(image, (5, 5)).sum(axis=(-2, -1)))
    row, column = size // 3, size // 4
    template = image[row : row + 24, column : column + 24]
    place = np.array([row, column], np.float64)
    yield Check("find", lambda: place_of(cnn_jax.find(image, template, top_k=1)), place, 1e-3)
    search = {"angle_range": (-0.5, 0.5), "top_k": 1}
    yield Check("find, a range of angles", lambda: place_of(cnn_jax.find(image, template, **search)), place, 1e-3)


def first_maxima(image: np.ndarray) -> np.ndarray:
    """1 at the first largest pixel of each 2x2 window, 0 elsewhere."""
    marks = np.zeros(image.shape)
    for y in range(0, image.shape[0] // 2 * 2, 2):
        for x in range(0, image.shape[1] // 2 * 2, 2):
            row, column = divmod(int(image[y : y + 2, x : x + 2].argmax()), 2)
            marks[y + row, x + column] = 1
    return marks


def place_of(matches: cnn_jax.Matches) -> jax.Array:
    """Row and column of the first match."""
    return jnp.stack([matches.y[0], matches.x[0]])


def error_of(check: Check) -> float:
    """The largest error of a result, as a fraction of the largest magnitude."""
    result = np.asarray(check.result(), np.float64)
    if result.shape != check.expected.shape:
        raise ValueError(f"{check.name}: expected shape {check.expected.shape}, got {result.shape}")
    return float(np.abs(result - check.expected).max() / np.abs(check.expected).max())
