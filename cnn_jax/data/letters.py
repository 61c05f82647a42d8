"""Segmentation of a letter: any size, either polarity, uneven light."""

import numpy as np
from jaxtyping import Float, Num
from PIL import Image
from scipy import ndimage
from scipy.spatial import ConvexHull

from .._validation import check_int

# Letters are looked for at this size at most; beyond it only time is spent.
WORKING_SIZE = 256
# The letter's longer side within its frame, as MNIST has it.
FILL = 20 / 28
# Otsu's threshold explains this much of the variance where ink and ground are two levels under even light.
TWO_LEVELS = 0.85


def segment_letter(image: Num[np.ndarray, "H W"], *, size: int = 28) -> Float[np.ndarray, "size size"]:
    """Finds the letter in a picture and sets it white on black into the middle of a small frame.

    Takes away a line around the picture, evens out the light, splits ink from ground by Otsu's threshold, takes as
    ground what touches most of the border, drops specks, and scales the rest to 20/28 of the frame. A picture with
    nothing on it gives a black frame.

    Args:
      image: grey levels on any scale, either polarity, any size.
      size: rows and columns of the frame.

    Returns:
      The framed letter, float32 in [-1, 1].

    Raises:
      ValueError: an image that is not (H, W) or is empty, a size below 1.
      TypeError: a size that is no int.
    """
    size = check_int("size", size)
    image = np.clip(np.nan_to_num(np.asarray(image, np.float64)), -1e30, 1e30)
    if image.ndim != 2 or image.size == 0:
        raise ValueError(f"image: expected a non-empty (H, W), got shape {image.shape}")
    low, high = image.min(), image.max()
    if high - low <= 1e-5 * max(abs(low), abs(high)):
        return np.full((size, size), -1, np.float32)
    image = _without_outline(_reduce(((image - low) / (high - low)).astype(np.float32)))
    image = _even_light(image)
    ink, mask = _ink(image)
    mask = _parts_from(mask, 0.05)
    ink = np.where(ndimage.binary_dilation(mask, iterations=2), ink, 0)
    rows, columns = np.nonzero(mask)
    box = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    return _centred(box, size)


def _reduce(image: np.ndarray) -> np.ndarray:
    factor = -(-max(image.shape) // WORKING_SIZE)
    if factor == 1:
        return image
    return np.asarray(Image.fromarray(image).reduce(factor))


def _without_outline(image: np.ndarray) -> np.ndarray:
    """Takes away a line drawn all around the picture, such as a form's cell or the edge of a scan."""
    light = image > _otsu(image)[0]
    outer = light[0, 0]
    for width in range(min(image.shape) // 8 + 1):
        inside = light[width : light.shape[0] - width, width : light.shape[1] - width]
        edge = _border(inside)
        if np.mean(edge == outer) < 0.98:
            is_line = width > 0 and np.mean(edge == outer) < 0.5 and len(np.unique(inside)) == 2
            return image[width : light.shape[0] - width, width : light.shape[1] - width] if is_line else image
    return image


def _border(image: np.ndarray) -> np.ndarray:
    """The outermost pixels, once around."""
    return np.concatenate([image[0], image[1:, -1], image[-1, -2::-1], image[-2:0:-1, 0]])


def _otsu(values: np.ndarray) -> tuple[float, float]:
    """Otsu's threshold, and how much of the variance it explains (0 to 1)."""
    counts, edges = np.histogram(values, 256)
    centres = (edges[:-1] + edges[1:]) / 2
    below, total = np.cumsum(counts), counts.sum()
    mass = np.cumsum(counts * centres)
    mean = mass[-1] / total
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mean * below - mass) ** 2 / (below * (total - below))
    between = np.nan_to_num(between, posinf=0)
    best = np.flatnonzero(between >= between.max() * (1 - 1e-6))
    threshold = edges[1 + (best[0] + best[-1]) // 2]
    variance = np.sum(counts * (centres - mean) ** 2) / total
    return float(threshold), float(between.max() / max(variance, 1e-30))


def _even_light(image: np.ndarray) -> np.ndarray:
    """Takes the slowly changing light out of a picture that does not fall into two levels by itself.

    The light at a pixel is a wide Gaussian mean over those pixels around it that are not ink by the last guess.
    """
    if _otsu(image)[1] > TWO_LEVELS:
        return image
    image = ndimage.gaussian_filter(image, max(image.shape) / 150)
    width = max(image.shape) / 8
    ground, rest = np.ones_like(image), image
    for _ in range(4):
        weight = ndimage.gaussian_filter(ground, width) + 1e-3
        rest = image - ndimage.gaussian_filter(image * ground, width) / weight
        ground = (np.abs(rest) < _otsu(np.abs(rest))[0]).astype(np.float32)
    return rest


def _ink(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ink from 0 to 1, and where it is: the side of the threshold that holds less of the border."""
    light = image > _otsu(image)[0]
    mask = ~light if _border(light).mean() + 0.2 * (light.mean() - 0.5) > 0.5 else light
    if _is_blob(_parts_from(mask, 1.0)) and not _is_blob(_parts_from(~mask, 1.0)):
        mask = ~mask  # no letter is solid: this is what a ring that reaches the border encloses
    ground, ink = np.median(image[~mask]), np.median(image[mask])
    return np.clip((image - ground) / (ink - ground), 0, 1), mask


def _is_blob(mask: np.ndarray) -> bool:
    """Whether the ink is one solid convex piece: it has no hole and fills its convex hull."""
    if np.sum(np.asarray(ndimage.binary_fill_holes(mask))) != mask.sum():
        return False
    pixels = np.argwhere(mask & np.logical_not(ndimage.binary_erosion(mask)))
    corners = np.concatenate([pixels + shift for shift in ((0, 0), (0, 1), (1, 0), (1, 1))])
    return mask.sum() > 0.9 * ConvexHull(corners).volume


def _parts_from(mask: np.ndarray, share: float) -> np.ndarray:
    """The connected parts of at least this share of the largest one's area."""
    parts = np.empty(mask.shape, np.int32)
    ndimage.label(mask, np.ones((3, 3)), output=parts)
    areas = np.bincount(parts.ravel())
    areas[0] = 0
    return (areas >= share * areas.max())[parts] & mask


def _centred(box: np.ndarray, size: int) -> np.ndarray:
    scale = FILL * size / max(box.shape)
    height, width = (max(round(side * scale), 1) for side in box.shape)
    letter = np.asarray(
        Image.fromarray(box).resize((width, height), Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR)
    )
    letter = letter / max(np.quantile(letter, 0.98), 1e-6)
    out = np.zeros((size, size), np.float32)
    top, left = (size - height) // 2, (size - width) // 2
    out[top : top + height, left : left + width] = letter
    return np.clip(out, 0, 1) * 2 - 1
