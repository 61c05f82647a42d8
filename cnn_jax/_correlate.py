"""The sliding dot product as one bilinear operation that chooses its algorithm when it is compiled.

It is a primitive of its own because it must see the whole work. `jax.vmap` over images or kernels only makes it larger,
so that algorithm, tiles and memory are those of the batch; and each of its two derivatives is the same operation again,
with a choice of its own.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxlib.version import __version__ as jaxlib_version
from jaxtyping import Array

from . import _fft, _im2col
from ._dtypes import accumulation_dtype
from ._typing import Pads, Pair
from ._xla import no_fusion

METHODS = ("auto", "conv", "shift", "im2col", "fft")

# Nanoseconds on two CPU cores, measured. A multiply-add of shifted products, where numbers fill the registers; of XLA's
# convolution, on one core and on both, which takes the time of 16 kernels at least, and something for every position;
# and of a matrix product.
SHIFT, CONV, SHARED_CONV, PRODUCT = 0.014, 0.0095, 0.0052, 0.0055
CONV_POSITION = {"few": 14.0, "many": 5.0}  # channels
# The channels from which a convolution gains by a second core, and the most numbers of one image's result.
MANY_CHANNELS, LARGE_RESULT = 32, 2**18
# XLA's convolution takes several times as long for windows that outnumber their positions, if its result is small.
WIDE_WINDOWS, TINY_RESULT = 4.0, 2**16
# A number of an image whose channels are taken apart, or that is copied into patches along few or many channels.
TAKE_APART, COPY = 0.5, {"few": 0.5, "many": 0.25}
ONE_CORE = tuple(map(int, jaxlib_version.split(".")[:2])) < (0, 12)
REGISTER = 8  # numbers
# Products that "shift" fuses into one loop, and unrolls at most, lest compiling take seconds.
SHIFT_AT_ONCE, SHIFT_PRODUCTS = 27, 400
# How much less a multiply-add and a transform take on an accelerator; a guess, on the side of the convolution.
ACCELERATED_CONV, ACCELERATED_FFT = 1e-3, 1e-2


def correlate(
    image: Array,
    kernel: Array,
    *,
    stride: Pair,
    padding: Pads,
    dilation: Pair,
    lhs_dilation: Pair = (1, 1),
    channels_first: bool,
    divisor: int = 1,
    method: str,
    precision: lax.PrecisionLike,
) -> Array:
    """Slides kernels (h, w, C, K) over images (N, H, W, C) of one dtype and takes the dot product at every position.

    `stride` is between positions, `dilation` between the kernel's pixels, `lhs_dilation` between the image's, with zeros
    between them, and `padding` has the zeros around it, or negative the pixels cut off. 16-bit floats give float32. All
    is divided by `divisor`, here rather than later, because on CPU nothing later fuses with it.
    The result is (N, H', W', K), or with `channels_first` one map after another, (N, K, H', W').
    """
    params = {"stride": stride, "padding": padding, "dilation": dilation, "lhs_dilation": lhs_dilation}
    return correlate_p.bind(
        image, kernel, channels_first=channels_first, divisor=divisor, method=method, precision=precision, **params
    )


def correlate_image(
    image: Array,
    kernel: Array,
    *,
    stride: Pair,
    padding: Pads,
    dilation: Pair = (1, 1),
    divisor: int = 1,
    method: str,
    precision: lax.PrecisionLike,
) -> Array:
    """`correlate` of one image (H, W, C) with kernels (h, w, C, K): (H', W', K), in the dtype that sums have.

    Arguments are not checked: both arrays have one floating dtype, and `method` is one of METHODS.
    """
    # jax.vmap over single kernels then gives whole maps, one after another.
    channels_first = kernel.shape[3] == 1
    out = correlate(
        image[None],
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        channels_first=channels_first,
        divisor=divisor,
        method=method,
        precision=precision,
    )
    return out[0, 0, :, :, None] if channels_first else out[0]


def check_method(method: str) -> None:
    """Raises ValueError unless `method` is one of METHODS."""
    if method not in METHODS:
        raise ValueError(f"method: expected one of {METHODS}, got {method!r}")


def compute(
    image: Array,
    kernel: Array,
    *,
    channels_first: bool,
    divisor: int,
    method: str,
    precision: lax.PrecisionLike,
    share: bool = True,
    **window: Any,
) -> Array:
    """`correlate` in terms of JAX's own operations."""
    methods = {
        "conv": lambda *args: (
            convolve(*args, channels_first=channels_first, share=share, precision=precision, **window) / divisor
        ),
        "shift": functools.partial(_shift, channels_first=channels_first, divisor=divisor, **window),
        "im2col": lambda *args: _unfold(*args, channels_first=channels_first, precision=precision, **window) / divisor,
        "fft": lambda *args: _transform(*args, channels_first=channels_first, **window) / divisor,
    }
    if not isinstance(image.shape[0], int):
        method = "conv"  # as many images as an exported program will be given
    if method != "auto":
        return methods[method](image, kernel)
    cpu, other = best_methods(image.shape, kernel.shape, channels_first=channels_first, **window)
    if cpu == other:
        return methods[cpu](image, kernel)
    return lax.platform_dependent(image, kernel, cpu=methods[cpu], default=methods[other])


