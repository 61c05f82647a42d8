"""What the library should compute, in slow and plain NumPy float64, and the inputs that tests draw."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from hypothesis import strategies as st

# The scores of `matching`.
NAMES = (
    "match",
    "cosine",
    "zncc",
    "squared_difference",
    "normalized_squared_difference",
    "sharpened_cosine",
)


def starts(size: int, reach: int, stride: int, padding: str | tuple[int, int]) -> Sequence[int]:
    """The first pixel of every window along one axis; negative in the padding before the image."""
    if padding == "VALID":
        return range(0, size - reach + 1, stride)
    if padding == "CEIL":  # one more window as long as the last one left pixels over
        return [start for start in range(0, size, stride) if start == 0 or start - stride + reach < size]
    if padding == "SAME":
        count = -(-size // stride)
        before = max((count - 1) * stride + reach - size, 0) // 2
        return range(-before, count * stride - before, stride)
    assert not isinstance(padding, str)
    low, high = padding
    return range(-low, size + high - reach + 1, stride)


def taps(
    size: int, window: int, stride: int, padding: str | tuple[int, int], dilation: int = 1
) -> list[list[tuple[int, int]]]:
    """For every window along one axis its pixels inside the image, as (index in the window, index in the image)."""
    reach = (window - 1) * dilation + 1
    pixels = [[(i, start + i * dilation) for i in range(window)] for start in starts(size, reach, stride, padding)]
    return [[(i, index) for i, index in row if 0 <= index < size] for row in pixels]


def both_axes(shape: Sequence[int], window: Any, stride: Any, padding: Any, dilation: Any = 1) -> list[list]:
    """`taps` of rows and of columns."""
    windows, strides, dilations = (np.broadcast_to(option, 2).tolist() for option in (window, stride, dilation))
    paddings = [padding] * 2 if isinstance(padding, str) else padding
    return [taps(shape[a], windows[a], strides[a], paddings[a], dilations[a]) for a in range(2)]


def conv(
    image: Any, kernel: Any, *, stride: Any = 1, padding: Any = "VALID", dilation: Any = 1, groups: int = 1
) -> np.ndarray:
    """`cnn_jax.conv`, output by output."""
    image, kernel = np.asarray(image, np.float64), np.asarray(kernel, np.float64)
    *window, channels, kernels = kernel.shape
    rows, columns = both_axes(image.shape, window, stride, padding, dilation)
    out = np.zeros((len(rows), len(columns), kernels))
    for k, (y, row), (x, column) in itertools.product(range(kernels), enumerate(rows), enumerate(columns)):
        first = k // (kernels // groups) * channels
        for (i, r), (j, c) in itertools.product(row, column):
            out[y, x, k] += image[r, c, first : first + channels] @ kernel[i, j, :, k]
    return out


def conv_gradients(
    image: Any,
    kernel: Any,
    cotangent: Any,
    *,
    stride: Any = 1,
    padding: Any = "VALID",
    dilation: Any = 1,
    groups: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """The gradients of the sum of `conv` times a cotangent, by image and by kernel, product by product."""
    image, kernel, cotangent = (np.asarray(array, np.float64) for array in (image, kernel, cotangent))
    *window, channels, kernels = kernel.shape
    rows, columns = both_axes(image.shape, window, stride, padding, dilation)
    by_image, by_kernel = np.zeros(image.shape), np.zeros(kernel.shape)
    for k, (y, row), (x, column) in itertools.product(range(kernels), enumerate(rows), enumerate(columns)):
        first = k // (kernels // groups) * channels
        block = slice(first, first + channels)
        for (i, r), (j, c) in itertools.product(row, column):
            by_image[r, c, block] += cotangent[y, x, k] * kernel[i, j, :, k]
            by_kernel[i, j, :, k] += cotangent[y, x, k] * image[r, c, block]
    return by_image, by_kernel


def conv_transpose(image: Any, kernel: Any, *, stride: Any = 1, padding: Any = "VALID") -> np.ndarray:
    """`cnn_jax.conv_transpose`, product by product: what each pixel adds to the output."""
    image, kernel = np.asarray(image, np.float64), np.asarray(kernel, np.float64)
    strides = np.broadcast_to(stride, 2).tolist()
    pads = [padding] * 2 if isinstance(padding, str) else padding
    places = [places_of_pixels(*axis) for axis in zip(image.shape, kernel.shape, strides, pads, strict=False)]
    (top, height), (left, width) = places
    out = np.zeros((height, width, kernel.shape[3]))
    for y, x, i, j in itertools.product(*map(range, (*image.shape[:2], *kernel.shape[:2]))):
        row = strides[0] * y + i - top
        column = strides[1] * x + j - left
        if 0 <= row < height and 0 <= column < width:
            out[row, column] += image[y, x] @ kernel[i, j]
    return out


def places_of_pixels(size: int, length: int, stride: int, padding: str | tuple[int, int]) -> tuple[int, int]:
    """For one axis of a transposed convolution: how much is cut off before, and the size of the output."""
    if padding == "SAME":
        return max(length - stride, 0) // 2, size * stride
    before, after = (0, 0) if isinstance(padding, str) else padding
    return before, (size - 1) * stride + length - before - after


def padded_windows(
    image: Any, window: Sequence[int], *, stride: Any = 1, padding: Any = "VALID", fill: Any = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image (H, W, C) with its padding, and the rows and the columns of every window in it, (H', h) and (W', w)."""
    strides = np.broadcast_to(stride, 2).tolist()
    pads = [padding] * 2 if isinstance(padding, str) else padding
    coordinates, widths = [], []
    for size, length, step, pad in zip(image.shape[:2], window, strides, pads, strict=True):
        first = np.array(starts(size, length, step, pad))
        width = (max(0, -first[0]), max(0, first[-1] + length - size)) if isinstance(pad, str) else pad
        coordinates.append(first[:, None] + np.arange(length) + width[0])
        widths.append(width)
    widths.append((0, 0))
    mode: dict[str, Any] = {"mode": fill} if isinstance(fill, str) else {"constant_values": fill}
    rows, columns = coordinates
    return np.pad(image, widths, **mode), rows, columns


