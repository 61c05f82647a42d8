"""Convolutions that XLA:TPU compiles for minutes, in forms that it compiles in seconds."""

from typing import Protocol, Unpack, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ._dtypes import accumulation_dtype
from ._faults import spoil_windows
from ._geometry import Spacing, correlation_extents
from ._mesh_axes import vary_like
from ._padding import NO_PADDING
from ._typing import Pair, Shape

# Rows and columns of a TPU's matrix unit.
MATRIX_SIDE = 128
# XLA compiles its own convolution fast where there are more channels, or more of channels times kernels.
MAX_CHANNELS = 7
MAX_CHANNELS_TIMES_KERNELS = 127
# Pixels of the smallest kernels that take long.
MIN_PIXELS = 26
# Rows of a kernel that are copied side by side, at most.
MAX_ROWS = 64
# Pixels of a kernel that is made into bands, at most: 128x128. "auto" takes Fourier transforms for larger ones.
MAX_BAND_PIXELS = 2**14


@runtime_checkable
class TpuConv(Protocol):
    """The convolution of images (N, H, W, C) that hold their zeros with kernels (h, w, C, K)."""

    def __call__(
        self, image: Array, kernel: Array, *, stride: Pair, dilation: Pair, precision: lax.PrecisionLike
    ) -> Float[Array, "N H2 W2 K"]: ...


# XLA:TPU compiles a convolution of few channels and large kernels, in full float32, for up to minutes, and it is slow.
# Compiled for a v5e, precision "highest" (seconds to compile on two cores; millions of cycles as XLA estimates them):
#                                          as it is    row_conv    band_conv
#     16x256x256x1, eight kernels of 7x7   42    2.6   4    0.94   4    1.5
#     16x256x256x1, 64 kernels of 9x9      53    8.8   4    3.4    2   22
#     4x512x512x1, eight kernels of 33x33  not tried   21   5.4    5    4.2
#     1x480x480x1, one kernel of 7x7       34    3.1   2    0.24   1    0.08
#     1x480x640x1, one kernel of 64x64     not tried   13   4.2    1    0.60
# With products of one pass, as networks are trained, XLA compiles it in 1 to 7 s, and it is mostly the fastest.
# Report: none known.
# Versions: seen in libtpu 0.0.50.1 (jaxlib 0.12.0.1).
# Ends: when `python -m experiments.accelerators --cases match zncc` shows no fewer seconds with these forms.
def tpu_form(
    image: Shape, kernel: Shape, *, precision: lax.PrecisionLike, **spacing: Unpack[Spacing]
) -> TpuConv | None:
    """How a TPU convolves images (N, H, W, C) with kernels (h, w, C, K); None for XLA's own way.

    In gradients a kernel may be a whole map, with more pixels than positions. These forms would move more bytes there.
    """
    h, w, channels, kernels = kernel
    rows, columns = correlation_extents(image[1:3], (h, w), **spacing).output_size
    is_small = channels <= MAX_CHANNELS and channels * kernels <= MAX_CHANNELS_TIMES_KERNELS
    if not (is_small and is_raised(precision) and MIN_PIXELS <= h * w < rows * columns):
        return None
    if 2 * kernels <= w and h * w <= MAX_BAND_PIXELS:
        return band_conv
    return row_conv if h <= MAX_ROWS else None


def is_raised(precision: lax.PrecisionLike) -> bool:
    """Whether products are more exact than those of one pass. None is `jax.default_matmul_precision`."""
    if precision is None:
        precision = jax.config.values["jax_default_matmul_precision"]
    of_operands = precision if isinstance(precision, tuple | list) else (precision,)
    return any(_is_raised(part) for part in of_operands)


def _is_raised(precision: object) -> bool:
    try:
        return precision is not None and lax.Precision(precision) != lax.Precision.DEFAULT
    except ValueError:
        return False  # an algorithm such as "BF16_BF16_F32"