def best_methods(
    image: tuple[int, ...],
    kernel: tuple[int, ...],
    *,
    stride: Pair,
    padding: Pads,
    dilation: Pair,
    lhs_dilation: Pair,
    channels_first: bool,
) -> tuple[str, str]:
    """The fastest method on CPU and on accelerators for images and kernels of these shapes."""
    (n, *size, channels), (*window, _, kernels) = image, kernel
    full, effective_kernel_size, output_size = _extents(
        size, window, stride=stride, padding=padding, dilation=dilation, lhs_dilation=lhs_dilation
    )
    taps, places = math.prod(window), math.prod(output_size)
    products = taps * channels
    patches, work = n * places * products, n * places * products * kernels

    slow = taps > places and n * places * kernels < TINY_RESULT
    shared = _shares(channels, (n, *output_size, kernels), lhs_dilation) and not taps > places
    conv = (SHARED_CONV if shared else CONV) * n * places * products * max(kernels, 16) * (WIDE_WINDOWS if slow else 1)
    conv += n * places * CONV_POSITION["few" if channels < REGISTER else "many"]
    fft = _fft.best_plan(
        (n, full[0], full[1], channels), (effective_kernel_size[0], effective_kernel_size[1], channels, kernels)
    ).cost
    cpu = {"conv": conv, "fft": fft}
    if products <= SHIFT_PRODUCTS:
        row = output_size[1] if channels_first or kernels < REGISTER else kernels
        cpu["shift"] = SHIFT * work * (1 + 2 * (row % REGISTER) / row)  # what is left over is computed one by one
        cpu["shift"] += TAKE_APART * n * full[0] * full[1] * channels if channels > 1 else 0
    few = min(taps, places) <= _im2col.SLICES
    if few and places * taps * (channels if taps <= places else n) <= _im2col.LARGEST:
        along = channels if taps <= places else n
        cpu["im2col"] = PRODUCT * work + COPY["few" if along < REGISTER else "many"] * patches
    other = {"conv": conv * ACCELERATED_CONV, "fft": fft * ACCELERATED_FFT}
    return min(cpu, key=cpu.__getitem__), min(other, key=other.__getitem__)


