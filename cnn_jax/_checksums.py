"""CRC-32 checksums, which detect damaged checkpoints and tell data sets apart."""

import json
import zlib
from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import ArrayLike, PyTree, Shaped


def array_checksum(array: Shaped[ArrayLike, "..."]) -> int:
    """The checksum of an array's bytes.

    >>> array_checksum(np.zeros(3, np.uint8)) == array_checksum(np.zeros(4, np.uint8))
    False
    """
    return zlib.crc32(np.ascontiguousarray(array).tobytes())


def tree_checksums(tree: PyTree) -> dict[str, int]:
    """The checksum of every array of a tree, by the array's path.

    >>> list(tree_checksums({"kernel": np.zeros(2), "bias": np.zeros(1)}))
    ['bias', 'kernel']
    """
    return {path: array_checksum(leaf) for path, leaf in leaves_by_path(tree).items()}


def json_checksum(value: Mapping[str, object]) -> int:
    """The checksum of a dict that JSON can hold, whatever the order of its keys.

    >>> json_checksum({"a": 1, "b": 2}) == json_checksum({"b": 2, "a": 1})
    True
    """
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def leaves_by_path(tree: PyTree) -> PyTree:
    """The leaves of a tree as one flat dict, by path: keys, indices and names, joined by "/".

    >>> leaves_by_path({"dense1": [1, 2]})
    {'dense1/0': 1, 'dense1/1': 2}
    """
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def path_name(path: jax.tree_util.KeyPath) -> str:
    """The keys, indices and names on the way to a leaf, joined by "/".

    >>> path_name((jax.tree_util.DictKey("dense1"), jax.tree_util.SequenceKey(0)))
    'dense1/0'
    """
    return jax.tree_util.keystr(path, simple=True, separator="/")
