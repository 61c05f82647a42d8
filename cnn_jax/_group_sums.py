"""Grouped correlation with all groups side by side in registers: fast on the CPU for few channels per group."""

import operator

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ._cost_model import CPU_COSTS, CpuCosts
from ._dtypes import accumulation_dtype
from ._geometry import correlation_extents, dilated_size, pad_and_dilate
from ._group_costs import GROUP_COSTS, GroupCosts
from ._im2col import in_chunks
from ._mesh_axes import vary_like
from ._shift import add_shifted_products
from ._typing import Pads, Pair
from ._xla import reduce_by_rows


def shift_groups(
    image: Float[Array, "N H W G C"],
    kernel: Float[Array, "h w G C K"],
    *,
    stride: Pair,
    padding: Pads,
    dilation: Pair,
    lhs_dilation: Pair,
    divisor: int,
    costs: CpuCosts = CPU_COSTS,
) -> Float[Array, "N H2 W2 G K"]:
    """Grouped correlation by "shift": adds shifted images, each times one number of every kernel."""
    n, *_, groups, _ = image.shape
    h, w, _, channels, kernels = kernel.shape
    image = _padded(image, padding, lhs_dilation)
    weights = kernel.astype(accumulation_dtype(kernel.dtype)).swapaxes(2, 3).reshape(h, w, channels, -1)
    out = add_shifted_products(
        [_repeated(image[..., c], kernels) for c in range(channels)],
        weights,
        channel_of=operator.getitem,
        kernel_axis=3,
        image_size=image.shape[1:3],
        stride=stride,
        dilation=dilation,
        divisor=divisor,
        fused_products=costs.shift_fused_products,
    )
    return out.reshape(n, *out.shape[1:3], groups, kernels)


def sum_groups(
    image: Float[Array, "N H W G C"],
    kernel: Float[Array, "h w G C K"],
    *,
    stride: Pair,
    padding: Pads,
    dilation: Pair,
    lhs_dilation: Pair,
    divisor: int,
    costs: GroupCosts = GROUP_COSTS,
) -> Float[Array, "N H2 W2 G K"]:
    """Grouped correlation by sums over whole kernels, for kernels with more pixels than positions.

    In the gradient of kernels, whose channels are images, these are sums over the batch: pixel by pixel first, in
    vector registers along groups and kernels, some images in a step.
    """
    n, *image_size, groups, channels = image.shape
    h, w, *_, kernels = kernel.shape
    rows, columns = correlation_extents(
        image_size, (h, w), stride=stride, padding=padding, dilation=dilation, lhs_dilation=lhs_dilation
    ).output_size
    reach = dilated_size((h, w), dilation)
    kernel = kernel.astype(accumulation_dtype(kernel.dtype))
    images = _repeated(jnp.moveaxis(_padded(image, padding, lhs_dilation), 4, 0), kernels)
    weights = jnp.moveaxis(kernel, 3, 0).reshape(channels, 1, h, w, -1)
    steps = max(1, -(-channels // costs.sum_fused_products))
    chunk = -(-channels // steps)  # equal steps, so that few images are not filled up with zeros
    chunks = in_chunks(images, chunk), in_chunks(weights, chunk)

    def row_sums(row: Array) -> Array:
        def add_products(totals: list[Array], operands: tuple[Array, Array]) -> tuple[list[Array], None]:
            images, weights = operands  # (chunk, N, H, W, G K), (chunk, 1, h, w, G K)
            band = lax.dynamic_slice_in_dim(images, row * stride[0], reach[0], axis=2)[:, :, :: dilation[0]]
            starts = [column * stride[1] for column in range(columns)]
            windows = [band[:, :, :, start : start + reach[1] : dilation[1]] for start in starts]
            added = [sum(window * weight for window, weight in zip(w, weights, strict=True)) for w in windows]
            return list(map(operator.add, totals, added)), None

        zeros = vary_like(jnp.zeros((n, h, w, groups * kernels), kernel.dtype), chunks)
        totals, _ = lax.scan(add_products, [zeros] * columns, chunks)
        return jnp.stack([reduce_by_rows(jnp.sum, total, 1) for total in totals])

    out = lax.map(row_sums, jnp.arange(rows))
    return out.reshape(rows, columns, n, groups, kernels).transpose(2, 0, 1, 3, 4) / divisor


def _padded(image: Array, padding: Pads, lhs_dilation: Pair) -> Array:
    """`pad_and_dilate` of images (N, H, W, G, C)."""
    *sizes, groups, channels = image.shape
    padded = pad_and_dilate(image.reshape(*sizes, groups * channels), padding, lhs_dilation)
    return padded.reshape(*padded.shape[:3], groups, channels)


def _repeated(image: Array, kernels: int) -> Array:
    """Images (..., G) with every group as often as it has kernels, (..., G K)."""
    repeated = jnp.broadcast_to(image[..., None], (*image.shape, kernels))
    return repeated.reshape(*image.shape[:-1], -1)
