"""Image files as arrays: gray levels, color with opacity, small squares, or all frames of a file."""

import contextlib
import errno
import functools
import io
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Float32, UInt8

from .._optional import optional_import
from .._validation import check_int
from ..files import local_path
from . import pixels

with optional_import(needed_by="cnn_jax.data.image_io", extra="data"):
    from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

__all__ = [
    "FORMATS",
    "Frame",
    "ImageFile",
    "SUFFIXES",
    "count_frames",
    "read_color",
    "read_frames",
    "read_image",
    "read_square",
]

# Type checkers take every binary file for an IO; at run time, files are instances of other classes.
ImageFile = str | os.PathLike[str] | IO[bytes] | io.BytesIO | io.BufferedReader
# One frame of a file: bytes without or with colors, or gray levels in [-1, 1] of files with more than 8 bits per pixel.
Frame = UInt8[np.ndarray, "H W"] | UInt8[np.ndarray, "H W 3"] | Float32[np.ndarray, "H W"]

MAX_PIXELS = 50_000_000
MAX_SIZE = 4096  # rows and columns of a square
# Formats that Pillow decodes without starting an external program.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA", "JPEG2000", "AVIF")
# File name suffixes of these formats, lower case, with the dot.
SUFFIXES = frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS)


def read_image(path: ImageFile) -> Float32[np.ndarray, "H W"]:
    """Reads an image file as gray levels in [-1, 1], white = 1.

    The format is one of `FORMATS`, whatever the file's name. The EXIF orientation is applied. Of an animation, the
    first frame is read. 16-bit images keep their whole range; 32-bit images are scaled to theirs.

    Transparent pixels become white behind dark strokes, and black behind light strokes. If the colors have nearly the
    same brightness, the channel with the highest contrast is returned.

    Args:
      path: a path, or a binary file open for reading.

    Raises:
      ValueError: the file is not an image, is damaged, or has more than 50 megapixels; the message names the file.
      OSError: the file cannot be opened, or is a folder, a pipe or a device.
      TypeError: `path` is neither a path nor a file.

    >>> file = io.BytesIO()
    >>> Image.fromarray(np.array([[0, 51, 255]], np.uint8)).save(file, "PNG")
    >>> read_image(file)
    array([[-1. , -0.6,  1. ]], dtype=float32)
    """
    return _decode(path, _to_gray)


def read_color(path: ImageFile) -> Float32[np.ndarray, "H W 4"]:
    """Reads an image file as red, green and blue in [-1, 1], and opacity in [0, 1].

    Fully transparent pixels keep the color that the file stores for them. Formats, orientation and errors are those of
    `read_image`.

    Args:
      path: a path, or a binary file open for reading.

    >>> file = io.BytesIO()
    >>> Image.new("RGBA", (1, 1), (255, 0, 51, 102)).save(file, "PNG")
    >>> read_color(file)
    array([[[ 1. , -1. , -0.6,  0.4]]], dtype=float32)
    """
    return _decode(path, _to_color)


