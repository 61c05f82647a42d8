"""The worked example of Rohrer, "How Convolutional Neural Networks Work" (2016), in exact ninths.

The article prints decimals cut off after two places (5/9 as 0.55). Maps stand side by side, one for each feature.
"""

import numpy as np


def drawings(text: str) -> np.ndarray:
    """White is 1, black -1."""
    cells = [[list(part) for part in line.split()] for line in text.strip().splitlines()]
    return np.where(np.array(cells).swapaxes(0, 1) == "#", 1, -1).astype(np.float32)


def ninths(text: str) -> np.ndarray:
    rows = [[[int(n) / 9 for n in part.split()] for part in line.split("|")] for line in text.strip().splitlines()]
    return np.array(rows).swapaxes(0, 1)


# The X, and the deformed X.
IMAGES = drawings(
    """
    .........  .........
    .#.....#.  ......#..
    ..#...#..  .#...#...
    ...#.#...  ..##.#...
    ....#....  ....#....
    ...#.#...  ...#.##..
    ..#...#..  ...#...#.
    .#.....#.  ..#......
    .........  .........
    """
)

FEATURES = drawings(
    """
    #..  #.#  ..#
    .#.  .#.  .#.
    ..#  #.#  #..
    """
)

MAPS = ninths(
    """
     7 -1  1  3  5 -1  3 |  3 -5  1 -1  1 -5  3 |  3 -1  5  3  1 -1  7
    -1  9 -1  3 -1  1 -1 | -5  5 -5  3 -5  5 -5 | -1  1 -1  3 -1  9 -1
     1 -1  9 -3  1 -1  5 |  1 -5  5 -7  5 -5  1 |  5 -1  1 -3  9 -1  1
     3  3 -3  5 -3  3  3 | -1  3 -7  9 -7  3 -1 |  3  3 -3  5 -3  3  3
     5 -1  1 -3  9 -1  1 |  1 -5  5 -7  5 -5  1 |  1 -1  9 -3  1 -1  5
    -1  1 -1  3 -1  9 -1 | -5  5 -5  3 -5  5 -5 | -1  9 -1  3 -1  1 -1
     3 -1  5  3  1 -1  7 |  3 -5  1 -1  1 -5  3 |  7 -1  1  3  5 -1  3
    """
)

RECTIFIED = ninths(
    """
     7  0  1  3  5  0  3 |  3  0  1  0  1  0  3 |  3  0  5  3  1  0  7
     0  9  0  3  0  1  0 |  0  5  0  3  0  5  0 |  0  1  0  3  0  9  0
     1  0  9  0  1  0  5 |  1  0  5  0  5  0  1 |  5  0  1  0  9  0  1
     3  3  0  5  0  3  3 |  0  3  0  9  0  3  0 |  3  3  0  5  0  3  3
     5  0  1  0  9  0  1 |  1  0  5  0  5  0  1 |  1  0  9  0  1  0  5
     0  1  0  3  0  9  0 |  0  5  0  3  0  5  0 |  0  9  0  3  0  1  0
     3  0  5  3  1  0  7 |  3  0  1  0  1  0  3 |  7  0  1  3  5  0  3
    """
)

POOLED = ninths(
    """
     9  3  5  3 |  5  3  5  3 |  3  5  9  7
     3  9  3  5 |  3  9  5  1 |  5  5  9  3
     5  3  9  1 |  5  5  5  1 |  9  9  1  5
     3  5  1  7 |  3  1  1  3 |  7  3  5  3
    """
)

POOLED_TWICE = ninths(
    """
     9  5 |  9  5 |  5  9
     5  9 |  5  5 |  9  5
    """
)

DEFORMED_MAPS = ninths(
    """
     1  1  3  5 -1  3  1 | -3  1 -1  1 -5  3 -3 |  1  5  3  1 -1  7  1
     7  1 -1  1  1 -3  5 |  3 -3 -1  1  1 -3  1 |  3 -3  3  1  5  1  1
    -1  5  5 -5  1  3  3 | -5  1  1 -5  1 -1 -1 | -1  1  1 -1  5 -1  3
     1  1 -1  5 -1  1  1 |  1  1 -5  9 -5  1  1 |  5  1 -5  5 -5  1  5
     3  3  1 -5  5  5 -1 | -1 -1  1 -5  1  1 -5 |  3 -1  5 -1  1  1 -1
     5 -3  1  1 -1  1  7 |  1 -3  1  1 -1 -3  3 |  1  1  5  1  3 -3  3
     1  3 -1  5  3  1  1 | -3  3 -5  1 -1  1 -3 |  1  7 -1  1  3  5  1
    """
)

DEFORMED_POOLED = ninths(
    """
     7  5  3  5 |  3  1  3  1 |  5  3  7  1
     5  5  3  3 |  1  9  1  1 |  5  5  5  5
     5  1  5  7 |  1  1  1  3 |  3  5  3  3
     3  5  3  1 |  3  1  1 -3 |  7  1  5  1
    """
)

DEFORMED_POOLED_TWICE = ninths(
    """
     7  5 |  9  3 |  5  7
     5  7 |  3  3 |  7  5
    """
)

# The twelve values that vote, whose votes count for X and for O, and the printed results.
VOTES = np.array([0.9, 0.65, 0.45, 0.87, 0.96, 0.73, 0.23, 0.63, 0.44, 0.89, 0.94, 0.53])
VOTERS = {"X": [0, 3, 4, 9, 10], "O": [1, 2, 8, 11]}
PRINTED_VOTES = [0.92, 0.51]
