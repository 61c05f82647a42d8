"""Types that several modules share."""

from collections.abc import Sequence

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
Padding = str | Sequence[Sequence[int]]
