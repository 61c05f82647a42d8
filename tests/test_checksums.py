"""Checksums: equal for equal values, different for any other."""

import zlib

import jax.numpy as jnp
import numpy as np

from cnn_jax._checksums import array_checksum, json_checksum, leaves_by_path, tree_checksums

ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4)


def test_the_checksum_is_the_crc_of_the_bytes_in_reading_order():
    assert array_checksum(ARRAY) == zlib.crc32(ARRAY.tobytes())
    assert array_checksum(ARRAY.T) == zlib.crc32(ARRAY.T.copy().tobytes())
    assert array_checksum(jnp.asarray(ARRAY)) == array_checksum(ARRAY)


def test_one_flipped_bit_is_seen():
    for byte in range(0, ARRAY.nbytes, 7):
        flipped = bytearray(ARRAY.tobytes())
        flipped[byte] ^= 16
        assert array_checksum(np.frombuffer(flipped, np.float32)) != array_checksum(ARRAY)


def test_trees_are_summed_leaf_by_leaf():
    tree = {"a": [ARRAY, ARRAY + 1], "b": ARRAY}
    sums = tree_checksums(tree)
    assert sums == {"a/0": array_checksum(ARRAY), "a/1": array_checksum(ARRAY + 1), "b": sums["a/0"]}
    assert leaves_by_path(tree).keys() == sums.keys()


def test_json_is_summed_whatever_the_order_of_keys():
    assert json_checksum({"a": 1, "b": [2]}) == json_checksum({"b": [2], "a": 1})
    assert json_checksum({"a": 1, "b": [2]}) != json_checksum({"a": 1, "b": [3]})
