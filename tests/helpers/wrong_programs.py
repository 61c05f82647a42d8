"""Programs of JAX alone for which XLA:CPU computes wrong numbers, or ends the process, with its own settings.

python -m tests.helpers.wrong_programs norms    prints the largest error over the largest right value
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def norms() -> tuple[Any, Any]:
    """Squared norms of many short vectors; the last one is wrong. https://github.com/jax-ml/jax/issues/39103."""
    vectors = np.random.default_rng(0).normal(size=(32769, 3)).astype(np.float32)

    def squared_norm(vector: jax.Array) -> jax.Array:
        return jnp.sum((jnp.eye(3) @ vector) ** 2)

    return jax.jit(jax.vmap(squared_norm))(vectors), (vectors.astype(np.float64) ** 2).sum(1)


def gradients() -> tuple[Any, Any]:
    """The gradient, for each matrix of a batch, of a sum of products with a constant matrix."""
    factor = 2.0
    matrices = np.random.default_rng(0).normal(size=(5, 60, 60)).astype(np.float32)

    @jax.jit
    def products(matrix: jax.Array, factor: jax.Array) -> jax.Array:
        return jnp.sum((matrix @ jnp.full_like(matrix, factor)) * matrix, -1)

    def total(matrix: jax.Array) -> jax.Array:
        return products(matrix, jnp.float32(factor)).sum()

    # The total is the factor times the sum of the squared sums of the rows.
    row_sums = matrices.astype(np.float64).sum(2, keepdims=True)
    return jax.vmap(jax.grad(total))(matrices), np.broadcast_to(2 * factor * row_sums, matrices.shape)


def sums() -> tuple[Any, Any]:
    """A sum of products over one axis of seven. https://github.com/jax-ml/jax/issues/40412."""
    generator = np.random.default_rng(0)
    first, second = (generator.normal(size=(3, 1, 2, 2, 8, 8, 8)).astype(np.float32) for _ in range(2))
    expected = (first.astype(np.float64) * second).sum(3)
    return jax.jit(lambda a, b: jnp.sum(a * b, axis=3))(first, second), expected


def minimums() -> tuple[Any, Any]:
    """Where a minimum over two cells, of which one is padding, is NaN. https://github.com/openxla/xla/issues/21461."""
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 32)).astype(np.float32)
    images[0, 0, 0, 0] = np.nan
    kernel = jnp.ones((3, 3, 32, 32))

    def reduced(images: jax.Array) -> jax.Array:
        out = lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        window, padding = (1, 1, 2, 1, 1), [(0, 0), (0, 0), (0, 1), (0, 0), (0, 0)]
        return lax.reduce_window(out[:, :, None], np.float32(np.inf), lax.min, window, window, padding)

    expected = np.zeros((2, 8, 1, 8, 32))
    expected[0, :2, :, :2] = 1  # the windows that hold the pixel
    return jnp.isnan(jax.jit(reduced)(images)), expected


PROGRAMS = {program.__name__: program for program in (norms, gradients, sums, minimums)}


def error(name: str) -> float:
    """The largest error of a program over the largest right value; NaN if any number is NaN."""
    got, expected = PROGRAMS[name]()
    return float(np.abs(np.asarray(got, np.float64) - expected).max() / np.abs(expected).max())


if __name__ == "__main__":
    print(error(sys.argv[1]))
