"""Floating-point types to compute in."""

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike


def accumulation_dtype(dtype: DTypeLike) -> np.dtype:
    """The dtype of sums: float32 for 16-bit floats, the dtype itself for wider ones.

    >>> accumulation_dtype("bfloat16")
    dtype('float32')
    """
    input_dtype = jnp.dtype(dtype)
    return jnp.dtype(jnp.float32) if input_dtype.itemsize < 4 else input_dtype
