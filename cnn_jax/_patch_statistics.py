"""What the scores of `matching` are made of: checked arguments, and sums over every patch of an image."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ._dtypes import accumulation_dtype
from ._padding import NO_PADDING, explicit_padding
from ._reduce_windows import reduce_windows
from ._typing import Padding, Pads, Pair
from ._validation import as_floats, as_pair, broadcast_mask, check_shape
from ._xla import no_fusion
from .convolution import wide_conv

# What a window's pixels may exceed the image's usual contrast by: squares of this are still far from overflow.
LARGEST = 2.0**50
# Up to about this many pixels in each direction tell an image's usual brightness and contrast.
SAMPLES = 64


class Patches(NamedTuple):
    """Checked arguments: image (H, W, C) with its border, feature (h, w, C), both in the dtype to compute in."""

    image: Array
    feature: Array
    mask: Array | None
    binary: bool
    stride: Pair
    dot: Callable[..., Array]
    dtype: Any

    @property
    def window(self) -> Pair:
        """The feature's rows and columns."""
        return self.feature.shape[0], self.feature.shape[1]

    def weighted(self, feature: Array) -> Array:
        """m² times an array like the feature, and 0 rather than NaN where m is 0."""
        return feature if self.mask is None else jnp.where(self.mask != 0, self.mask**2 * feature, 0)

    def total(self) -> Array | int:
        """Σ m²."""
        return self.feature.size if self.mask is None else (self.mask**2).sum()

    def sum_squares(self, image: Array) -> Array:
        """Σ m² p² over every patch of an image like ours."""
        squares = image**2
        if self.mask is None:
            return reduce_windows(squares.sum(axis=-1), self.window, self.stride, NO_PADDING, 0, lambda a, b, *_: a + b)
        return jnp.maximum(self.dot(squares, self.mask**2), 0)

    def black(self, image: Array) -> Array | bool:
        """Which patches are all zero under the mask, lest Fourier transforms leave of them what they round."""
        if self.mask is None:
            return False
        return self.dot((image != 0).astype(image.dtype), (self.mask != 0).astype(image.dtype)) < 0.5


def prepare(
    image: Any,
    feature: Any,
    mask: Any,
    stride: int | Sequence[int],
    padding: Padding,
    fill: float | str,
    method: str,
    precision: lax.PrecisionLike,
) -> Patches:
    """The arguments of a score, checked."""
    image, feature = as_floats(image=image, feature=feature)
    check_shape("image", image, "H W", "H W C")
    check_shape("feature", feature, "h w", "h w C")
    if image.shape[2:] != feature.shape[2:]:
        raise ValueError(
            f"feature: expected the channels of the image of shape {image.shape}, got shape {feature.shape}"
        )
    if feature.shape[0] > image.shape[0] or feature.shape[1] > image.shape[1]:
        raise ValueError(f"feature: expected at most the size of the image {image.shape[:2]}, got {feature.shape[:2]}")
    dtype, wide = image.dtype, accumulation_dtype(image.dtype)
    steps = as_pair("stride", stride)
    border = explicit_padding(padding, image.shape[:2], feature.shape[:2], steps, names=("image", "feature"))
    binary = True
    if mask is not None:
        mask = broadcast_mask(mask, feature.shape)
        binary = mask.dtype == jnp.bool_
        mask = mask.astype(wide).reshape(*feature.shape[:2], -1)
    image, feature = (array.astype(wide).reshape(*array.shape[:2], -1) for array in (image, feature))
    dot = functools.partial(_dot, stride=steps, method=method, precision=precision)
    return Patches(_bordered(image, border, fill), feature, mask, binary, steps, dot, dtype)


def _dot(image: Array, kernel: Array, **options: Any) -> Array:
    return wide_conv(image, kernel[..., None], padding="VALID", **options)[..., 0]


def _bordered(image: Array, border: Pads, fill: float | str) -> Array:
    widths = [*border, (0, 0)]
    if isinstance(fill, str):
        if fill not in ("edge", "reflect"):
            raise ValueError(f"fill: expected a number, 'edge' or 'reflect', got {fill!r}")
        return jnp.pad(image, widths, mode=fill)
    try:
        return jnp.pad(image, widths, constant_values=float(fill))
    except TypeError:
        raise TypeError(f"fill: expected a number, 'edge' or 'reflect', got {fill!r}") from None


# The scores: each gives its map, where it is defined, and what others make use of.


