"""Padding: "VALID", "SAME", "CEIL" or explicit, as rows and columns on each side."""

import math
import operator
from typing import Any

from ._typing import Padding, Pads, Pair

NO_PADDING: Pads = ((0, 0), (0, 0))
PADDINGS = "'VALID', 'SAME', 'CEIL' or ((top, bottom), (left, right))"


def explicit_padding(
    padding: Padding, size: tuple[int, ...], window: Pair, stride: Pair, *, names: tuple[str, str]
) -> Pads:
    """The rows and columns to add on each side, as ((top, bottom), (left, right)).

    - "VALID" adds none: only whole windows count.
    - "SAME" gives ceil(size / stride) windows, the odd pixel added after (as XLA and TensorFlow do).
    - "CEIL" starts at the first pixel and keeps the last partial window, if it holds a pixel (as the article does).

    `names` says what the caller calls the image and the window, for the ValueError when no window fits.
    """
    if isinstance(padding, str):
        if padding not in ("VALID", "SAME", "CEIL"):
            raise ValueError(f"padding: expected {PADDINGS}, got {padding!r}")
        out = [_named_pad(padding, *axis) for axis in zip(size, window, stride, strict=True)]
    else:
        out = _explicit_pads(padding)
    for pad, n, w in zip(out, size, window, strict=True):
        if n + sum(pad) < w:
            image, kernel = names
            given = f"{padding!r} padding" if isinstance(padding, str) else f"padding {tuple(out)}"
            raise ValueError(f"{kernel}: covers {window}, larger than the {image} of {size} with {given}")
    return out[0], out[1]


def _explicit_pads(padding: Any) -> list[Pair]:
    try:
        out = [(operator.index(low), operator.index(high)) for low, high in padding]
    except (TypeError, ValueError):
        raise TypeError(f"padding: expected {PADDINGS}, got {padding!r}") from None
    if len(out) != 2 or min(map(min, out)) < 0:
        raise ValueError(f"padding: expected {PADDINGS}, none negative, got {padding!r}")
    return out


def _named_pad(padding: str, n: int, w: int, s: int) -> Pair:
    if padding == "VALID":
        return 0, 0
    if padding == "SAME":
        total = max((math.ceil(n / s) - 1) * s + w - n, 0)
        return total // 2, total - total // 2
    windows = min(math.ceil(max(n - w, 0) / s) + 1, math.ceil(n / s))
    return 0, max((windows - 1) * s + w - n, 0)
