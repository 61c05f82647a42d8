"""Correlation as one bilinear primitive that chooses its algorithm when it is compiled.

`jax.vmap` over images or kernels only enlarges the batch or the output channels of the primitive. So the algorithm, its
tiles and its memory are chosen for the whole batch. Both derivatives are correlations again, which choose separately.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Protocol, TypedDict, Unpack, cast, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, ArrayLike, Float

from ._cost_model import best_methods
from ._fft import fft_correlate
from ._geometry import dilated_size
from ._im2col import im2col_correlate
from ._lax_conv import conv_correlate
from ._mesh_axes import vary_like
from ._shift import shift_correlate
from ._typing import Pads, Pair
from ._validation import check_choice

METHODS = ("auto", "conv", "shift", "im2col", "fft")


class AlgorithmOptions(TypedDict):
    """The keyword arguments of `Algorithm`."""

    stride: Pair
    padding: Pads
    dilation: Pair
    lhs_dilation: Pair
    channels_first: bool
    divisor: int
    precision: lax.PrecisionLike


class CorrelateParams(AlgorithmOptions):
    """The parameters of the primitive."""

    method: str


@runtime_checkable
class Placeholder(Protocol):
    """The operand whose cotangent a transposition computes; its class depends on JAX's version."""

    @property
    def aval(self) -> ShapedArray: ...


@runtime_checkable
class Algorithm(Protocol):
    """A way to compute `correlate`, with the same arguments and the same result."""

    def __call__(
        self,
        image: Array,
        kernel: Array,
        *,
        stride: Pair,
        padding: Pads,
        dilation: Pair,
        lhs_dilation: Pair,
        channels_first: bool,
        divisor: int,
        precision: lax.PrecisionLike,
    ) -> Array: ...


ALGORITHMS: Mapping[str, Algorithm] = {
    "conv": conv_correlate,
    "shift": shift_correlate,
    "im2col": im2col_correlate,
    "fft": fft_correlate,
}


def correlate(
    image: Float[Array, "N H W C"],
    kernel: Float[Array, "h w C K"],
    *,
    stride: Pair,
    padding: Pads,
    dilation: Pair,
    lhs_dilation: Pair = (1, 1),
    channels_first: bool,
    divisor: int = 1,
    method: str,
    precision: lax.PrecisionLike,
) -> Float[Array, "N H2 W2 K"] | Float[Array, "N K H2 W2"]:
    """Dot products of every kernel with every window of every image, over the divisor. Arguments are not checked.

    Args:
      image: images, of the same dtype as the kernels.
      kernel: kernels.
      stride: steps between windows.
      padding: zeros added on each side; negative values crop.
      dilation: spacing of the kernel's pixels.
      lhs_dilation: spacing of the image's pixels, with zeros between them.
      channels_first: whether the result is one map after another, (N, K, H', W'), instead of (N, H', W', K).
      divisor: what the sums are divided by. XLA:CPU does not fuse later operations into this one.
      method: one of METHODS.
      precision: as in `lax.conv_general_dilated`.

    Returns:
      The dot products, in float32 for 16-bit floats.
    """
    return correlate_p.bind(
        vary_like(image, kernel),
        vary_like(kernel, image),
        stride=stride,
        padding=padding,
        dilation=dilation,
        lhs_dilation=lhs_dilation,
        channels_first=channels_first,
        divisor=divisor,
        method=method,
        precision=precision,
    )


def correlate_image(
    image: Float[Array, "H W C"],
    kernel: Float[Array, "h w C K"],
    *,
    stride: Pair,
    padding: Pads,
    dilation: Pair = (1, 1),
    divisor: int = 1,
    method: str,
    precision: lax.PrecisionLike,
) -> Float[Array, "H2 W2 K"]:
    """`correlate` of one image, (H', W', K). Arguments are not checked."""
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


def check_method(method: str) -> str:
    """One of METHODS."""
    return check_choice("method", method, METHODS)


def dispatch(
    image: Array, kernel: Array, *, method: str, all_cores: bool = True, **options: Unpack[AlgorithmOptions]
) -> Array:
    """`correlate` in terms of JAX's own operations, by one of ALGORITHMS or the fastest of them on each platform.

    `options` are those of `Algorithm`. `all_cores=False` keeps branches out of XLA's convolution: under an outer
    `jax.vmap` both would run.
    """
    algorithms = ALGORITHMS
    if not all_cores:
        algorithms = {**ALGORITHMS, "conv": functools.partial(conv_correlate, all_cores=False)}
    if not all(isinstance(size, int) for size in (*image.shape, *kernel.shape)):
        method = "conv"  # the symbolic batch size of jax.export, which is a number of channels in derivatives
    if method != "auto":
        return algorithms[method](image, kernel, **options)
    best = best_methods(
        image.shape,
        kernel.shape,
        stride=options["stride"],
        padding=options["padding"],
        dilation=options["dilation"],
        lhs_dilation=options["lhs_dilation"],
        channels_first=options["channels_first"],
    )
    on_cpu = functools.partial(algorithms[best.cpu], **options)
    if best.cpu == best.accelerator:
        return on_cpu(image, kernel)
    return lax.platform_dependent(
        image, kernel, cpu=on_cpu, default=functools.partial(algorithms[best.accelerator], **options)
    )


