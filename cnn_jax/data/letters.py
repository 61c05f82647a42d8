"""Segmentation of a handwritten or printed letter: any size, either polarity, uneven light."""

import numpy as np
from jaxtyping import ArrayLike, Float32, Shaped

from .._optional import optional_import
from .._validation import check_int

with optional_import(needed_by="cnn_jax.data.letters", extra="data"):
    from PIL import Image
    from scipy import ndimage
    from scipy.spatial import ConvexHull

__all__ = ["segment_letter"]

# Images are reduced to this longer side, in pixels: more resolution costs time and finds the same letters.
WORKING_SIZE = 256
# The letter's longer side as a share of the frame, as in MNIST.
LETTER_SHARE = 20 / 28
# Under even light, Otsu's threshold between ink and background explains at least this share of the variance.
EVEN_LIGHT_VARIANCE = 0.85
# Connected components below this share of the largest component's area are specks.
SPECK_SHARE = 0.05


def segment_letter(image: Shaped[ArrayLike, "H W"], *, size: int = 28) -> Float32[np.ndarray, "size size"]:
    """Finds the letter in an image and centers it, white on black, in a small frame.

    The steps are: remove a line drawn around the image; flatten the illumination; separate ink from background by
    Otsu's threshold, where the background is the side that covers most of the border; remove specks; scale the letter
    to 20/28 of the frame. An image without contrast gives a black frame.

    Args:
      image: gray levels on any scale, of either polarity and any size. NaN counts as 0.
      size: rows and columns of the frame.

    Returns:
      The framed letter, float32 in [-1, 1].

    Raises:
      ValueError: the image is empty or not (H, W); the size is below 1.
      TypeError: the size is not an int.

    Source: Otsu, "A threshold selection method from gray-level histograms" (1979),
    https://doi.org/10.1109/TSMC.1979.4310076. The size in the frame is that of MNIST.

    >>> image = np.full((60, 80), 250)
    >>> image[10:30, 20:24] = 40  # a dark L in a corner
    >>> image[26:30, 20:40] = 40
    >>> segment_letter(image, size=7)
    array([[-1., -1., -1., -1., -1., -1., -1.],
           [-1.,  1., -1., -1., -1., -1., -1.],
           [-1.,  1., -1., -1., -1., -1., -1.],
           [-1.,  1., -1., -1., -1., -1., -1.],
           [-1.,  1., -1., -1., -1., -1., -1.],
           [-1.,  1.,  1.,  1.,  1.,  1., -1.],
           [-1., -1., -1., -1., -1., -1., -1.]], dtype=float32)
    """
    size = check_int("size", size)
    image = np.clip(np.nan_to_num(np.asarray(image, np.float64)), -1e30, 1e30)
    if image.ndim != 2 or image.size == 0:
        raise ValueError(f"image: expected a non-empty (H, W), got shape {image.shape}")
    low = image.min()
    high = image.max()
    if high - low <= 1e-5 * max(abs(low), abs(high)):
        return np.full((size, size), -1, np.float32)
    image = _reduce(((image - low) / (high - low)).astype(np.float32))
    image = _flatten_illumination(_remove_frame_line(image))
    ink, mask = _separate_ink(image)
    mask = _largest_components(mask, SPECK_SHARE)
    ink = np.where(ndimage.binary_dilation(mask, iterations=2), ink, 0)
    return _center(_crop_to_mask(ink, mask), size)


