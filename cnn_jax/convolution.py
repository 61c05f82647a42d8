"""The sliding dot product that everything else is a thin layer above."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, Num

from .windows import Padding, Pads, Pair, accumulator, as_floats, check_shape, count, fold, pads, pair

METHODS = ("auto", "conv", "shift")

# Up to this many products per output, a fused sum of shifted images beats the CPU's convolution: 10 to 50 times for
# one feature, 2 to 6 times for 16, about even for 16 features of 7x7; beyond it the convolution wins.
SHIFT_PRODUCTS = 49


def conv(
    image: Num[Array, "H W C"],
    kernel: Num[Array, "h w Cg K"],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    method: str = "auto",
    precision: lax.PrecisionLike = None,
) -> Float[Array, "H2 W2 K"]:
    """Slides a bank of K kernels over one image and takes the dot product at every position.

        out[y, x, k] = sum over i, j, c of image[stride y + dilation i, stride x + dilation j, c] kernel[i, j, c, k]

    This is correlation: kernels are not flipped. `jax.vmap` over images, over kernels, and one within the other stays
    one dense convolution.

    Args:
      image: one image, channels last. Integers and bools become float32; float16 and bfloat16 add up in float32.
      kernel: K kernels as (h, w, C // groups, K).
      stride: steps between positions, an int or (rows, columns).
      padding: "VALID", "SAME", "CEIL" (the last partial window stays) or ((top, bottom), (left, right)) zeros.
      dilation: distance between the pixels that meet neighbouring kernel pixels, an int or (rows, columns).
      groups: how many blocks the channels are split into; block g meets the g-th block of kernels alone.
      method: "conv" is `lax.conv_general_dilated`; "shift" adds up shifted products, which the CPU fuses; "auto"
        takes "shift" on CPU for at most 49 products per output and "conv" everywhere else.
      precision: as in `lax.conv_general_dilated`; raise it for full float32 on TPU and on GPUs with TF32.

    Returns:
      The dot products, (H', W', K), in the wider dtype of image and kernel. Every method has the gradients of "conv".

    Raises:
      ValueError: a wrong rank, an empty array, channels or groups that do not fit, a kernel larger than the image,
        or an unknown padding or method.
      TypeError: arrays that are not real numbers, or options that are not ints.

    >>> conv(jnp.ones((4, 4, 1)), jnp.ones((3, 3, 1, 2))).shape
    (2, 2, 2)
    """
    image, kernel = as_floats(image=image, kernel=kernel)
    out = wide_conv(
        image,
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        method=method,
        precision=precision,
    )
    return out.astype(image.dtype)


def wide_conv(
    image: Array,
    kernel: Array,
    *,
    stride: int | Sequence[int],
    padding: Padding,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    method: str,
    precision: lax.PrecisionLike,
) -> Array:
    """`conv` of two arrays of one dtype, left in the dtype it adds up in, for what divides before it rounds."""
    check_shape("image", image, "H W C")
    check_shape("kernel", kernel, "h w C K")
    stride, dilation = pair("stride", stride), pair("dilation", dilation)
    groups = count("groups", groups)
    if kernel.shape[2] * groups != image.shape[2]:
        raise ValueError(
            f"kernel: expected shape (h, w, C // groups, K) for C = {image.shape[2]} and groups = {groups}, "
            f"got {kernel.shape}"
        )
    if kernel.shape[3] % groups:
        raise ValueError(f"groups: expected a divisor of the {kernel.shape[3]} kernels, got {groups}")
    if method not in METHODS:
        raise ValueError(f"method: expected one of {METHODS}, got {method!r}")
    if method == "shift" and groups > 1:
        raise ValueError(f"groups: expected 1 with method='shift', got {groups}")

    reach = ((kernel.shape[0] - 1) * dilation[0] + 1, (kernel.shape[1] - 1) * dilation[1] + 1)
    border = pads(padding, image.shape[:2], reach, stride, names=("image", "kernel"))
    plain = functools.partial(
        _plain, stride=stride, border=border, dilation=dilation, groups=groups, precision=precision
    )
    few = kernel.shape[0] * kernel.shape[1] * kernel.shape[2] <= SHIFT_PRODUCTS and groups == 1
    if method == "conv" or (method == "auto" and not few):
        return plain(image, kernel)

    shift = functools.partial(_shift, stride=stride, border=border, dilation=dilation)

    @jax.custom_jvp
    def fast(image: Array, kernel: Array) -> Array:
        if method == "shift":
            return shift(image, kernel)
        return lax.platform_dependent(image, kernel, cpu=shift, default=plain)

    # The derivative of "shift" would add up one slice of the image at a time, several times slower than that of "conv".
    def tangent(primals: tuple[Array, ...], tangents: tuple[Array | SymbolicZero, ...]) -> tuple[Array, Array]:
        image, kernel = primals
        out = fast(image, kernel)
        parts = []
        if not isinstance(tangents[0], SymbolicZero):
            parts.append(plain(tangents[0], kernel))
        if not isinstance(tangents[1], SymbolicZero):
            parts.append(plain(image, tangents[1]))
        return out, sum(parts[1:], parts[0]) if parts else jnp.zeros_like(out)

    fast.defjvp(tangent, symbolic_zeros=True)
    return fast(image, kernel)


def _plain(
    image: Array,
    kernel: Array,
    *,
    stride: Pair,
    border: Pads,
    dilation: Pair,
    groups: int,
    precision: lax.PrecisionLike,
) -> Array:
    out = lax.conv_general_dilated(
        image[None],
        kernel,
        stride,
        border,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=precision,
        preferred_element_type=accumulator(image.dtype),
    )
    return out[0]


def _shift(image: Array, kernel: Array, *, stride: Pair, border: Pads, dilation: Pair) -> Array:
    """The sum of shifted products, behind a wall: fused into a reduction that follows it would lose its speed."""
    add_up = functools.partial(_add_up, stride=stride, border=border, dilation=dilation)
    out = jax.eval_shape(add_up, image, kernel)
    wall = lax.optimization_barrier(jnp.array(True))
    return lax.cond(wall, add_up, lambda *_: jnp.zeros(out.shape, out.dtype), image, kernel)


def _add_up(image: Array, kernel: Array, *, stride: Pair, border: Pads, dilation: Pair) -> Array:
    wide = accumulator(image.dtype)
    image = jnp.pad(image.astype(wide), [*border, (0, 0)])
    kernel = kernel.astype(wide)
    rows, columns, channels, _ = kernel.shape
    height = (image.shape[0] - (rows - 1) * dilation[0] - 1) // stride[0] * stride[0] + 1
    width = (image.shape[1] - (columns - 1) * dilation[1] - 1) // stride[1] * stride[1] + 1
    total = jnp.zeros((), wide)
    for i in range(rows):
        for j in range(columns):
            top, left = i * dilation[0], j * dilation[1]
            shifted = image[top : top + height : stride[0], left : left + width : stride[1]]
            for c in range(channels):
                product = shifted[:, :, c, None] * kernel[i, j, c][None, None, :]
                total = product if i == j == c == 0 else total + product
    return total


def window_sum(
    image: Num[Array, "H W *C"],
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
) -> Float[Array, "H2 W2 *C"]:
    """Adds up the pixels of every window: the box sum, each channel by itself.

        out[y, x] = sum over i < h, j < w of image[stride y + i, stride x + j]

    Rows and columns are added apart and pairwise, without running totals, so that rounding grows with the logarithm of
    the window alone and a NaN or a huge pixel spoils no window but its own.

    Args:
      image: (H, W) or (H, W, C). Integers and bools become float32; float16 and bfloat16 add up in float32.
      window: rows and columns of the window, an int or (h, w).
      stride: steps between windows, an int or (rows, columns).
      padding: "VALID", "SAME", "CEIL" or ((top, bottom), (left, right)); padded cells are 0.

    Raises:
      ValueError: a wrong rank, an empty image, a window larger than the padded image, an unknown padding.
      TypeError: an image that is not real numbers, options that are not ints.

    >>> window_sum(jnp.arange(9).reshape(3, 3), 2)
    Array([[ 8., 12.],
           [20., 24.]], dtype=float32)
    """
    (image,) = as_floats(image=image)
    check_shape("image", image, "H W", "H W C")
    window, stride = pair("window", window), pair("stride", stride)
    border = pads(padding, image.shape[:2], window, stride, names=("image", "window"))
    wide = image.astype(accumulator(image.dtype))
    return fold(wide, window, stride, border, 0, jnp.add).astype(image.dtype)
