"""Picture files as arrays."""

import errno
import functools
import os
import stat
import warnings
from collections.abc import Callable
from typing import IO

import numpy as np
from jaxtyping import Float, UInt8

from .._validation import check_int

try:
    from PIL import Image, ImageOps, UnidentifiedImageError
except ImportError as error:
    raise ImportError("cnn_jax.data.image_io needs Pillow: pip install 'cnn_jax[experiments]'") from error


MAX_PIXELS = 50_000_000
MAX_SIZE = 4096  # rows and columns of a square
# Kinds of files that Pillow reads by itself; for others it runs programs.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA", "JPEG2000", "AVIF")
# Red, green and blue from -1 to 1, opacity from 0 to 1.
COLOUR_ZERO = np.array([127.5, 127.5, 127.5, 0], np.float32)
COLOUR_UNIT = np.array([127.5, 127.5, 127.5, 255], np.float32)


def read_image(path: str | os.PathLike[str] | IO[bytes]) -> Float[np.ndarray, "H W"]:
    """Reads a picture file (PNG, JPEG, GIF, BMP, TIFF, WebP and some more), as grey levels in [-1, 1], white = 1.

    Turns it as its EXIF data says. What is transparent becomes the opposite of what is drawn: white behind dark
    strokes, black behind light ones. Only the first picture of an animation is read.

    Raises:
      ValueError: the file is no picture, is damaged, or has more than 50 megapixels; the message names the file.
      OSError: the file cannot be opened, or is a folder, a pipe or a device.
      TypeError: neither a path nor a file.
    """
    return _read(path, _grey)


def read_color(path: str | os.PathLike[str] | IO[bytes]) -> Float[np.ndarray, "H W 4"]:
    """Reads a picture file as red, green and blue in [-1, 1], and opacity in [0, 1].

    What is wholly transparent keeps the colours that the file has there. Errors and the rest are those of `read_image`.
    """
    return _read(path, _colours)


def read_square(path: str | os.PathLike[str] | IO[bytes], *, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Reads a picture file as a small square in colour: the shorter side is scaled to `size` and the middle cut out.

    What is transparent becomes white. Sizes are up to 4096. Errors and the rest are those of `read_image`.
    """
    return _read(path, functools.partial(_square, size=check_size(size)))


def check_size(size: int) -> int:
    """The rows and columns of a square: an int from 1 to 4096, or an error that says so."""
    size = check_int("size", size)
    if size > MAX_SIZE:
        raise ValueError(f"size: expected at most {MAX_SIZE}, got {size}")
    return size


def _read(path: str | os.PathLike[str] | IO[bytes], convert: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    is_path = isinstance(path, str | os.PathLike)
    if not is_path and not hasattr(path, "read"):
        raise TypeError(f"path: expected a path or a file, got {type(path).__name__}")
    try:
        if is_path and not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for someone to write to it
            raise OSError(errno.EINVAL, "expected a file, not a folder, a pipe or a device", os.fspath(path))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is lower
            with Image.open(path, formats=FORMATS) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    size = f"{picture.width} x {picture.height} pixels"
                    raise ValueError(f"{size} are more than the {MAX_PIXELS // 10**6} million accepted")
                picture.load()
                if picture.format == "PPM" and picture.mode == "I":
                    return convert(picture.convert("I;16"))  # it has the range of 16 bits, as a PNG of that mode
                return convert(ImageOps.exif_transpose(picture))
    except Exception as error:  # Pillow's readers each have their own for a damaged file
        if isinstance(error, OSError) and error.errno is not None:
            raise
        name = path if is_path else getattr(path, "name", "picture")
        why = "" if isinstance(error, UnidentifiedImageError) else f" ({error})"
        raise ValueError(f"{name}: not a picture that can be read{why}") from error


def _colours(picture: Image.Image) -> Float[np.ndarray, "H W 4"]:
    if picture.mode.startswith(("I", "F")):
        grey = _deep(picture)
        return np.stack([grey, grey, grey, np.ones_like(grey)], -1)
    levels = np.asarray(picture.convert("RGBA"), np.float32)
    return (levels - COLOUR_ZERO) / COLOUR_UNIT


def _square(picture: Image.Image, size: int) -> UInt8[np.ndarray, "size size 3"]:
    if picture.mode.startswith(("I", "F")):
        picture = Image.fromarray(np.round((_deep(picture) + 1) * 127.5).astype(np.uint8))
    small = ImageOps.fit(picture.convert("RGBA"), (size, size), Image.Resampling.LANCZOS)
    return np.asarray(Image.alpha_composite(Image.new("RGBA", small.size, "white"), small).convert("RGB"))


def _deep(picture: Image.Image) -> Float[np.ndarray, "H W"]:
    """Grey levels of more than 8 bits: the whole range of 16 bits, or from the smallest to the largest value."""
    deep = np.nan_to_num(np.asarray(picture, np.float64), posinf=0, neginf=0)
    low, high = (0.0, 65535.0) if picture.mode.startswith("I;16") else (deep.min(), deep.max())
    return (np.clip((deep - low) / max(high - low, 1e-30), 0, 1) * 2 - 1).astype(np.float32)


def _grey(picture: Image.Image) -> Float[np.ndarray, "H W"]:
    if picture.mode.startswith(("I", "F")):
        return _deep(picture)
    if not picture.has_transparency_data:
        grey = np.asarray(picture.convert("L"), np.float32) / 127.5 - 1
        channels = np.asarray(picture.convert("RGB"), np.float32) / 127.5 - 1
        spread = channels.std(axis=(0, 1))
        # Colours of about one brightness differ in a channel.
        return channels[..., spread.argmax()] if grey.std() < spread.max() / 4 else grey
    light, alpha = np.moveaxis(np.asarray(picture.convert("LA"), np.float32) / 255, -1, 0)
    drawn = np.sum(light * alpha) / max(np.sum(alpha), 1e-6)
    ground = 1.0 if drawn < 0.5 else 0.0
    return (ground + (light - ground) * alpha) * 2 - 1
