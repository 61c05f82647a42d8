"""Public convolution functions: correlation of one image with a bank of kernels, and window sums."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Shaped

from ._algorithms import GROUPED_METHODS, check_method
from ._correlate import correlate_image
from ._dtypes import accumulation_dtype
from ._geometry import dilated_size
from ._grouped import grouped_correlate
from ._padding import explicit_padding
from ._programs import compiled
from ._reduce_windows import add, reduce_windows
from ._typing import AnyArray, Padding, Pads, Pair
from ._validation import as_pair, check_arrays, check_image, check_int, check_shape, to_floats

__all__ = ["Padding", "conv", "conv_transpose", "window_sum"]


def conv(
    image: Shaped[ArrayLike, "H W C"],
    kernel: Shaped[ArrayLike, "h w Cg K"],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    method: str = "auto",
    precision: lax.PrecisionLike = None,
) -> Float[Array, "H2 W2 K"]:
    """Cross-correlation of one image with a bank of K kernels, the "convolution" of neural networks.

        out[y, x, k] = sum over i, j, c of image[stride y + dilation i, stride x + dilation j, c] kernel[i, j, c, k]

    Kernels are not flipped.

    Args:
      image: one image, channels last. Integers and bools become float32.
      kernel: K kernels, (h, w, C // groups, K).
      stride: steps between positions, an int or (rows, columns).
      padding: "VALID", "SAME", "CEIL" (keeps the last partial window) or ((top, bottom), (left, right)) zeros.
      dilation: spacing between kernel pixels, an int or (rows, columns).
      groups: number of blocks that channels and kernels are split into. Kernels of a block see its channels only.
      method: the algorithm.
        "conv" is `lax.conv_general_dilated`;
        "shift" adds shifted products, fused on the CPU;
        "im2col" extracts patches of some images at a time and multiplies matrices;
        "fft" multiplies Fourier transforms of tiles, which is fast for large kernels;
        "auto" chooses the fastest for the whole batch and for the platform that it is compiled for.
      precision: as in `lax.conv_general_dilated`. Raise it for full float32 on TPUs, and on GPUs with TF32.

    Returns:
      The dot products, in the wider dtype of image and kernel.

    Raises:
      ValueError: an array has the wrong rank or is empty; channels or kernels do not fit `groups`; the kernel is larger
        than the padded image; `padding` or `method` is unknown; `groups` is above 1 with another method than "auto" and
        "conv".
      TypeError: an array does not hold real numbers, or an option is not an int.

    Notes:
      `jax.vmap` over images, over kernels, or over one inside of the other stays one dense convolution. Over pairs of
      images and kernels it is one grouped convolution.

      With `groups`, accelerators run XLA's grouped convolution. The CPU computes groups of few channels side by side,
      and others one after another, because XLA's takes tens of times as long there.

      Both gradients are correlations again, by the same method ("auto" for those of "shift").

      float16 and bfloat16 are summed in float32. "fft" rounds to about 1e-6 of the contrast within a tile.

    >>> import jax.numpy as jnp
    >>> conv(jnp.ones((4, 4, 1)), jnp.ones((3, 3, 1, 2))).shape
    (2, 2, 2)
    """
    image, kernel = check_arrays(image=image, kernel=kernel)
    check_shape("image", image, "H W C")
    check_shape("kernel", kernel, "h w C K")
    strides = as_pair("stride", stride)
    dilations = as_pair("dilation", dilation)
    groups = check_int("groups", groups)
    _check_groups(image, kernel, groups)
    method = check_method(method)
    if method not in GROUPED_METHODS and groups > 1:
        raise ValueError(f"groups: expected 1 with method={method!r}, got {groups}")
    kernel_size = dilated_size(kernel.shape[:2], dilations)
    pads = explicit_padding(padding, image.shape[:2], kernel_size, strides, names=("image", "kernel"))
    return _conv(image, kernel, strides, pads, dilations, groups, method, precision)


@compiled("stride", "padding", "dilation", "groups", "method", "precision")
def _conv(
    image: Array,
    kernel: Array,
    stride: Pair,
    padding: Pads,
    dilation: Pair,
    groups: int,
    method: str,
    precision: lax.PrecisionLike,
) -> Array:
    image, kernel = to_floats(image, kernel)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "method": method, "precision": precision}
    if groups == 1:
        out = correlate_image(image, kernel, **options)
    else:
        images = image.reshape(1, *image.shape[:2], groups, -1)
        weights = kernel.reshape(*kernel.shape[:3], groups, -1).swapaxes(2, 3)
        out = grouped_correlate(images, weights, **options)[0]
        out = out.reshape(*out.shape[:2], -1)
    return out.astype(image.dtype)


def _check_groups(image: AnyArray, kernel: AnyArray, groups: int) -> None:
    if kernel.shape[2] * groups != image.shape[2]:
        raise ValueError(
            f"kernel: expected shape (h, w, C // groups, K) for C = {image.shape[2]} and groups = {groups}, "
            f"got {kernel.shape}"
        )
    if kernel.shape[3] % groups:
        raise ValueError(f"groups: expected a divisor of the {kernel.shape[3]} kernels, got {groups}")


def conv_transpose(
    image: Shaped[ArrayLike, "H W C"],
    kernel: Shaped[ArrayLike, "h w C K"],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    method: str = "auto",
    precision: lax.PrecisionLike = None,
) -> Float[Array, "H2 W2 K"]:
    """Transposed convolution of one image with a bank of K kernels: the transpose of `conv` as a linear map.

        out[stride y + i - top, stride x + j - left, k] = sum of image[y, x, c] kernel[i, j, c, k]

    The sum is over all y, x, i, j, c that lead to the same pixel. `conv` with the same options, and with the two last
    axes of the kernel swapped, has `out` as its input and the image as its output.

    Args:
      image: one image, channels last. Integers and bools become float32.
      kernel: K kernels, (h, w, C, K).
      stride: steps between the places of neighboring pixels, an int or (rows, columns).
      padding: that of `conv`: "SAME" gives stride H rows; "VALID" and "CEIL" give stride (H - 1) + h rows; pads
        ((top, bottom), (left, right)) remove as many of these.
      method, precision: as in `conv`.

    Returns:
      The image of K channels, in the wider dtype of image and kernel.

    Raises:
      ValueError: an array has the wrong rank or is empty; the kernel has other channels; the padding removes all
        pixels; `padding` or `method` is unknown.
      TypeError: an array does not hold real numbers, or an option is not an int.

    Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016),
    https://arxiv.org/abs/1603.07285

    >>> conv_transpose(jnp.array([[[1.0], [2.0]]]), jnp.ones((1, 3, 1, 1)), stride=2)[0, :, 0]
    Array([1., 1., 3., 2., 2.], dtype=float32)
    """
    image, kernel = check_arrays(image=image, kernel=kernel)
    check_shape("image", image, "H W C")
    check_shape("kernel", kernel, "h w C K")
    strides = as_pair("stride", stride)
    method = check_method(method)
    if kernel.shape[2] != image.shape[2]:
        raise ValueError(f"kernel: expected shape (h, w, {image.shape[2]}, K), got {kernel.shape}")
    size = _transposed_size(image.shape[:2], kernel.shape[:2], strides, padding)
    pads = explicit_padding(padding, size, kernel.shape[:2], strides, names=("output", "kernel"))
    return _conv_transpose(image, kernel, size, strides, pads, method, precision)


def _transposed_size(size: tuple[int, ...], kernel_size: tuple[int, ...], stride: Pair, padding: Padding) -> Pair:
    """Rows and columns of the image that `conv` maps to an image of this size."""
    if padding == "SAME":
        return size[0] * stride[0], size[1] * stride[1]
    pads = explicit_padding(padding, kernel_size, kernel_size, stride, names=("output", "kernel"))
    rows, columns = ((n - 1) * s + k - sum(p) for n, s, k, p in zip(size, stride, kernel_size, pads, strict=True))
    if rows < 1 or columns < 1:
        raise ValueError(f"padding: expected less than the size of the output without it, got {padding!r}")
    return rows, columns


@compiled("size", "stride", "padding", "method", "precision")
def _conv_transpose(
    image: Array, kernel: Array, size: Pair, stride: Pair, padding: Pads, method: str, precision: lax.PrecisionLike
) -> Array:
    image, kernel = to_floats(image, kernel)
    channels_swapped = jnp.swapaxes(kernel, 2, 3)

    def correlate(out: Array) -> Array:
        return _conv(out, channels_swapped, stride, padding, (1, 1), 1, method, precision)

    out = jax.ShapeDtypeStruct((*size, kernel.shape[3]), image.dtype)
    return jax.linear_transpose(correlate, out)(image)[0]


def window_sum(
    image: Shaped[ArrayLike, "H W *C"],
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
) -> Float[Array, "H2 W2 *C"]:
    """Box sum: the sum of the pixels of every window, for each channel.

        out[y, x] = sum over i < h, j < w of image[stride y + i, stride x + j]

    Args:
      image: (H, W) or (H, W, C). Integers and bools become float32.
      window: rows and columns of the window, an int or (h, w).
      stride: steps between windows, an int or (rows, columns).
      padding: "VALID", "SAME", "CEIL" or ((top, bottom), (left, right)); padded pixels are 0.

    Returns:
      The sums, in the image's floating dtype.

    Raises:
      ValueError: the image has the wrong rank or is empty; the window is larger than the padded image; the padding is
        unknown.
      TypeError: the image does not hold real numbers, or an option is not an int.

    Notes:
      Rows and columns are summed separately and pairwise, without running totals. So rounding grows with the logarithm
      of the window's size only, and a NaN or a huge pixel affects only the windows that contain it.

      float16 and bfloat16 are summed in float32.

    >>> import jax.numpy as jnp
    >>> window_sum(jnp.arange(9).reshape(3, 3), 2)
    Array([[ 8., 12.],
           [20., 24.]], dtype=float32)
    """
    image = check_image(image)
    window_size = as_pair("window", window)
    strides = as_pair("stride", stride)
    pads = explicit_padding(padding, image.shape[:2], window_size, strides, names=("image", "window"))
    return _window_sum(image, window_size, strides, pads)


@compiled("window", "stride", "pads")
def _window_sum(image: Array, window: Pair, stride: Pair, pads: Pads) -> Array:
    (image,) = to_floats(image)
    terms = image.astype(accumulation_dtype(image.dtype))
    return reduce_windows(terms, window, stride, pads, 0, add).astype(image.dtype)