def match(inputs: Patches) -> tuple[Array, Array]:
    """Σ m² p f / Σ m²."""
    if inputs.mask is None:
        out = inputs.dot(inputs.image, inputs.feature, divisor=inputs.feature.size)
        return out, jnp.broadcast_to(True, out.shape)
    total = inputs.total()
    ok = jnp.asarray(total) > 0
    dot = inputs.dot(inputs.image, inputs.weighted(inputs.feature))
    out = jnp.where(ok, dot / jnp.where(ok, total, 1).astype(dot.dtype), 0)
    return out, jnp.broadcast_to(ok, out.shape)


def cosine(inputs: Patches) -> tuple[Array, Array, Array, Array]:
    """The cosine, where it is defined, and the norms of the patches and of the feature."""
    centre, contrast = _typical(inputs.image, centred=False)
    image, (feature, scale) = _normalized(inputs.image, centre, contrast), _scaled(inputs.feature, inputs)
    dot = inputs.dot(image, inputs.weighted(feature))
    patch, own = jnp.where(inputs.black(image), 0, inputs.sum_squares(image)), inputs.weighted(feature**2).sum()
    out, ok = _ratio(dot, patch, own)
    norms = [jnp.where(ok, jnp.sqrt(jnp.where(ok, squares, 1)), 0) for squares in (patch, own)]
    return out, ok, norms[0] * contrast, norms[1] * scale


def zncc(inputs: Patches) -> tuple[Array, Array]:
    """The zero-mean cosine, from sums about the image's usual brightness."""
    centre, contrast = _typical(inputs.image, centred=True)
    image = _normalized(inputs.image, centre, contrast)
    feature, _ = _scaled(_centred(inputs), inputs)
    kernel, own = inputs.weighted(feature), inputs.weighted(feature**2).sum()
    dot = inputs.dot(image, kernel)
    if inputs.mask is None:
        patch = _moments(image, inputs)[1]
    else:
        mask, total = inputs.mask, inputs.mask.sum()
        mean = inputs.dot(image, mask) / jnp.where(total > 0, total, 1)
        linear = mean * total if inputs.binary else inputs.dot(image, mask**2)
        squares = inputs.sum_squares(image)
        patch = squares - 2 * mean * linear + mean**2 * (mask**2).sum()
        flat = _moments(image, inputs)[1] == 0  # all of the patch, so under the mask too, and free of rounding
        patch = jnp.where(flat | (patch <= 8 * jnp.finfo(patch.dtype).eps * squares), 0, patch)
        dot = dot - mean * kernel.sum()
    return _ratio(dot, patch, own)


def squared_difference(inputs: Patches) -> tuple[Array, Array]:
    """Σ m² (p - f)²."""
    centre, _ = _typical(inputs.image, centred=True)
    image, feature = inputs.image - centre, inputs.feature - centre
    if inputs.mask is None:
        mean, spread = _moments(image, inputs)
        own = feature.mean()
        rest = feature - own
        out = (mean - own) ** 2 * feature.size + spread + (rest**2).sum() - 2 * inputs.dot(image, rest)
    else:
        cross = inputs.dot(image, inputs.weighted(feature))
        out = inputs.sum_squares(image) + inputs.weighted(feature**2).sum() - 2 * cross
    ok = jnp.asarray(inputs.total()) > 0
    return jnp.where(ok, jnp.maximum(out, 0), 0), jnp.broadcast_to(ok, out.shape)


def normalized_squared_difference(inputs: Patches) -> tuple[Array, Array]:
    """The squared difference over both norms, from the cosine."""
    cos, ok, patch, own = cosine(inputs)
    patch, own = jnp.where(ok, patch, 1), jnp.where(ok, own, 1)
    return jnp.where(ok, jnp.maximum(patch / own + own / patch - 2 * cos, 0), jnp.where(jnp.isnan(cos), cos, 0)), ok


def _ratio(dot: Array, patch: Array, own: Array) -> tuple[Array, Array]:
    """dot / sqrt(patch own) in [-1, 1], and 0 where there is nothing to divide by."""

    def inverse_root(squares: Array) -> Array:
        there = squares > 0
        root = 1 / jnp.sqrt(jnp.where(there, squares, 1))  # whose derivative does not overflow where that of rsqrt does
        return jnp.where(there, root, jnp.where(jnp.isnan(squares), jnp.nan, 0).astype(root.dtype))

    # By itself, so that a bank of features does not compute it once for each of them.
    out = jnp.clip(dot * no_fusion(inverse_root, patch) * inverse_root(own), -1, 1)
    return out, (patch > 0) & (own > 0)


