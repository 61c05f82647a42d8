"""Short texts of arrays and trees, for the `repr` of what holds them."""

import math

import jax
from jaxtyping import PyTree


def array_text(array: object) -> str:
    """The dtype and shape of an array; other values as they print.

    >>> array_text(jax.numpy.zeros((2, 3)))
    'float32 (2, 3)'
    """
    shape = getattr(array, "shape", None)
    return repr(array) if shape is None else f"{getattr(array, 'dtype', 'array')} {shape}"


def tree_text(tree: PyTree) -> str:
    """The number of arrays in a tree, and of the numbers in them.

    >>> tree_text({"dense1": {"kernel": jax.numpy.zeros((50, 100)), "bias": jax.numpy.zeros(100)}})
    '2 arrays of 5,100 numbers'
    """
    leaves = jax.tree.leaves(tree)
    numbers = sum(math.prod(getattr(leaf, "shape", ())) for leaf in leaves)
    return f"{len(leaves)} arrays of {numbers:,} numbers"
