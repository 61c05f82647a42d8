"""Padding: "VALID", "SAME", "CEIL" or explicit, as rows and columns on each side."""

import math
import operator
from collections.abc import Sequence

from ._typing import Padding, Pads, Pair

NO_PADDING: Pads = ((0, 0), (0, 0))
EXPECTED = "'VALID', 'SAME', 'CEIL' or ((top, bottom), (left, right))"


def explicit_padding(
    padding: Padding, size: tuple[int, ...], window: tuple[int, ...], stride: Pair, *, names: tuple[str, str]
) -> Pads:
    """Rows and columns to add on each side, as ((top, bottom), (left, right)).

    - "VALID" adds none: windows lie inside the image.
    - "SAME" gives ceil(size / stride) windows; an odd pixel is added after the image, as in XLA and TensorFlow.
    - "CEIL" starts at the first pixel and keeps the last partial window if it holds a pixel, as the article does.

    Args:
      padding: one of these names, or the pads themselves.
      size: the image's rows and columns.
      window: the rows and columns that a window covers.
      stride: steps between windows.
      names: what the caller calls the image and the window; for the error message.

    Raises:
      ValueError: the name is unknown, the pads are negative or not two pairs, or the window is larger than the padded
        image.
      TypeError: the pads are not ints.

    >>> explicit_padding("SAME", (5, 5), (3, 3), (1, 2), names=("image", "window"))
    ((1, 1), (1, 1))
    """
    rows, columns = _named_padding(padding, size, window, stride) if isinstance(padding, str) else _pads(padding)
    padded_size = size[0] + sum(rows), size[1] + sum(columns)
    if padded_size[0] < window[0] or padded_size[1] < window[1]:
        image_name, window_name = names
        raise ValueError(
            f"{window_name}: expected at most the size of the padded {image_name} {padded_size}, got {window} "
            f"(padding={padding!r})"
        )
    return rows, columns


def _pads(padding: Sequence[Sequence[int]]) -> Pads:
    """Explicit pads, checked."""
    try:
        pads = [(operator.index(low), operator.index(high)) for low, high in padding]
    except (TypeError, ValueError):
        raise TypeError(f"padding: expected {EXPECTED}, got {padding!r}") from None
    if len(pads) != 2 or min(map(min, pads)) < 0:
        raise ValueError(f"padding: expected {EXPECTED}, none negative, got {padding!r}")
    return pads[0], pads[1]


def _named_padding(name: str, size: tuple[int, ...], window: tuple[int, ...], stride: Pair) -> Pads:
    if name not in ("VALID", "SAME", "CEIL"):
        raise ValueError(f"padding: expected {EXPECTED}, got {name!r}")
    rows, columns = (_named_pad(name, *axis) for axis in zip(size, window, stride, strict=True))
    return rows, columns


def _named_pad(name: str, size: int, window: int, stride: int) -> Pair:
    """The pixels to add before and after one axis."""
    if name == "VALID":
        return 0, 0
    if name == "SAME":
        total = max((math.ceil(size / stride) - 1) * stride + window - size, 0)
        return total // 2, total - total // 2
    windows = min(math.ceil(max(size - window, 0) / stride) + 1, math.ceil(size / stride))
    return 0, max((windows - 1) * stride + window - size, 0)
