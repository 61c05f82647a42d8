"""The sliding dot product that everything else is a thin layer above."""

from collections.abc import Sequence

from jax import lax
from jaxtyping import Array, Float, Num

from ._correlate import check_method, convolve, correlate_image
from ._dtypes import accumulation_dtype
from ._padding import explicit_padding
from ._reduce_windows import reduce_windows
from ._typing import Padding
from ._validation import as_floats, as_pair, check_int, check_shape


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
      method: "conv" is `lax.conv_general_dilated`; "shift" adds up shifted products, fused on the CPU; "im2col" writes
        patches side by side, those of some images at a time, and multiplies matrices; "fft" multiplies Fourier
        transforms of tiles, for large kernels, and rounds to about 1e-6 of the contrast within a tile; "auto" takes
        what is fastest for the whole batch, by its size and by the platform it is compiled for.
      precision: as in `lax.conv_general_dilated`; raise it for full float32 on TPU and on GPUs with TF32.

    Returns:
      The dot products, (H', W', K), in the wider dtype of image and kernel. Both gradients are sliding dot products
      again: by the same method, or by "auto" for those of "shift".

    Raises:
      ValueError: a wrong rank, an empty array, channels or groups that do not fit, a kernel larger than the image,
        or an unknown padding or method.
      TypeError: arrays that are not real numbers, or options that are not ints.

    >>> import jax.numpy as jnp
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
    divisor: int = 1,
    method: str,
    precision: lax.PrecisionLike,
) -> Array:
    """`conv` of two arrays of one dtype over a divisor, left in the dtype it adds up in."""
    check_shape("image", image, "H W C")
    check_shape("kernel", kernel, "h w C K")
    stride, dilation = as_pair("stride", stride), as_pair("dilation", dilation)
    groups = check_int("groups", groups)
    if kernel.shape[2] * groups != image.shape[2]:
        raise ValueError(
            f"kernel: expected shape (h, w, C // groups, K) for C = {image.shape[2]} and groups = {groups}, "
            f"got {kernel.shape}"
        )
    if kernel.shape[3] % groups:
        raise ValueError(f"groups: expected a divisor of the {kernel.shape[3]} kernels, got {groups}")
    check_method(method)
    if method not in ("auto", "conv") and groups > 1:
        raise ValueError(f"groups: expected 1 with method={method!r}, got {groups}")

    reach = ((kernel.shape[0] - 1) * dilation[0] + 1, (kernel.shape[1] - 1) * dilation[1] + 1)
    pads = explicit_padding(padding, image.shape[:2], reach, stride, names=("image", "kernel"))
    options = {"stride": stride, "padding": pads, "dilation": dilation, "precision": precision}
    if groups > 1:
        return convolve(image[None], kernel, groups=groups, **options)[0] / divisor
    return correlate_image(image, kernel, divisor=divisor, method=method, **options)


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

    >>> import jax.numpy as jnp
    >>> window_sum(jnp.arange(9).reshape(3, 3), 2)
    Array([[ 8., 12.],
           [20., 24.]], dtype=float32)
    """
    (image,) = as_floats(image=image)
    check_shape("image", image, "H W", "H W C")
    window, stride = as_pair("window", window), as_pair("stride", stride)
    border = explicit_padding(padding, image.shape[:2], window, stride, names=("image", "window"))
    wide = image.astype(accumulation_dtype(image.dtype))
    return reduce_windows(wide, window, stride, border, 0, lambda a, b, *_: a + b).astype(image.dtype)