def _reduce(image: np.ndarray) -> np.ndarray:
    """The image averaged over squares of pixels, so that its longer side is at most WORKING_SIZE."""
    factor = -(-max(image.shape) // WORKING_SIZE)
    if factor == 1:
        return image
    return np.asarray(Image.fromarray(image).reduce(factor))


def _remove_frame_line(image: np.ndarray) -> np.ndarray:
    """Crops off a line drawn around the image, such as the border of a form's cell or the edge of a scan."""
    threshold, _ = _otsu_threshold(image)
    is_light = image > threshold
    height, width = image.shape
    for margin in range(min(height, width) // 8 + 1):
        inside = is_light[margin : height - margin, margin : width - margin]
        outermost_share = np.mean(_border_pixels(inside) == is_light[0, 0])
        if outermost_share >= 0.98:
            continue
        is_line = margin > 0 and outermost_share < 0.5 and len(np.unique(inside)) == 2
        return image[margin : height - margin, margin : width - margin] if is_line else image
    return image


def _border_pixels(image: np.ndarray) -> np.ndarray:
    """The outermost pixels, clockwise from the top left, each once."""
    return np.concatenate([image[0], image[1:, -1], image[-1, -2::-1], image[-2:0:-1, 0]])


def _otsu_threshold(values: np.ndarray) -> tuple[float, float]:
    """The threshold that maximizes the variance between two classes, and the share of the variance it explains."""
    counts, edges = np.histogram(values, 256)
    centers = (edges[:-1] + edges[1:]) / 2
    total = counts.sum()
    count_below = np.cumsum(counts)
    sum_below = np.cumsum(counts * centers)
    mean = sum_below[-1] / total
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mean * count_below - sum_below) ** 2 / (count_below * (total - count_below))
    between = np.nan_to_num(between, posinf=0)
    maxima = np.flatnonzero(between >= between.max() * (1 - 1e-6))
    threshold = edges[1 + (maxima[0] + maxima[-1]) // 2]  # the middle of a plateau
    variance = np.sum(counts * (centers - mean) ** 2) / total
    return float(threshold), float(between.max() / max(variance, 1e-30))


def _flatten_illumination(image: np.ndarray) -> np.ndarray:
    """The image minus its illumination, unless the light is even already.

    The illumination at a pixel is a wide Gaussian mean over the background around it. The background is first all
    pixels, then those within Otsu's threshold of the last estimate.
    """
    _, explained_variance = _otsu_threshold(image)
    if explained_variance > EVEN_LIGHT_VARIANCE:
        return image
    image = ndimage.gaussian_filter(image, max(image.shape) / 150)
    sigma = max(image.shape) / 8
    background = np.ones_like(image)
    difference = image
    for _ in range(4):
        weight = ndimage.gaussian_filter(background, sigma) + 1e-3
        difference = image - ndimage.gaussian_filter(image * background, sigma) / weight
        threshold, _ = _otsu_threshold(np.abs(difference))
        background = (np.abs(difference) < threshold).astype(np.float32)
    return difference


def _separate_ink(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The amount of ink, 0 to 1, and the mask of ink: the side of Otsu's threshold that covers less of the border."""
    threshold, _ = _otsu_threshold(image)
    is_light = image > threshold
    light_is_background = _border_pixels(is_light).mean() + 0.2 * (is_light.mean() - 0.5) > 0.5
    mask = ~is_light if light_is_background else is_light
    if _is_solid(_largest_components(mask, 1.0)) and not _is_solid(_largest_components(~mask, 1.0)):
        mask = ~mask  # no letter is solid: this is the inside of a ring that reaches the border
    background_level = np.median(image[~mask])
    ink_level = np.median(image[mask])
    return np.clip((image - background_level) / (ink_level - background_level), 0, 1), mask


def _is_solid(mask: np.ndarray) -> bool:
    """Whether the mask has no hole and nearly fills its convex hull."""
    if np.sum(np.asarray(ndimage.binary_fill_holes(mask))) != mask.sum():
        return False
    outline = np.argwhere(mask & np.logical_not(ndimage.binary_erosion(mask)))
    corners = np.concatenate([outline + corner for corner in ((0, 0), (0, 1), (1, 0), (1, 1))])
    return bool(mask.sum() > 0.9 * ConvexHull(corners).volume)


def _largest_components(mask: np.ndarray, min_share: float) -> np.ndarray:
    """The 8-connected components whose area is at least `min_share` of the largest component's."""
    labels = np.empty(mask.shape, np.int32)
    ndimage.label(mask, np.ones((3, 3)), output=labels)
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    return (areas >= min_share * areas.max())[labels] & mask


def _crop_to_mask(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    return image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def _center(ink: np.ndarray, size: int) -> np.ndarray:
    """The ink scaled to LETTER_SHARE of a frame of `size` and centered in it, in [-1, 1]."""
    scale = LETTER_SHARE * size / max(ink.shape)
    height, width = (max(round(side * scale), 1) for side in ink.shape)
    resampling = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    letter = np.asarray(Image.fromarray(ink).resize((width, height), resampling))
    letter = letter / max(np.quantile(letter, 0.98), 1e-6)
    frame = np.zeros((size, size), np.float32)
    top = (size - height) // 2
    left = (size - width) // 2
    frame[top : top + height, left : left + width] = letter
    return np.clip(frame, 0, 1) * 2 - 1
