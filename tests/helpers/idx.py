"""Writes IDX files."""

import struct


def idx_bytes(array, magic=(0, 0, 8)):
    """The content of an IDX file that holds an array of bytes."""
    return bytes([*magic, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
