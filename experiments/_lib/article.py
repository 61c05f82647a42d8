"""The pictures of the article's worked example: an X, a deformed X, and three hand-drawn features.

Source: Rohrer, "How Convolutional Neural Networks Work" (2016),
https://brohrer.github.io/how_convolutional_neural_networks_work.html
"""

import numpy as np
from jaxtyping import Float


def parse_picture(text: str) -> Float[np.ndarray, "H W"]:
    """A picture typed in characters separated by spaces: `#` is 1 (white), `.` is -1 (black).

    >>> parse_picture("# .")
    array([[ 1., -1.]], dtype=float32)
    """
    rows = [line.split() for line in text.splitlines() if line.strip()]
    return np.array([[1.0 if character == "#" else -1.0 for character in row] for row in rows], np.float32)


THE_X = parse_picture("""
. . . . . . . . .
. # . . . . . # .
. . # . . . # . .
. . . # . # . . .
. . . . # . . . .
. . . # . # . . .
. . # . . . # . .
. # . . . . . # .
. . . . . . . . .
""")
DEFORMED_X = parse_picture("""
. . . . . . . . .
. . . . . . # . .
. # . . . # . . .
. . # # . # . . .
. . . . # . . . .
. . . # . # # . .
. . . # . . . # .
. . # . . . . . .
. . . . . . . . .
""")
IMAGES = {"the X": THE_X, "a deformed X": DEFORMED_X}
FEATURES = {
    "diagonal": parse_picture("# . .\n. # .\n. . #"),
    "crossing": parse_picture("# . #\n. # .\n# . #"),
    "other diagonal": parse_picture(". . #\n. # .\n# . ."),
}
