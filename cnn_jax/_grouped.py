"""Grouped correlation as a bilinear primitive: groups of images, each correlated with kernels of its own.

Depthwise convolutions and `jax.vmap` over images and kernels together are grouped. Accelerators run XLA's grouped
convolution. XLA:CPU takes tens of times as long for it, and hundreds of times for its gradients in loops, so that the
CPU takes other algorithms.
"""

import functools
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
from ._cost_model import best_methods
from ._dtypes import accumulation_dtype
from ._geometry import (
    Spacing,
    correlation_extents,
    has_static_sizes,
    image_gradient_spacing,
    kernel_gradient_spacing,
    spacing_of,
)
from ._group_costs import best_group_method
from ._group_sums import shift_groups, sum_groups
from ._lax_conv import fusible_conv
from ._machine_costs import machine_costs
from ._mesh_axes import check_summed, vary_like
from ._typing import AnyArray, Pads, Pair, Placeholder


class GroupOptions(Spacing):
    """The options of every algorithm."""

    kernel_gradient: bool
    divisor: int
    precision: lax.PrecisionLike


class GroupedParams(GroupOptions):
    """The parameters of the primitive."""

    method: str


def grouped_correlate(
    image: Float[Array, "N H W G C"],
    kernel: Float[Array, "h w G C K"],
    *,
    stride: Pair,
    padding: Pads,
    dilation: Pair,
    lhs_dilation: Pair = (1, 1),
    kernel_gradient: bool = False,
    divisor: int = 1,
    method: str,
    precision: lax.PrecisionLike,
) -> Float[Array, "N H2 W2 G K"]:
    """Dot products as of `correlate`, of the channels and the kernels of each group. Arguments are not checked.

    Args:
      image: images, of the same dtype as the kernels.
      kernel: kernels.
      stride, padding, dilation, lhs_dilation, divisor, precision: as in `correlate`.
      kernel_gradient: whether kernels are cotangents. XLA's convolution then takes the groups from the batch, as it
        does in gradients.
      method: one of METHODS. "auto" is XLA's grouped convolution but on the CPU.

    Returns:
      The dot products, in float32 for 16-bit floats.
    """
    return grouped_correlate_p.bind(
        vary_like(image, kernel),
        vary_like(kernel, image),
        stride=stride,
        padding=padding,
        dilation=dilation,
        lhs_dilation=lhs_dilation,
        kernel_gradient=kernel_gradient,
        divisor=divisor,
        method=method,
        precision=precision,
    )


def grouped_dispatch(image: Array, kernel: Array, *, method: str, **options: Unpack[GroupOptions]) -> Array:
    """`grouped_correlate` in terms of JAX's own operations."""
    if not isinstance(image.shape[3], int):
        return _vectorized_groups(image, kernel, "im2col", **options)  # XLA's convolution has no symbolic groups
    if not has_static_sizes(image, kernel) or method == "conv":
        return _lax_groups(image, kernel, **options)  # jax.export gives a symbolic batch size
    if method != "auto":
        return _vectorized_groups(image, kernel, method, **options)
    spacing = spacing_of(options)
    one_image = *image.shape[:3], image.shape[4]
    one_kernel = *kernel.shape[:2], *kernel.shape[3:]
    accelerator = best_methods(one_image, one_kernel, channels_first=False, **spacing).accelerator
    cpu = best_group_method(image.shape, kernel.shape, cpu_costs=machine_costs().cpu, **spacing)
    return lax.platform_dependent(
        image,
        kernel,
        cpu=functools.partial(ALGORITHMS_ON_CPU[cpu], **options),
        default=functools.partial(grouped_dispatch, method=accelerator, **options),
    )


def _lax_groups(image: Array, kernel: Array, **options: Unpack[GroupOptions]) -> Array:
    n, height, width, groups, channels = image.shape
    h, w, _, _, kernels = kernel.shape
    weights = kernel.swapaxes(2, 3).reshape(h, w, channels, groups * kernels)
    convolve = functools.partial(fusible_conv, precision=options["precision"], **spacing_of(options))
    if options["kernel_gradient"]:
        images = jnp.moveaxis(image, 3, 0).reshape(groups * n, height, width, channels)
        out = convolve(images, weights, batch_groups=groups)
    else:
        out = convolve(image.reshape(n, height, width, groups * channels), weights, groups=groups)
    return out.reshape(*out.shape[:3], groups, kernels) / options["divisor"]


def _shifted_groups(image: Array, kernel: Array, **options: Unpack[GroupOptions]) -> Array:
    return shift_groups(image, kernel, divisor=options["divisor"], **spacing_of(options))


def _summed_groups(image: Array, kernel: Array, **options: Unpack[GroupOptions]) -> Array:
    return sum_groups(image, kernel, divisor=options["divisor"], **spacing_of(options))


