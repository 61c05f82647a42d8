"""Every work-around of the library for XLA, the compiler.

A work-around says what XLA does, where that is reported, which versions do it, what is gained, and what shows when it
may go: a test in tests/test_xla.py, or rows (task: case) of `python -m experiments.throughput`. Times were measured on
two cores of an AMD EPYC with AVX-512, jax 0.10.2, in November 2026.

Five work-arounds are algorithms in other modules:

- `_correlate` writes derivatives of convolutions as correlations of channels-last images. XLA:CPU brings gradients of
  convolutions into the layout of its fast code outside of loops only (https://github.com/jax-ml/jax/issues/12868). A
  training step inside of `lax.scan` takes 9.2 ms instead of 383. Row: train_step: 256x28x28x1, 16-32, "jax scan".
  `training.CPU_STEPS_PER_CALL` is 1 because a network may contain `lax.conv_general_dilated`.
- `_reduce_windows` and `_window_pools` use slices. The gradient of `lax.reduce_window` with `lax.max` is a
  select-and-scatter, which has no deterministic implementation on GPUs (https://github.com/google/flax/issues/4233)
  and takes 22 ms instead of 1.0 on the CPU. Row: max_pool's gradient: 256x16x16x32, 64.
- `_shift` and `_im2col` replace XLA:CPU's convolution for few channels: 0.32 ms instead of 2.88. Row: conv:
  256x28x28x1, 16.
- `_grouped` replaces XLA:CPU's grouped convolution. Both gradients of a depthwise one take 3.6 ms instead of 53. Row:
  depthwise conv's gradients: 32x32x32x32, 32.
- `_tpu_conv` has other forms of XLA:TPU's convolution, and `_lax_conv` one for XLA:GPU. They say why.

jaxlib 0.11.1 and 0.11.2 are excluded in pyproject.toml: concurrent Fourier transforms hang on the CPU
(https://github.com/PyAutoLabs/PyAutoFit/issues/1530).
"""

import functools
import operator
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, PyTree

from ._mesh_axes import vary_like

Out = TypeVar("Out")

MIN_ROW = 512  # numbers in a row that fills the vector registers


# XLA:CPU fuses cheap operations into all of their consumers: it computes them once per consumer, and keeps the terms of
# long sums in memory instead of registers. `lax.optimization_barrier` does not stop it, as the pass
# OptimizationBarrierExpander runs before fusion (xla/service/cpu/cpu_compiler.cc of https://github.com/openxla/xla). A
# conditional whose predicate is behind a barrier does.
# Report: https://github.com/jax-ml/jax/issues/21065 (a trivial lax.cond speeds up a program).
# Versions: seen in jaxlib 0.10.2.
# Ends: when test_xla_fuses_across_barriers fails. Rows: match and zncc: 64x64x64, 16x5x5.
def no_fusion(function: Callable[..., Out], *args: PyTree) -> Out:
    """`function(*args)`, which XLA:CPU does not fuse into its consumers."""
    function = jax.jit(function, inline=True)  # traced once for its shape, the conditional and other platforms

    def isolated(*args: PyTree) -> Out:
        outputs = jax.eval_shape(function, *args)

        def make_zeros(*args: PyTree) -> Out:
            return vary_like(jax.tree.map(lambda out: jnp.zeros(out.shape, out.dtype), outputs), args)

        always = lax.optimization_barrier(jnp.array(True))
        return lax.cond(always, function, make_zeros, *args)

    return lax.platform_dependent(*(vary_like(arg, args) for arg in args), cpu=isolated, default=function)


# XLA:CPU runs a Fourier transform that follows another operation on one core. So two pieces are transformed at a time.
# Report: https://github.com/openxla/xla/issues/46345, https://github.com/jax-ml/jax/issues/39081.
# Versions: those without https://github.com/openxla/xla/pull/46347 (July 2026).
# Ends: when these rows take no longer with 1. Rows: match and zncc: 1x2448x3264, 4x31x31.
CONCURRENT_TRANSFORMS = 2  # pieces


# XLA:CPU gives a transform the memory of an array that another transform has used up, and so makes it wait for the
# other. It cannot do that while a later operation needs all of these arrays.
# Report: none known.
# Versions: seen in jaxlib 0.10.2.
# Ends: when these rows take no longer without it. Rows: match and zncc: 1x2448x3264, 4x31x31.
def order_after(*arrays: Array) -> Array:
    """Zero, computed from finite arrays: an operation that adds it comes after all of them.

    The arrays must be inputs or outputs of operations that XLA does not fuse, such as transforms. Of a fused array XLA
    would compute only the first element, separately.
    """
    return 0 * functools.reduce(operator.add, [array[(0,) * array.ndim].real for array in arrays])


