"""Correlation as one bilinear primitive that chooses its algorithm when it is compiled.

`jax.vmap` over images or kernels only enlarges the batch or the output channels of the primitive. So the algorithm, its
tiles and its memory are chosen for the whole batch. Both derivatives are correlations again, which choose separately.
"""

from collections.abc import Sequence
from typing import Unpack

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

from ._algorithms import AlgorithmOptions, dispatch, transpose_method
from ._dtypes import accumulation_dtype
from ._geometry import correlation_extents, image_gradient_spacing, kernel_gradient_spacing, spacing_of
from ._grouped import grouped_correlate
from ._mesh_axes import check_summed, vary_like
from ._typing import AnyArray, Pads, Pair, Placeholder


class CorrelateParams(AlgorithmOptions):
    """The parameters of the primitive."""

    method: str


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


def _abstract_eval(image: ShapedArray, kernel: ShapedArray, **params: Unpack[CorrelateParams]) -> ShapedArray:
    check_summed(image=image, kernel=kernel)
    n, *image_size, _ = image.shape
    *kernel_size, _, kernels = kernel.shape
    rows, columns = correlation_extents(image_size, kernel_size, **spacing_of(params)).output_size
    shape = (n, kernels, rows, columns) if params["channels_first"] else (n, rows, columns, kernels)
    return image.update(shape=shape, dtype=accumulation_dtype(image.dtype), weak_type=False)


def _batch(
    args: Sequence[AnyArray], axes: tuple[int | None, int | None], **params: Unpack[CorrelateParams]
) -> tuple[Array, int]:
    """`jax.vmap` over images enlarges the batch; over kernels it adds output channels; over both it is grouped."""
    image, kernel = map(jnp.asarray, args)
    image_axis, kernel_axis = axes
    if kernel_axis is None:
        assert image_axis is not None
        image = jnp.moveaxis(image, image_axis, 0)
        out = correlate(image.reshape(-1, *image.shape[2:]), kernel, **params)
        return out.reshape(*image.shape[:2], *out.shape[1:]), 0
    if image_axis is None:
        channel_axis = 1 if params["channels_first"] else 3
        kernel = jnp.moveaxis(kernel, kernel_axis, 3)
        out = correlate(image, kernel.reshape(*kernel.shape[:3], -1), **params)
        shape = *out.shape[:channel_axis], *kernel.shape[3:], *out.shape[channel_axis + 1 :]
        return out.reshape(shape), channel_axis
    out = grouped_correlate(
        jnp.moveaxis(image, image_axis, 3),
        jnp.moveaxis(kernel, kernel_axis, 2),
        divisor=params["divisor"],
        method=params["method"],
        precision=params["precision"],
        **spacing_of(params),
    )
    return jnp.moveaxis(out, (3, 4), (0, 2) if params["channels_first"] else (0, 4)), 0


def _transpose_image(ct: Array, image: Placeholder, kernel: AnyArray, **params: Unpack[CorrelateParams]) -> Array:
    """The cotangent of the image: the cotangent, dilated by the stride, correlated with the rotated kernel."""
    aval = image.aval
    ct = jnp.moveaxis(ct, 1, -1) if params["channels_first"] else ct
    out = correlate(
        ct.astype(kernel.dtype),
        jnp.asarray(kernel)[::-1, ::-1].swapaxes(2, 3),
        **image_gradient_spacing(aval.shape[1:3], kernel.shape[:2], **spacing_of(params)),
        channels_first=False,
        divisor=params["divisor"],
        method=transpose_method(params["method"]),
        precision=params["precision"],
    )
    return out.astype(aval.dtype)


def _transpose_kernel(ct: Array, image: AnyArray, kernel: Placeholder, **params: Unpack[CorrelateParams]) -> Array:
    """The cotangent of the kernel: images correlated with the cotangent. Batch and channel axes are swapped."""
    aval = kernel.aval
    ct = ct.transpose(2, 3, 0, 1) if params["channels_first"] else ct.transpose(1, 2, 0, 3)
    out = correlate(
        jnp.asarray(image).transpose(3, 1, 2, 0),
        ct.astype(image.dtype),
        **kernel_gradient_spacing(image.shape[1:3], aval.shape[:2], **spacing_of(params)),
        channels_first=False,
        divisor=params["divisor"],
        method=transpose_method(params["method"]),
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
