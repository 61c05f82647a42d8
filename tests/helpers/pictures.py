"""A folder of small images, some of them corrupt."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 4
READABLE = 60
CORRUPT = 3


def write_pictures(folder: Path) -> Path:
    """Images of the classes dark and light, each of its own grey level, and corrupt files among the dark ones."""
    for name in ("dark", "light"):
        (folder / name).mkdir(parents=True)
    for i in range(READABLE):
        path = folder / ("light" if i >= 30 else "dark") / f"{i:02d}.png"
        Image.fromarray(np.full((SIZE, SIZE), 4 * i, np.uint8)).save(path)
    for i in range(CORRUPT):
        (folder / "dark" / f"bad{i}.png").write_bytes(b"no picture")
    return folder