def _groups_in_turn(image: Array, kernel: Array, **options: Unpack[GroupOptions]) -> Array:
    def correlate_group(operands: tuple[Array, Array]) -> Array:
        return dispatch(*operands, method="auto", **_group_options(options))

    out = lax.map(correlate_group, (jnp.moveaxis(image, 3, 0), jnp.moveaxis(kernel, 2, 0)))
    return jnp.moveaxis(out, 0, 3)


ALGORITHMS_ON_CPU = {"shift": _shifted_groups, "sum": _summed_groups, "map": _groups_in_turn}


def _vectorized_groups(image: Array, kernel: Array, method: str, **options: Unpack[GroupOptions]) -> Array:
    correlate_group = functools.partial(dispatch, method=method, **_group_options(options))
    return jax.vmap(correlate_group, (3, 2), 3)(image, kernel)


def _group_options(options: GroupOptions) -> AlgorithmOptions:
    return AlgorithmOptions(
        channels_first=False,
        divisor=options["divisor"],
        precision=options["precision"],
        **spacing_of(options),
    )


def _abstract_eval(image: ShapedArray, kernel: ShapedArray, **params: Unpack[GroupedParams]) -> ShapedArray:
    check_summed(image=image, kernel=kernel)
    n, *image_size, groups, _ = image.shape
    *kernel_size, _, _, kernels = kernel.shape
    rows, columns = correlation_extents(image_size, kernel_size, **spacing_of(params)).output_size
    shape = (n, rows, columns, groups, kernels)
    return image.update(shape=shape, dtype=accumulation_dtype(image.dtype), weak_type=False)


def _batch(
    args: Sequence[AnyArray], axes: tuple[int | None, int | None], **params: Unpack[GroupedParams]
) -> tuple[Array, int]:
    """`jax.vmap` over images enlarges the batch; over kernels it adds output channels; over both it adds groups."""
    image, kernel = map(jnp.asarray, args)
    image_axis, kernel_axis = axes
    if kernel_axis is None:
        assert image_axis is not None
        image = jnp.moveaxis(image, image_axis, 0)
        out = grouped_correlate(image.reshape(-1, *image.shape[2:]), kernel, **params)
        return out.reshape(*image.shape[:2], *out.shape[1:]), 0
    if image_axis is None:
        kernel = jnp.moveaxis(kernel, kernel_axis, 4)
        out = grouped_correlate(image, kernel.reshape(*kernel.shape[:4], -1), **params)
        return out.reshape(*out.shape[:4], *kernel.shape[4:]), 4
    image = jnp.moveaxis(image, image_axis, 3)
    kernel = jnp.moveaxis(kernel, kernel_axis, 2)
    images = image.reshape(*image.shape[:3], -1, image.shape[5])
    kernels = kernel.reshape(*kernel.shape[:2], -1, *kernel.shape[4:])
    out = grouped_correlate(images, kernels, **params)
    return out.reshape(*out.shape[:3], *image.shape[3:5], out.shape[4]), 3


def _transpose_image(ct: Array, image: Placeholder, kernel: AnyArray, **params: Unpack[GroupedParams]) -> Array:
    """The cotangent of the image: the cotangent, dilated by the stride, correlated with the rotated kernel."""
    aval = image.aval
    out = grouped_correlate(
        ct.astype(kernel.dtype),
        jnp.asarray(kernel)[::-1, ::-1].swapaxes(3, 4),
        **image_gradient_spacing(aval.shape[1:3], kernel.shape[:2], **spacing_of(params)),
        kernel_gradient=params["kernel_gradient"],
        divisor=params["divisor"],
        method=transpose_method(params["method"]),
        precision=params["precision"],
    )
    return out.astype(aval.dtype)


def _transpose_kernel(ct: Array, image: AnyArray, kernel: Placeholder, **params: Unpack[GroupedParams]) -> Array:
    """The cotangent of the kernel: images correlated with the cotangent. Batch and channel axes are swapped."""
    aval = kernel.aval
    out = grouped_correlate(
        jnp.asarray(image).transpose(4, 1, 2, 3, 0),
        ct.transpose(1, 2, 3, 0, 4).astype(image.dtype),
        **kernel_gradient_spacing(image.shape[1:3], aval.shape[:2], **spacing_of(params)),
        kernel_gradient=not params["kernel_gradient"],
        divisor=params["divisor"],
        method=transpose_method(params["method"]),
        precision=params["precision"],
    )
    return out.transpose(1, 2, 3, 0, 4).astype(aval.dtype)


STATIC_PARAMS = (
    *("stride", "padding", "dilation", "lhs_dilation"),
    *("kernel_gradient", "divisor", "method", "precision"),
)
grouped_correlate_p = Primitive("grouped_correlate")
grouped_correlate_p.def_impl(jax.jit(grouped_dispatch, static_argnames=STATIC_PARAMS))
grouped_correlate_p.def_abstract_eval(_abstract_eval)
ad.defbilinear(grouped_correlate_p, _transpose_image, _transpose_kernel)
batching.primitive_batchers[grouped_correlate_p] = _batch
mlir.register_lowering(grouped_correlate_p, mlir.lower_fun(grouped_dispatch, multiple_results=False))