def _moments(image: Array, inputs: Patches) -> tuple[Array, Array]:
    """The mean of every patch and the sum of its squared deviations from it, (H', W'), without a mask."""
    channels = jnp.moveaxis(image, -1, 0)

    def moments(channel: Array) -> tuple[Array, Array]:
        start = channel, jnp.zeros_like(channel)
        return reduce_windows(start, inputs.window, inputs.stride, NO_PADDING, 0, _merge)

    means, spreads = jax.vmap(moments)(channels)
    if len(channels) == 1:
        return means[0], spreads[0]
    mean = means[0] + (means - means[:1]).mean(axis=0)  # of equal means exactly that, so that flat stays flat
    pixels = inputs.feature.shape[0] * inputs.feature.shape[1]
    return mean, spreads.sum(axis=0) + ((means - mean[None]) ** 2).sum(axis=0) * pixels


def _merge(a: tuple[Array, Array], b: tuple[Array, Array], many: int, few: int) -> tuple[Array, Array]:
    """Mean and spread of two sets of pixels together; of equal means none is changed, so that flat stays flat."""
    step = b[0] - a[0]
    return a[0] + step * (few / (many + few)), a[1] + b[1] + step**2 * (many * few / (many + few))


def _centred(inputs: Patches) -> Array:
    """The feature less its mean, Σ m f / Σ m; exactly 0 where it is flat."""
    feature = inputs.feature
    weights = jnp.ones_like(feature) if inputs.mask is None else inputs.mask
    counts = weights != 0
    level = lax.stop_gradient(jnp.where(counts, feature, -jnp.inf).max())
    feature = jnp.where(counts, feature - jnp.where(jnp.isneginf(level), 0, level), 0)
    total = jnp.where(counts, weights, 0).sum()
    for _ in range(2):  # the second time takes away what rounding left the first time
        feature = jnp.where(counts, feature - (weights * feature).sum() / jnp.where(total != 0, total, 1), 0)
    return feature


def _scaled(feature: Array, inputs: Patches) -> tuple[Array, Array]:
    """The feature divided by its largest magnitude, and that."""
    counts = True if inputs.mask is None else inputs.mask != 0
    scale = lax.stop_gradient(jnp.where(counts, jnp.abs(feature), 0).max())
    scale = jnp.where(scale > 0, scale, 1)
    return feature / scale, scale


def _typical(image: Array, *, centred: bool) -> tuple[Array, Array]:
    """An image's usual brightness, or 0, and its usual contrast to it: medians over rows, so that no pixel rules both.

    Scores do not depend on either; they only keep sums small, so no gradient passes through them.
    """
    image = lax.stop_gradient(image)
    sample = image[:: -(-image.shape[0] // SAMPLES), :: -(-image.shape[1] // SAMPLES)]
    rows = sample.reshape(len(sample), -1)
    finite = jnp.isfinite(rows)
    counts = finite.sum(axis=1).astype(rows.dtype)
    there = jnp.maximum((counts > 0).sum(), 1)

    def median(rows: Array) -> Array:
        means = jnp.where(finite, rows / jnp.maximum(counts, 1)[:, None], 0).sum(axis=1)
        ordered = jnp.sort(jnp.where(counts > 0, means, jnp.inf))
        middle = (ordered[(there - 1) // 2] + ordered[there // 2]) / 2
        return jnp.where(jnp.isfinite(middle), middle, 0)

    centre = median(rows) if centred else jnp.zeros((), rows.dtype)
    usual = median(jnp.abs(rows - centre))
    clean = jnp.where(jnp.isfinite(image), image, centre)
    largest = jnp.maximum(clean.max() - centre, centre - clean.min())
    largest = jnp.where(jnp.isfinite(largest) & (largest > 0), largest, 0)
    quiet = jnp.where(largest > 0, largest, 1)  # most of the image is flat
    # Nor may what is bright in an otherwise dark image be cut off.
    contrast = jnp.where(usual > 0, jnp.maximum(usual, largest / LARGEST), quiet)
    return centre, contrast


def _normalized(image: Array, centre: Array, contrast: Array) -> Array:
    """The image about its centre in units of its contrast, within limits; by itself, lest all sums compute it anew."""

    def normalized(image: Array, centre: Array, contrast: Array) -> Array:
        image = (image - centre) / contrast
        return jnp.where(jnp.isfinite(image), jnp.clip(image, -LARGEST, LARGEST), jnp.nan)

    return no_fusion(normalized, image, centre, contrast)
