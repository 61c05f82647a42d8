"""Floating-point types to compute in."""

from typing import Any

import jax.numpy as jnp


def accumulation_dtype(dtype: Any) -> Any:
    """The dtype to add up in: float32 for 16-bit floats, the dtype itself otherwise."""
    return jnp.dtype(jnp.float32) if jnp.dtype(dtype).itemsize < 4 else jnp.dtype(dtype)