def patches(image: Any, window: Sequence[int], **options: Any) -> np.ndarray:
    """The patches of an image (H, W, C) with its padding, (H', W', h, w, C)."""
    padded, rows, columns = padded_windows(image, window, **options)
    return padded[rows[:, None, :, None], columns[:, None, :]]


def scores(
    name: str, image: Any, feature: Any, *, mask: Any = None, p: float = 2.0, q: float = 1e-3, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Any score of `matching` by its formula, patch by patch, and where it is defined."""
    image, feature = (np.asarray(a, np.float64).reshape(*np.shape(a)[:2], -1) for a in (image, feature))
    m = np.ones(feature.shape) if mask is None else np.reshape(mask, feature.shape)
    m = m.astype(np.float64) if m.dtype.kind == "f" else (m != 0).astype(np.float64)
    all_patches = patches(image, feature.shape[:2], **options)

    def total(pixels: np.ndarray) -> Any:
        return pixels.sum(axis=(-3, -2, -1))

    def means(pixels: np.ndarray) -> Any:
        weights = m.sum(axis=(0, 1))
        return (m * pixels).sum(axis=(-3, -2), keepdims=True) / np.where(weights > 0, weights, 1)

    def is_constant(pixels: np.ndarray) -> Any:
        largest = np.where(m != 0, pixels, -np.inf).max(axis=(-3, -2))
        smallest = np.where(m != 0, pixels, np.inf).min(axis=(-3, -2))
        return (largest <= smallest).all(axis=-1)

    with np.errstate(all="ignore"):
        weighted_feature = m * feature
        weighted_patches = m * all_patches
        if name == "zncc":
            weighted_feature = weighted_feature - m * means(feature)
            weighted_patches = weighted_patches - m * means(all_patches)
        dot = total(weighted_feature * weighted_patches)
        patch_norm = np.sqrt(total(weighted_patches**2))
        feature_norm = np.sqrt(total(weighted_feature**2))
        norms = patch_norm * feature_norm
        if name == "match":
            out = dot / (m**2).sum()
        elif name == "squared_difference":
            out = total((weighted_feature - weighted_patches) ** 2) / (m.sum() > 0)
        elif name == "normalized_squared_difference":
            out = total((weighted_feature - weighted_patches) ** 2) / norms
        elif name == "sharpened_cosine":
            c = dot / ((patch_norm + q) * feature_norm)
            out = np.where(norms != 0, np.sign(c) * np.abs(c) ** p, np.nan)
        elif name == "zncc":
            out = np.where(is_constant(feature) | is_constant(all_patches), np.nan, dot / norms)
        else:
            out = dot / norms
    return np.where(np.isfinite(out), out, 0), np.isfinite(out)


def match(image: Any, feature: Any, **options: Any) -> np.ndarray:
    """`cnn_jax.match`."""
    return scores("match", image, feature, **options)[0]


def intersection_over_union(a: Sequence[float], b: Sequence[float]) -> float:
    """The overlap of two boxes (top, left, height, width)."""
    rows = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    columns = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    intersection = max(rows, 0) * max(columns, 0)
    return intersection / (a[2] * a[3] + b[2] * b[3] - intersection)


def pool(
    image: Any, reduce: Callable[[np.ndarray], Any], *, window: Any = 2, stride: Any = 2, padding: Any = "VALID"
) -> np.ndarray:
    """`reduce` of the pixels of every window in reading order, without padding, for each channel."""
    image = np.asarray(image, np.float64)
    if image.ndim == 3:
        options = {"window": window, "stride": stride, "padding": padding}
        return np.stack([pool(channel, reduce, **options) for channel in np.moveaxis(image, -1, 0)], -1)
    rows, columns = both_axes(image.shape, window, stride, padding)
    return np.array(
        [[reduce(np.array([image[r, c] for _, r in row for _, c in col])) for col in columns] for row in rows]
    )


def largest_magnitude(pixels: np.ndarray) -> float:
    """The value of largest magnitude; of a number and its negative, the positive one."""
    return max(pixels, key=lambda value: (abs(value), value))


def windows_with(pixel: tuple[int, int], shape: tuple[int, ...], window: int) -> np.ndarray:
    """Which VALID windows of an image contain a pixel."""
    marked = np.zeros(shape)
    marked[pixel] = 1
    return pool(marked, np.max, window=window, stride=1) == 1


def resample(image: Any, rows: Any, columns: Any, fill: float = -1.0) -> np.ndarray:
    """Bilinear interpolation, pixel by pixel."""
    image = np.asarray(image, np.float64)
    height, width = image.shape[:2]

    def pixel(r: int, c: int) -> np.ndarray:
        return image[r, c] if 0 <= r < height and 0 <= c < width else np.full(image.shape[2:], fill)

    def between(y: float, x: float) -> np.ndarray:
        r, c = int(np.floor(y)), int(np.floor(x))
        v, u = y - r, x - c
        top = (1 - u) * pixel(r, c) + u * pixel(r, c + 1)
        bottom = (1 - u) * pixel(r + 1, c) + u * pixel(r + 1, c + 1)
        return (1 - v) * top + v * bottom

    return np.array([[between(y, x) for y, x in zip(*line, strict=True)] for line in zip(rows, columns, strict=True)])


def cubic_weights(size: int, grid: int) -> np.ndarray:
    """Keys' cubic convolution (a = -1/2) from a coarse grid to `size` pixels as a matrix; centers are spaced evenly."""
    positions = (np.arange(size) + 0.5) * grid / size - 0.5
    x = np.abs(positions[:, None] - np.arange(grid))
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return weights / weights.sum(1, keepdims=True)


# Layouts of windows for fast tests: every padding, even and odd windows, strides below and above the window.
LAYOUTS: tuple[dict[str, Any], ...] = (
    {"shape": (6, 7), "window": (3, 2), "stride": (1, 1), "padding": "VALID"},
    {"shape": (7, 5), "window": (2, 3), "stride": (2, 1), "padding": "SAME"},
    {"shape": (7, 6), "window": (2, 2), "stride": (2, 2), "padding": "CEIL"},
    {"shape": (8, 5), "window": (3, 4), "stride": (2, 3), "padding": ((2, 1), (0, 3))},
)


def layout_id(layout: dict[str, Any]) -> str:
    """For `pytest.mark.parametrize(ids=)`."""
    return layout["padding"] if isinstance(layout["padding"], str) else "explicit"


@st.composite
def layouts(draw: st.DrawFn, *, dilated: bool = False, wide_border: bool = False) -> dict[str, Any]:
    """A shape and a window that fits it: `shape`, `window`, `stride`, `padding` and, if dilated, `dilation`.

    Explicit padding is narrower than the window, so that every window holds a pixel, unless `wide_border`.
    """
    kind = draw(st.sampled_from(["VALID", "SAME", "CEIL", "explicit"]))
    axes = []
    for _ in range(2):
        window = draw(st.integers(1, 4))
        dilation = draw(st.integers(1, 2)) if dilated else 1
        reach = (window - 1) * dilation + 1
        size = draw(st.integers(1 if kind in ("SAME", "CEIL") else reach, 9))
        pad = st.integers(0, reach if wide_border else window - 1)
        axes.append((size, window, draw(st.integers(1, 3)), draw(st.tuples(pad, pad)), dilation))
    shape, window, stride, pads, dilation = zip(*axes, strict=True)
    out = {"shape": shape, "window": window, "stride": stride, "padding": pads if kind == "explicit" else kind}
    return out | {"dilation": dilation} if dilated else out


seeds = st.integers(0, 2**32 - 1)


def whole(seed: int, *shape: int) -> np.ndarray:
    """Small whole numbers: float32 adds and multiplies them exactly, in any order, so that equal means equal."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)


def assert_same(got: Any, expected: Any, method: str) -> None:
    """Sums of whole numbers are exact by every method but Fourier transforms, which round to their contrast."""
    tolerance = 1e-5 * np.max(np.abs(np.nan_to_num(expected)), initial=1) if method == "fft" else 0
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)


def noise(seed: int, *shape: int) -> np.ndarray:
    """Normally distributed numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def convolutions(function: Callable[..., Any], *args: Any) -> list[bool]:
    """The convolutions that a function lowers to on a GPU: for each, whether it is dense (not grouped)."""
    text = jax.jit(function).trace(*args).lower(lowering_platforms=("cuda",)).as_text()
    lines = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    return ["batch_group_count = 1 " in line and "feature_group_count = 1 " in line for line in lines]


def rectangle_corners(rectangle: Sequence[float]) -> list[tuple[float, float]]:
    """The corners (y, x) of a rectangle (center y, center x, height, width, angle), its top left one first."""
    y, x, height, width, angle = (float(value) for value in rectangle)
    cos = np.cos(angle)
    sin = np.sin(angle)
    signs = [(-0.5, -0.5), (-0.5, 0.5), (0.5, 0.5), (0.5, -0.5)]
    offsets = [(down * height, right * width) for down, right in signs]
    return [(y + cos * down - sin * right, x + sin * down + cos * right) for down, right in offsets]


def rectangle_intersection(a: Sequence[float], b: Sequence[float]) -> float:
    """Area of the intersection of two turned rectangles, by Sutherland-Hodgman clipping."""
    center = np.array([float(a[0]), float(a[1])])
    polygon = [np.array(corner) - center for corner in rectangle_corners(a)]
    window = [np.array(corner) - center for corner in rectangle_corners(b)]
    for start, end in zip(window, window[1:] + window[:1], strict=True):
        polygon = clip_polygon(polygon, start, end)
    following = polygon[1:] + polygon[:1]
    return abs(sum(p[0] * q[1] - p[1] * q[0] for p, q in zip(polygon, following, strict=True))) / 2


def clip_polygon(polygon: Sequence[np.ndarray], start: np.ndarray, end: np.ndarray) -> list[np.ndarray]:
    """The part of a convex polygon on the inner side of an edge of a clockwise one."""
    edge = end - start
    sides = [edge[1] * (corner[0] - start[0]) - edge[0] * (corner[1] - start[1]) for corner in polygon]
    clipped = []
    for i, (corner, side) in enumerate(zip(polygon, sides, strict=True)):
        j = (i + 1) % len(polygon)
        if side >= 0:
            clipped.append(corner)
        if side * sides[j] < 0:
            clipped.append(corner + side / (side - sides[j]) * (polygon[j] - corner))
    return clipped


def turned_intersection_over_union(a: Sequence[float], b: Sequence[float]) -> float:
    """The overlap of two rectangles (center y, center x, height, width, angle)."""
    intersection = rectangle_intersection(a, b)
    return intersection / (float(a[2] * a[3]) + float(b[2] * b[3]) - intersection)


def scaling_weights(old_size: int, new_size: int, scale: float) -> np.ndarray:
    """Linear interpolation about the center as a matrix (new, old), widened where the scale is below 1."""
    centers = (np.arange(new_size) - (new_size - 1) / 2) / scale + (old_size - 1) / 2
    distance = np.abs(centers[:, None] - np.arange(old_size)) / max(1 / scale, 1)
    weights = np.maximum(1 - distance, 0)
    return weights / weights.sum(axis=1, keepdims=True)


def posed_template(template: Any, mask: Any, scale: float, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """A template (h, w, C), scaled and then rotated, on the upright box around it, and the pixels that count."""
    old_size = template.shape[:2]
    height, width = (max(1, round(side * scale)) for side in old_size)
    cos, sin = np.cos(angle), np.sin(angle)
    box = [round(abs(cos) * a + abs(sin) * b) for a, b in ((height, width), (width, height))]
    down, right = np.indices(box) - (np.reshape(box, (2, 1, 1)) - 1) / 2
    rows = np.round(cos * down + sin * right + (height - 1) / 2, 6)
    columns = np.round(cos * right - sin * down + (width - 1) / 2, 6)
    inside = (rows >= -0.5) & (rows <= height - 0.5) & (columns >= -0.5) & (columns <= width - 0.5)

    def posed(pixels: np.ndarray) -> np.ndarray:
        weights = [scaling_weights(old, new, scale) for old, new in zip(old_size, (height, width), strict=True)]
        scaled = np.einsum("yi,xj,ijc->yxc", *weights, pixels)
        return resample(scaled, np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1))

    counted = np.ones(template.shape) if mask is None else np.asarray(mask, np.float64).reshape(template.shape)
    coverage = posed(counted)
    pixels = posed(np.where(counted > 0, template, 0)) / np.maximum(coverage, 0.5)
    return pixels, (coverage >= 0.5) & inside[:, :, None]


def pose_maps(
    name: str, image: Any, template: Any, poses: Sequence[tuple[float, float]], mask: Any = None
) -> np.ndarray:
    """The score of a template in every pose (scale, angle) at its box's middle pixel, NaN where a box ends outside."""
    image, template = (np.asarray(a, np.float64).reshape(*np.shape(a)[:2], -1) for a in (image, template))
    maps = np.full((len(poses), *image.shape[:2]), np.nan)
    for out, (scale, angle) in zip(maps, poses, strict=True):
        pixels, counted = posed_template(template, mask, scale, angle)
        if all(side <= n for side, n in zip(pixels.shape, image.shape[:2], strict=False)):
            top, left = ((side - 1) // 2 for side in pixels.shape[:2])
            score_map, _ = scores(name, image, pixels, mask=counted)
            out[top : top + score_map.shape[0], left : left + score_map.shape[1]] = score_map
    return maps


def local_maxima(ranks: np.ndarray) -> set[tuple[int, int]]:
    """Pixels (row, column) that are the first of the largest of their 3x3 neighborhoods; -inf are none."""
    padded = np.pad(ranks, 1, constant_values=-np.inf)
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).reshape(*ranks.shape, 9)
    is_maximum = (around.argmax(axis=-1) == 4) & (ranks > -np.inf) & (around.min(axis=-1) < ranks)
    return {(int(y), int(x)) for y, x in np.argwhere(is_maximum)}