def read_square(path: ImageFile, *, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Reads an image file as a square of red, green and blue bytes.

    The shorter side is scaled to `size` and the longer side is cropped around its center. Transparent pixels become
    white. Formats, orientation and errors are those of `read_image`.

    Args:
      path: a path, or a binary file open for reading.
      size: rows and columns of the square, 1 to 4096.

    >>> file = io.BytesIO()
    >>> Image.new("RGB", (30, 20), (255, 0, 0)).save(file, "PNG")
    >>> read_square(file, size=1)
    array([[[255,   0,   0]]], dtype=uint8)
    """
    return _decode(path, functools.partial(_to_square, size=check_size(size)))


def count_frames(path: ImageFile) -> int:
    """The number of frames of an image file: pages of a TIFF file, images of an animation, otherwise 1.

    Args:
      path: a path, or a binary file open for reading.

    Raises:
      ValueError, OSError, TypeError: as `read_image`.

    >>> pages = [Image.new("L", (3, 2), level) for level in (0, 255)]
    >>> file = io.BytesIO()
    >>> pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    >>> count_frames(file)
    2
    """
    with _open(path) as image:
        return getattr(image, "n_frames", 1)


def read_frames(path: ImageFile, *, max_pixels: int = MAX_PIXELS) -> Iterator[Frame | ValueError]:
    """Reads all frames of an image file, one at a time: pages of a TIFF file, or images of an animation.

    A frame is yielded as bytes: (H, W, 3) if it has colors, (H, W) if it is gray. A gray frame with more than 8 bits
    per pixel is yielded as `read_image` returns it. Transparent pixels are white. A frame that cannot be read is
    yielded as the ValueError that names it, and the iteration continues.

    Args:
      path: a path, or a binary file open for reading.
      max_pixels: the largest accepted number of pixels of a frame. Pillow's own limit, twice
        `PIL.Image.MAX_IMAGE_PIXELS`, remains: 178 million.

    Raises:
      ValueError, OSError, TypeError: as `read_image`, if the file cannot be opened.

    >>> pages = [Image.new("L", (3, 2), level) for level in (0, 255)]
    >>> file = io.BytesIO()
    >>> pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    >>> [int(frame.mean()) for frame in read_frames(file)]
    [0, 255]
    """
    with _open(path) as image:
        for index in range(getattr(image, "n_frames", 1)):
            yield _read_frame(path, image, index, max_pixels)


def check_size(size: int) -> int:
    """Checks the rows and columns of a square: an int from 1 to 4096.

    >>> check_size(4096)
    4096
    """
    size = check_int("size", size)
    if size > MAX_SIZE:
        raise ValueError(f"size: expected at most {MAX_SIZE}, got {size}")
    return size


def _decode(path: ImageFile, convert: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    with _open(path) as image:
        return convert(_load_upright(image, MAX_PIXELS))


def _read_frame(path: ImageFile, image: Image.Image, index: int, max_pixels: int) -> Frame | ValueError:
    """A frame of an open image, or the error that says why it cannot be read."""
    try:
        image.seek(index)
        return _to_bytes(_load_upright(image, max_pixels))
    except Exception as error:
        return _unreadable(path, error, f", frame {index + 1}" if index else "")


@contextlib.contextmanager
def _open(path: ImageFile) -> Iterator[Image.Image]:
    """Opens an image file. Errors of Pillow within the `with` statement become ValueErrors that name the file."""
    if isinstance(path, str | os.PathLike):
        path = local_path(path)
    elif not hasattr(path, "read"):
        raise TypeError(f"path: expected a path or a file, got {type(path).__name__}")
    try:
        if isinstance(path, Path):
            _check_regular_file(path)
        with _ignored_size_warnings():
            image = Image.open(path, formats=FORMATS)
        with image:
            yield image
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _unreadable(path, error) from error


def _unreadable(path: ImageFile, error: Exception, part: str = "") -> ValueError:
    """The error to raise for Pillow's error. Its decoders have errors of many types for damaged files."""
    name = path if isinstance(path, str | os.PathLike) else getattr(path, "name", "picture")
    reason = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
    return ValueError(f"{name}{part}: not a picture that can be read{reason}")


def _check_regular_file(path: str | os.PathLike[str]) -> None:
    """Raises OSError for a folder, a pipe or a device. Opening a pipe would wait for a writer."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "expected a file, not a folder, a pipe or a device", os.fspath(path))


@contextlib.contextmanager
def _ignored_size_warnings() -> Iterator[None]:
    """Ignores Pillow's warnings of many pixels, since `_load_upright` has its own limit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _load_upright(image: Image.Image, max_pixels: int) -> Image.Image:
    """The current frame of an open image, turned according to its EXIF orientation."""
    if image.width * image.height > max_pixels:
        size = f"{image.width} x {image.height} pixels"
        raise ValueError(f"{size} are more than the {max_pixels / 10**6:g} million accepted")
    with _ignored_size_warnings():
        image.load()
    if image.format == "PPM" and image.mode == "I":
        return image.convert("I;16")  # PPM scales to 16 bits, but declares 32
    if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
        return image  # exif_transpose would copy it
    return ImageOps.exif_transpose(image)


def _to_bytes(image: Image.Image) -> Frame:
    if _is_deep(image):
        return _deep_to_gray(image)
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    on_white = _on_white(image)
    return np.asarray(on_white if on_white.mode == mode else on_white.convert(mode))


def _on_white(image: Image.Image) -> Image.Image:
    """An image with white behind its transparent pixels; the image itself if it has none."""
    if not image.has_transparency_data:
        return image
    with_opacity = image.convert("RGBA")
    if with_opacity.getchannel("A").getextrema() == (255, 255):
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), with_opacity)


def _to_color(image: Image.Image) -> Float32[np.ndarray, "H W 4"]:
    if _is_deep(image):
        gray = _deep_to_gray(image)
        return np.stack([gray, gray, gray, np.ones_like(gray)], -1)
    return pixels.rgba_from_uint8(np.asarray(image.convert("RGBA")))


def _to_square(image: Image.Image, size: int) -> UInt8[np.ndarray, "size size 3"]:
    if _is_deep(image):
        # Not `pixels.to_uint8`, which rounds some ties of 32-bit images to the other side.
        image = Image.fromarray(np.round((_deep_to_gray(image) + 1) * pixels.HALF_RANGE).astype(np.uint8))
    square = ImageOps.fit(image.convert("RGBA"), (size, size), Image.Resampling.LANCZOS)
    return np.asarray(_on_white(square).convert("RGB"))


def _to_gray(image: Image.Image) -> Float32[np.ndarray, "H W"]:
    if _is_deep(image):
        return _deep_to_gray(image)
    if image.has_transparency_data:
        return _transparent_to_gray(image)
    gray = pixels.from_uint8(np.asarray(image.convert("L")))
    channels = pixels.from_uint8(np.asarray(image.convert("RGB")))
    channel_contrasts = channels.std(axis=(0, 1))
    if gray.std() < channel_contrasts.max() / 4:
        return channels[..., channel_contrasts.argmax()]
    return gray


def _is_deep(image: Image.Image) -> bool:
    """Whether the image is gray with more than 8 bits per pixel: Pillow's modes I, I;16 and F."""
    return image.mode.startswith(("I", "F"))


def _deep_to_gray(image: Image.Image) -> Float32[np.ndarray, "H W"]:
    """Gray levels of a 16-bit image over its whole range, of a 32-bit image from its smallest to its largest value."""
    levels = np.nan_to_num(np.asarray(image, np.float64), posinf=0, neginf=0)
    is_16_bit = image.mode.startswith("I;16")
    low = 0.0 if is_16_bit else levels.min()
    high = 65535.0 if is_16_bit else levels.max()
    return (np.clip((levels - low) / max(high - low, 1e-30), 0, 1) * 2 - 1).astype(np.float32)


def _transparent_to_gray(image: Image.Image) -> Float32[np.ndarray, "H W"]:
    """Gray levels over white if the opaque pixels are dark on average, over black if they are light."""
    gray_and_opacity = np.asarray(image.convert("LA"), np.float32) / 255
    gray, opacity = np.moveaxis(gray_and_opacity, -1, 0)
    drawing_level = np.sum(gray * opacity) / max(np.sum(opacity), 1e-6)
    background = 1.0 if drawing_level < 0.5 else 0.0
    return (background + (gray - background) * opacity) * 2 - 1