# XLA:CPU reduces number by number where the last axis is among the reduced ones. YNNPACK uses vector registers, but its
# fusions compute wrong numbers (`configure_cpu`). So the leading axes are reduced first, in vector registers along the
# last one. A barrier keeps XLA from making one reduction of both.
# Report: https://github.com/jax-ml/jax/issues/37465 (reductions).
# Versions: seen in jaxlib 0.10.2 without YNNPACK.
# Ends: when these rows take no longer without it. Rows: match: 1x2048x2048, 1x64x64; train_step: 256x28x28x1, 16-32.
def reduce_by_rows(reduce: Callable[..., Array], array: Array, row_axis: int) -> Array:
    """`reduce` over a pair of axes, rows and columns, of which `row_axis` is the first."""
    return reduce(lax.optimization_barrier(reduce(array, axis=row_axis)), axis=row_axis)


def total(array: Array) -> Array:
    """The sum of all elements, as `reduce_by_rows` computes it."""
    axis, row = array.ndim, 1
    while axis and row < MIN_ROW:
        axis -= 1
        row *= array.shape[axis]
    return lax.optimization_barrier(array.reshape(-1, row).sum(0)).sum()


def spread_bias(bias: ArrayLike, shape: tuple[int, ...]) -> Array:
    """A bias (K,) for every pixel of an image (H, W, K). Its gradient for a batch is summed over the images first."""

    def on_cpu(bias: ArrayLike) -> Array:
        return lax.optimization_barrier(jnp.broadcast_to(bias, shape))

    return lax.platform_dependent(bias, cpu=on_cpu, default=lambda bias: jnp.broadcast_to(bias, shape))


# XLA:CPU computes cheap operations again for every element of a larger consumer. The gradient of pooling needs the
# index of a window's maximum, computed by one comparison per pixel, at every pixel of the window. XLA does not count a
# square root as cheap. Taking the index as a root makes XLA compute it once per window.
# Report: none known.
# Versions: seen in jaxlib 0.10.2.
# Ends: when test_xla_repeats_cheap_indices_for_every_pixel fails. Row: max_pool's gradient: 256x16x16x32, 64.
def index_computed_once(squared_index: Array) -> Array:
    """The index as int8, computed from its square as a float."""
    return jnp.round(jnp.sqrt(squared_index)).astype(jnp.int8)


# XLA:CPU copies an array that a branch of a conditional returns unchanged. A loop of no or one step changes it in
# place. The barrier keeps XLA from computing before the loop what does not depend on the step.
# Report: none known.
# Versions: seen in jaxlib 0.10.2.
# Ends: when this row takes no longer with `lax.cond`. Row: match: 1x2048x2048, 1x64x64.
def change_in_place_if(condition: Array, change: Callable[[Array, Array], Array], array: Array, data: Array) -> Array:
    """`change(array, data)` if the condition holds, otherwise the array."""

    def step(index: Array, array: Array) -> Array:
        data_of_step, _ = lax.optimization_barrier((data, index))
        return change(array, data_of_step)

    return lax.fori_loop(0, jnp.where(condition, 1, 0), step, array)


# XLA divides by a broadcast number by multiplying by its reciprocal. The CPU flushes a reciprocal to 0 that is less
# than the smallest normal number: pixels of 1e38 became 0.
# Report: none known.
# Versions: seen in jaxlib 0.10.2 and 0.12.0.1.
# Ends: when test_scores_of_the_largest_pixels of test_matching passes without it.
def with_normal_reciprocal(scale: Array) -> Array:
    """A scale, but at most the largest number whose reciprocal is a normal one: a quarter of the largest number."""
    return jnp.minimum(scale, 1 / jnp.finfo(scale.dtype).tiny)


# XLA:CPU's maximum of a number and 0 may drop NaN where it is fused: a patch with NaN then has the squared difference
# 0, a perfect match. A selection keeps NaN.
# Report: https://github.com/openxla/xla/issues/21461.
# Versions: seen in jaxlib 0.10.2.
# Ends: when test_a_patch_with_nan_is_no_match_of_a_difference of test_search passes with jnp.maximum.
def not_negative(values: Array) -> Array:
    """The values, 0 where they are negative, NaN where they are NaN."""
    return jnp.where(values < 0, 0, values)
