"""Real photos, those that scikit-image contains, as gray scenes of any size."""

import importlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

INSTALL_HINT = "skimage: expected an installed scikit-image for its photos; pip install 'cnn_jax[bench]'"
LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue, ITU-R BT.601
# Each photo's function in skimage.data, and the part of the photo: (top, left, bottom, right) as fractions.
WHOLE = (0.0, 0.0, 1.0, 1.0)
LEFT_HALF = (0.0, 0.0, 1.0, 0.5)
RIGHT_HALF = (0.0, 0.5, 1.0, 1.0)
PHOTOS = {
    "astronaut": ("astronaut", WHOLE),
    "coffee": ("coffee", WHOLE),
    "motorcycle": ("stereo_motorcycle", WHOLE),
    "camera": ("camera", WHOLE),
    "chelsea": ("chelsea", WHOLE),
    "rocket": ("rocket", WHOLE),
    "galaxies, left": ("hubble_deep_field", LEFT_HALF),
    "galaxies, right": ("hubble_deep_field", RIGHT_HALF),
    "retina, left": ("retina", LEFT_HALF),
    "retina, right": ("retina", RIGHT_HALF),
    "tissue": ("immunohistochemistry", WHOLE),
    "moon": ("moon", WHOLE),
    "coins": ("coins", WHOLE),
    "page": ("page", WHOLE),
    "text": ("text", WHOLE),
    "clock": ("clock", WHOLE),
    "brick": ("brick", WHOLE),
    "grass": ("grass", WHOLE),
    "gravel": ("gravel", WHOLE),
    "cell": ("cell", WHOLE),
    "horse": ("horse", WHOLE),
    "color wheel": ("colorwheel", WHOLE),
    "aneurysms": ("microaneurysms", WHOLE),
}
# Templates are cut from these. The other 20 do not contain them.
TEMPLATE_PHOTOS = ("astronaut", "coffee", "motorcycle")
OTHER_PHOTOS = tuple(name for name in PHOTOS if name not in TEMPLATE_PHOTOS)


def load_photo(name: str) -> np.ndarray:
    """A photo of PHOTOS in gray levels 0 to 255, uint8 (H, W).

    Raises:
      ValueError: scikit-image is not installed.
    """
    function, (top, left, bottom, right) = PHOTOS[name]
    try:
        photo = getattr(importlib.import_module("skimage.data"), function)()
    except ImportError as error:
        raise ValueError(INSTALL_HINT) from error
    pixels = to_gray(photo[0] if isinstance(photo, tuple) else photo)  # the left one of a stereo pair
    height, width = pixels.shape
    rows = slice(round(top * height), round(bottom * height))
    columns = slice(round(left * width), round(right * width))
    return pixels[rows, columns]


def to_gray(pixels: np.ndarray) -> np.ndarray:
    """Gray levels 0 to 255 of a picture (H, W) or (H, W, 3), bools or uint8."""
    if pixels.dtype == bool:
        return np.uint8(255) * pixels
    return pixels if pixels.ndim == 2 else np.rint(pixels[..., :3] @ np.array(LUMA)).astype(np.uint8)


def cover(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle part of a gray picture that has the shape of `size`, resized to it (Lanczos)."""
    rows, columns = pixels.shape
    height, width = size
    factor = min(rows / height, columns / width)
    top = max(0.0, (rows - factor * height) / 2)
    left = max(0.0, (columns - factor * width) / 2)
    box = (left, top, columns - left, rows - top)
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS, box)
    return np.asarray(resized)


def cell_slices(size: tuple[int, int], cells: tuple[int, int], index: int) -> tuple[slice, slice]:
    """The rows and columns of a cell of a mosaic, counted row by row."""
    places = divmod(index, cells[1])
    edges = [
        (n * place // count, n * (place + 1) // count) for n, place, count in zip(size, places, cells, strict=True)
    ]
    return slice(*edges[0]), slice(*edges[1])


def mosaic(photos: Sequence[np.ndarray], size: tuple[int, int], cells: tuple[int, int]) -> np.ndarray:
    """A scene (H, W) of different photos side by side: large, as detailed as the photos, and never periodic.

    Args:
      photos: gray pictures, one for each cell, row by row.
      size: rows and columns of the scene.
      cells: numbers of cells along them.
    """
    scene = np.empty(size, np.uint8)
    for index, photo in enumerate(photos):
        cell = scene[cell_slices(size, cells, index)]
        cell[:] = cover(photo, cell.shape)
    return scene