def row_conv(
    image: Array, kernel: Array, *, stride: Pair, dilation: Pair, precision: lax.PrecisionLike
) -> Float[Array, "N H2 W2 K"]:
    """A convolution of one dimension, along rows of pixels, whose channels are the kernel's rows and channels."""
    h, w, channels, kernels = kernel.shape
    n, height, width, _ = image.shape
    rows = (height - (h - 1) * dilation[0] - 1) // stride[0] + 1
    shifted = [
        lax.slice_in_dim(image, start, start + (rows - 1) * stride[0] + 1, stride[0], axis=1)
        for start in range(0, h * dilation[0], dilation[0])
    ]
    out = lax.conv_general_dilated(
        jnp.concatenate(shifted, axis=3).reshape(n * rows, width, h * channels),
        kernel.swapaxes(0, 1).reshape(w, h * channels, kernels),
        stride[1:],
        "VALID",
        rhs_dilation=dilation[1:],
        dimension_numbers=("NWC", "WIO", "NWC"),
        precision=precision,
        preferred_element_type=accumulation_dtype(image.dtype),
    )
    return out.reshape(n, rows, -1, kernels)


def band_conv(
    image: Array, kernel: Array, *, stride: Pair, dilation: Pair, precision: lax.PrecisionLike
) -> Float[Array, "N H2 W2 K"]:
    """Products of blocks of the image with bands of the kernel, added up in a loop over the kernel's rows.

    The band of a row is a matrix: for each position along a block it has the row once, shifted. A window that holds a
    pixel that is not finite becomes NaN, since the zeros of a band are multiplied with pixels beside the window.
    """
    h, w, channels, kernels = kernel.shape
    n, height, width, _ = image.shape
    spacing = Spacing(stride=stride, padding=NO_PADDING, dilation=dilation, lhs_dilation=(1, 1))
    rows, columns = correlation_extents((height, width), (h, w), **spacing).output_size
    block, reach = _block(columns, w, channels, stride[1], dilation[1])
    blocks = -(-columns // block)
    starts = range(0, blocks * block * stride[1], block * stride[1])
    missing = max(0, starts[-1] + reach - width)
    finite = jnp.pad(jnp.where(jnp.isfinite(image), image, 0), [(0, 0), (0, 0), (0, missing), (0, 0)])
    cut = jnp.stack([lax.slice_in_dim(finite, start, start + reach, axis=2) for start in starts], axis=1)
    cut = cut.reshape(n * blocks, height, reach * channels)
    dtype = accumulation_dtype(image.dtype)

    def add_row(i: Array, out: Array) -> Array:
        seen = lax.dynamic_slice_in_dim(cut, i * dilation[0], (rows - 1) * stride[0] + 1, axis=1)[:, :: stride[0]]
        band = _band(lax.dynamic_index_in_dim(kernel, i, keepdims=False), block, reach, stride[1], dilation[1])
        return out + jnp.matmul(seen, band, precision=precision, preferred_element_type=dtype)

    none = vary_like(jnp.zeros((n * blocks, rows, block * kernels), dtype), image, kernel)
    out = lax.fori_loop(0, h, add_row, none).reshape(n, blocks, rows, block, kernels).swapaxes(1, 2)
    out = out.reshape(n, rows, blocks * block, kernels)[:, :, :columns]
    return spoil_windows(out, image, (h, w), stride, dilation, channel_axis=3)


def _block(columns: int, w: int, channels: int, stride: int, dilation: int) -> Pair:
    """The positions of a block along a row, and the columns of the image that they see.

    These fill one matrix unit, or the positions do if they would be fewer than half of its side.
    """
    window = (w - 1) * dilation + 1
    positions = (MATRIX_SIDE // channels - window) // stride + 1
    positions = min(columns, positions if 2 * positions >= MATRIX_SIDE else MATRIX_SIDE)
    return positions, (positions - 1) * stride + window


def _band(row: Array, block: int, reach: int, stride: int, dilation: int) -> Float[Array, "reach_C block_K"]:
    """A row (w, C, K) of kernels, `block` times, shifted by `stride` each time.

    Copies that are longer than the band by a step, one after another, are cut again to the length of the band.
    """
    w, channels, kernels = row.shape
    after = reach + stride - (w - 1) * dilation - 1
    longer = lax.pad(row, jnp.zeros((), row.dtype), [(0, after, dilation - 1), (0, 0, 0), (0, 0, 0)])
    copies = jnp.broadcast_to(longer, (block, *longer.shape)).reshape(-1, channels, kernels)
    shifted = copies[: block * reach].reshape(block, reach, channels, kernels)
    return shifted.transpose(1, 2, 0, 3).reshape(reach * channels, block * kernels)
