"""Work-arounds for XLA, the compiler."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def no_fusion(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)`, computed by itself on CPU: XLA would fuse it into what uses it, and lose its speed.

    XLA takes optimization barriers away before it fuses, but not a branch whose condition stands behind one.
    """

    def branch(*args: Any) -> Any:
        nothing = jax.eval_shape(function, *args)
        zeros = jax.tree.map(lambda out: functools.partial(jnp.zeros, out.shape, out.dtype), nothing)
        wall = lax.optimization_barrier(jnp.array(True))
        return lax.cond(wall, function, lambda *_: jax.tree.map(lambda zero: zero(), zeros), *args)

    return lax.platform_dependent(*args, cpu=branch, default=function)