def _abstract_eval(image: ShapedArray, kernel: ShapedArray, **params: Unpack[CorrelateParams]) -> ShapedArray:
    for name, operand in (("image", image), ("kernel", kernel)):
        axis_type = operand.manual_axis_type
        if axis_type.unreduced or axis_type.reduced:
            raise NotImplementedError(
                f"{name}: expected an array that varies over mesh axes or not, got {axis_type}; cast it by "
                "jax.lax.psum or jax.lax.pcast before, or use jax.shard_map with check_vma=False"
            )
    convolve = functools.partial(dispatch, **params | {"method": "conv", "all_cores": False})
    out = jax.eval_shape(convolve, image, kernel)
    return image.update(shape=out.shape, dtype=out.dtype, weak_type=False)


def _batch(
    args: Sequence[object], axes: tuple[int | None, int | None], **params: Unpack[CorrelateParams]
) -> tuple[Array, int]:
    """`jax.vmap` over images enlarges the batch; over kernels it adds output channels; over both it maps `dispatch`."""
    image, kernel = (jnp.asarray(cast(ArrayLike, operand)) for operand in args)  # constants are not of jax.Array
    image_axis, kernel_axis = axes
    if image_axis is not None and kernel_axis is None:
        image = jnp.moveaxis(image, image_axis, 0)
        out = correlate(image.reshape(-1, *image.shape[2:]), kernel, **params)
        return out.reshape(*image.shape[:2], *out.shape[1:]), 0
    if image_axis is None and kernel_axis is not None:
        channel_axis = 1 if params["channels_first"] else 3
        kernel = jnp.moveaxis(kernel, kernel_axis, 3)
        out = correlate(image, kernel.reshape(*kernel.shape[:3], -1), **params)
        shape = *out.shape[:channel_axis], *kernel.shape[3:], *out.shape[channel_axis + 1 :]
        return out.reshape(shape), channel_axis
    if not isinstance(image.shape[cast(int, image_axis)], int):
        params["method"] = "im2col"  # XLA's convolution has no symbolic number of groups
    return jax.vmap(functools.partial(dispatch, all_cores=False, **params), axes)(image, kernel), 0


def _transpose_method(method: str) -> str:
    """The method of derivatives. "shift" may be slow at their shapes."""
    return "auto" if method == "shift" else method


def _transpose_image(ct: Array, image: Placeholder, kernel: Array, **params: Unpack[CorrelateParams]) -> Array:
    """The cotangent of the image: the cotangent, dilated by the stride, correlated with the rotated kernel."""
    aval = image.aval
    ct = jnp.moveaxis(ct, 1, -1) if params["channels_first"] else ct
    spread_size = dilated_size(aval.shape[1:3], params["lhs_dilation"])
    ct_size = dilated_size(ct.shape[1:3], params["stride"])
    kernel_size = dilated_size(kernel.shape[:2], params["dilation"])
    rows, columns = (
        _transposed_pad(n, k, positions, low)
        for n, k, positions, (low, _) in zip(spread_size, kernel_size, ct_size, params["padding"], strict=True)
    )
    out = correlate(
        ct,
        kernel[::-1, ::-1].swapaxes(2, 3).astype(ct.dtype),
        stride=params["lhs_dilation"],
        padding=(rows, columns),
        dilation=params["dilation"],
        lhs_dilation=params["stride"],
        channels_first=False,
        divisor=params["divisor"],
        method=_transpose_method(params["method"]),
        precision=params["precision"],
    )
    return out.astype(aval.dtype)


def _transposed_pad(size: int, kernel_size: int, ct_size: int, low: int) -> Pair:
    """The pads of a cotangent whose correlation has the image's size."""
    before = kernel_size - 1 - low
    return before, size + kernel_size - 1 - ct_size - before


def _transpose_kernel(ct: Array, image: Array, kernel: Placeholder, **params: Unpack[CorrelateParams]) -> Array:
    """The cotangent of the kernel: images correlated with the cotangent. Batch and channel axes are swapped."""
    aval = kernel.aval
    ct = ct.transpose(2, 3, 0, 1) if params["channels_first"] else ct.transpose(1, 2, 0, 3)
    spread_size = dilated_size(image.shape[1:3], params["lhs_dilation"])
    ct_size = dilated_size(ct.shape[:2], params["stride"])
    kernel_size = dilated_size(aval.shape[:2], params["dilation"])
    rows, columns = (
        (low, k - 1 + positions - n - low)
        for n, k, positions, (low, _) in zip(spread_size, kernel_size, ct_size, params["padding"], strict=True)
    )
    out = correlate(
        image.transpose(3, 1, 2, 0).astype(ct.dtype),
        ct,
        stride=params["dilation"],
        padding=(rows, columns),
        dilation=params["stride"],
        lhs_dilation=params["lhs_dilation"],
        channels_first=False,
        divisor=params["divisor"],
        method=_transpose_method(params["method"]),
        precision=params["precision"],
    )
    return out.transpose(1, 2, 0, 3).astype(aval.dtype)


STATIC_PARAMS = (
    *("stride", "padding", "dilation", "lhs_dilation"),
    *("channels_first", "divisor", "method", "precision"),
)
correlate_p = Primitive("correlate")
correlate_p.def_impl(jax.jit(dispatch, static_argnames=STATIC_PARAMS))
correlate_p.def_abstract_eval(_abstract_eval)
ad.defbilinear(correlate_p, _transpose_image, _transpose_kernel)
batching.primitive_batchers[correlate_p] = _batch
mlir.register_lowering(correlate_p, mlir.lower_fun(dispatch, multiple_results=False))