def _extents(
    size: Sequence[int], window: Sequence[int], *, stride: Pair, padding: Pads, dilation: Pair, lhs_dilation: Pair
) -> tuple[list[int], list[int], list[int]]:
    """Rows and columns of the image with its padding, of the window with its gaps, and of the positions."""
    full = [(size[a] - 1) * lhs_dilation[a] + 1 + sum(padding[a]) for a in (0, 1)]
    effective_kernel_size = [(window[a] - 1) * dilation[a] + 1 for a in (0, 1)]
    return full, effective_kernel_size, [(full[a] - effective_kernel_size[a]) // stride[a] + 1 for a in (0, 1)]


def convolve(
    image: Array,
    kernel: Array,
    *,
    stride: Pair,
    padding: Pads,
    dilation: Pair,
    lhs_dilation: Pair = (1, 1),
    groups: int = 1,
    channels_first: bool = False,
    share: bool = False,
    precision: lax.PrecisionLike,
) -> Array:
    """XLA's own convolution, the only one that takes groups of channels; `share` it among all cores if it can be."""

    def plain(image: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(
            image,
            kernel,
            stride,
            padding,
            lhs_dilation=lhs_dilation,
            rhs_dilation=dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
            precision=precision,
            preferred_element_type=accumulation_dtype(image.dtype),
        )

    result = jax.eval_shape(plain, image, kernel)
    if share and image.dtype == jnp.float32 and _shares(image.shape[3], result.shape, lhs_dilation):
        out = lax.platform_dependent(image, kernel, cpu=functools.partial(_on_all_cores, plain), default=plain)
    else:
        out = plain(image, kernel)
    return jnp.moveaxis(out, -1, 1) if channels_first else out


def _shares(channels: int, out: tuple[int, ...], lhs_dilation: Pair) -> bool:
    """Whether a convolution gains by `_on_all_cores`."""
    return ONE_CORE and channels >= MANY_CHANNELS and math.prod(out[1:]) <= LARGE_RESULT and lhs_dilation == (1, 1)


def _on_all_cores(conv: Callable[[Array, Array], Array], image: Array, kernel: Array) -> Array:
    """The same numbers, but jaxlib before 0.12 computes a convolution on one core alone unless it is reduced in windows
    right away: here windows of one number, and a padding, along an axis of its own.

    XLA's minimum of a window overlooks NaN, so that all takes the plain way unless no sum can be one: by Cauchy and
    Schwarz, none is larger than the root of what is looked at here.
    """

    def reduced(image: Array, kernel: Array) -> Array:
        out = conv(image, kernel)
        window, padding = (1, 1, 2, 1, 1), [(0, 0), (0, 0), (0, 1), (0, 0), (0, 0)]
        least = lax.reduce_window(out[:, :, None], np.array(np.inf, out.dtype), lax.min, window, window, padding)
        return least.reshape(out.shape)

    largest = jnp.sum(image * image) * jnp.sum(kernel * kernel)
    return lax.cond(jnp.isfinite(largest), reduced, conv, image, kernel)


def _shift(
    image: Array,
    kernel: Array,
    *,
    stride: Pair,
    padding: Pads,
    dilation: Pair,
    lhs_dilation: Pair,
    channels_first: bool,
    divisor: int,
) -> Array:
    """The sum of shifted products."""
    image, kernel = _framed(image, padding, lhs_dilation), kernel.astype(accumulation_dtype(kernel.dtype))
    _, *size, channels = image.shape
    # Either the columns of whole channels_first fill the registers, or kernels side by side.
    maps_first = channels_first or kernel.shape[3] < REGISTER
    axis = 1 if maps_first else 3
    weights = (1, -1, 1, 1) if maps_first else (1, 1, 1, -1)
    planes = [jnp.expand_dims(image[..., c], axis) for c in range(channels)]  # taken apart here, not in every part
    taps = list(itertools.product(range(channels), *map(range, kernel.shape[:2])))
    last = [(n - (k - 1) * d - 1) // s * s for n, k, d, s in zip(size, kernel.shape[:2], dilation, stride, strict=True)]
    parts = -(-len(taps) // SHIFT_AT_ONCE)

    def add(part: int, total: Array | None, planes: list[Array], kernel: Array) -> Array:
        for c, i, j in taps[len(taps) * part // parts : len(taps) * (part + 1) // parts]:
            rows, columns = (
                slice(k * d, k * d + n + 1, s) for k, d, n, s in zip((i, j), dilation, last, stride, strict=True)
            )
            plane = planes[c][:, :, rows, columns] if maps_first else planes[c][:, rows, columns]
            product = plane * kernel[i, j, c].reshape(weights)
            total = product if total is None else total + product
        assert total is not None
        return total if part + 1 < parts else total / divisor

    # More than a few products at a time have no room in a CPU's registers.
    total = None
    for part in range(parts):
        total = no_fusion(functools.partial(add, part), total, planes, kernel)
    assert total is not None
    return jnp.moveaxis(total, 1, -1) if maps_first and not channels_first else total


def _unfold(
    image: Array,
    kernel: Array,
    *,
    stride: Pair,
    padding: Pads,
    dilation: Pair,
    lhs_dilation: Pair,
    channels_first: bool,
    precision: lax.PrecisionLike,
) -> Array:
    window = kernel.shape[:2]
    *_, output_size = _extents(
        image.shape[1:3], window, stride=stride, padding=padding, dilation=dilation, lhs_dilation=lhs_dilation
    )
    options = {"output_size": output_size, "stride": stride, "dilation": dilation, "precision": precision}
    kernel = kernel.astype(accumulation_dtype(kernel.dtype))
    if math.prod(output_size) < math.prod(window):
        image = _framed(image.transpose(3, 1, 2, 0), padding, lhs_dilation)
        out = _im2col.im2col_over_channels(image, kernel.transpose(2, 0, 1, 3), **options).transpose(2, 0, 1, 3)
    else:
        out = _im2col.im2col_batched(_framed(image, padding, lhs_dilation), kernel, **options)
    return jnp.moveaxis(out, -1, 1) if channels_first else out


def _transform(
    image: Array,
    kernel: Array,
    *,
    stride: Pair,
    padding: Pads,
    dilation: Pair,
    lhs_dilation: Pair,
    channels_first: bool,
) -> Array:
    image = _framed(image, padding, lhs_dilation)
    holes = [(0, 0, d - 1) for d in dilation]
    wide = kernel.astype(image.dtype)
    spaced = lax.pad(wide, jnp.zeros((), wide.dtype), [*holes, (0, 0, 0), (0, 0, 0)])
    out = _fft.fft_correlate(jnp.where(jnp.isfinite(image), image, 0), spaced)

    # Windows that hold what is not finite become NaN: added, not selected, so that it fuses with what is done next.
    def spoil() -> Array:
        bad = jnp.where(jnp.isfinite(image).all(axis=-1), 0.0, 1.0)
        for axis in (0, 1):
            window, steps = [1, 1, 1], [1, 1, 1]
            window[1 + axis], steps[1 + axis] = kernel.shape[axis], dilation[axis]
            bad = lax.reduce_window(bad, -jnp.inf, lax.max, window, (1, 1, 1), "VALID", window_dilation=steps)
        return jnp.where(bad > 0, jnp.asarray(jnp.nan, out.dtype), 0)

    clean = jnp.isfinite(image.sum())  # one pass; an overflow only costs time
    nothing = jnp.zeros((len(image), *out.shape[2:]), out.dtype)
    out = out + lax.cond(clean, lambda: nothing, spoil)[:, None]
    out = out[:, :, :: stride[0], :: stride[1]]
    return out if channels_first else jnp.moveaxis(out, 1, -1)


def _framed(image: Array, padding: Pads, lhs_dilation: Pair) -> Array:
    """An image with zeros around and between its pixels, in the dtype to add up in."""
    wide = image.astype(accumulation_dtype(image.dtype))
    inside = [(*padding[a], lhs_dilation[a] - 1) for a in (0, 1)]
    return lax.pad(wide, jnp.zeros((), wide.dtype), [(0, 0, 0), *inside, (0, 0, 0)])


def _abstract(image: Any, kernel: Any, **params: Any) -> ShapedArray:
    out = jax.eval_shape(functools.partial(compute, **params | {"method": "conv", "share": False}), image, kernel)
    return ShapedArray(out.shape, out.dtype)


def _batch(args: tuple[Array, Array], axes: tuple[int | None, int | None], **params: Any) -> tuple[Array, int]:
    """More images are more of the batch, more kernels more features; only pairs of both stay pairs."""
    (image, kernel), (image_axis, kernel_axis) = args, axes
    if kernel_axis is None and image_axis is not None:
        image = jnp.moveaxis(image, image_axis, 0)
        out = correlate(image.reshape(-1, *image.shape[2:]), kernel, **params)
        return out.reshape(*image.shape[:2], *out.shape[1:]), 0
    if image_axis is None and kernel_axis is not None:
        axis = 1 if params["channels_first"] else 3
        kernel = jnp.moveaxis(kernel, kernel_axis, 3)
        out = correlate(image, kernel.reshape(*kernel.shape[:3], -1), **params)
        return out.reshape(*out.shape[:axis], *kernel.shape[3:], *out.shape[axis + 1 :]), axis
    return jax.vmap(functools.partial(compute, share=False, **params), axes)(image, kernel), 0


def _derivative_method(method: str) -> str:
    return "auto" if method == "shift" else method  # the derivatives have other shapes, where it may be slow


def _to_image(ct: Array, image: Any, kernel: Array, **params: Any) -> Array:
    """The cotangent of the image: the kernel, turned round, slides over the cotangent lhs_dilation by the stride."""
    image, window = image.aval, kernel.shape
    stride, dilation, lhs_dilation, padding = (
        params[name] for name in ("stride", "dilation", "lhs_dilation", "padding")
    )
    ct = jnp.moveaxis(ct, 1, -1) if params["channels_first"] else ct
    back = []
    for a in (0, 1):
        effective_kernel_size = (window[a] - 1) * dilation[a]
        low = effective_kernel_size - padding[a][0]
        back.append(
            (
                low,
                (image.shape[1 + a] - 1) * lhs_dilation[a]
                + effective_kernel_size
                - (ct.shape[1 + a] - 1) * stride[a]
                - low,
            )
        )
    out = correlate(
        ct,
        kernel[::-1, ::-1].swapaxes(2, 3).astype(ct.dtype),
        stride=lhs_dilation,
        padding=(back[0], back[1]),
        dilation=dilation,
        lhs_dilation=stride,
        channels_first=False,
        divisor=params["divisor"],
        method=_derivative_method(params["method"]),
        precision=params["precision"],
    )
    return out.astype(image.dtype)


def _to_kernel(ct: Array, image: Array, kernel: Any, **params: Any) -> Array:
    """The cotangent of the kernel: the cotangent, spaced by the stride, slides over the image; batch and channels
    change places."""
    window = kernel.aval.shape
    stride, dilation, lhs_dilation, padding = (
        params[name] for name in ("stride", "dilation", "lhs_dilation", "padding")
    )
    ct = ct.transpose(2, 3, 0, 1) if params["channels_first"] else ct.transpose(1, 2, 0, 3)
    over = []
    for a in (0, 1):
        low, full = padding[a][0], (image.shape[1 + a] - 1) * lhs_dilation[a] + 1
        over.append((low, (window[a] - 1) * dilation[a] + (ct.shape[a] - 1) * stride[a] + 1 - full - low))
    out = correlate(
        image.transpose(3, 1, 2, 0).astype(ct.dtype),
        ct,
        stride=dilation,
        padding=(over[0], over[1]),
        dilation=stride,
        lhs_dilation=lhs_dilation,
        channels_first=False,
        divisor=params["divisor"],
        method=_derivative_method(params["method"]),
        precision=params["precision"],
    )
    return out.transpose(1, 2, 0, 3).astype(kernel.aval.dtype)


correlate_p = Primitive("correlate")
correlate_p.def_impl(
    jax.jit(
        compute,
        static_argnames=(
            "stride",
            "padding",
            "dilation",
            "lhs_dilation",
            "channels_first",
            "divisor",
            "method",
            "precision",
        ),
    )
)
correlate_p.def_abstract_eval(_abstract)
ad.defbilinear(correlate_p, _to_image, _to_kernel)
batching.primitive_batchers[correlate_p] = _batch
mlir.register_lowering(correlate_p, mlir.lower_fun(compute, multiple_results=False))
