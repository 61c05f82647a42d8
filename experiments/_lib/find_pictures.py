"""Reading for `experiments.find`: templates with their masks, picture files, and batches of pictures of one size."""

import collections
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from cnn_jax.data import image_io

from . import cli

MAX_BATCH = 8  # pictures per device searched at a time
MAX_BATCH_NUMBERS = 4_000_000  # elements of these pictures' arrays
MAX_WAITING_NUMBERS = 50_000_000  # elements of the arrays of pictures that wait for others of their size
MIN_COLOR_RANGE = 0.02  # between the channels of a pixel that counts as colored
MIN_OPACITY = 0.5  # of pixels that count
GRAY_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue in ITU-R BT.601


class Templates(NamedTuple):
    """The templates of a search."""

    names: list[str]
    features: list[np.ndarray]
    """(h, w) without colors, or (h, w, 3)."""
    masks: list[np.ndarray | None]
    """Masks of the features' shapes, True where a pixel counts; None if all do."""

    @property
    def in_color(self) -> bool:
        """Whether pictures are compared in color."""
        return self.features[0].ndim == 3


class Unread(NamedTuple):
    """A file that is not a readable picture."""

    path: Path
    reason: str


def read_templates(paths: Sequence[Path], masks: Sequence[Path], score: str) -> Templates:
    """Reads template files and mask files, in gray if no template has colors.

    Args:
      paths: the template files.
      masks: no files, or one for each template, black where a pixel does not count. Transparent pixels of templates do
        not count either.
      score: the score's name; "zncc" is undefined for constant templates.

    Raises:
      ValueError: a mask is missing or has another size, or a template has nothing to compare.
    """
    if masks and len(masks) != len(paths):
        raise ValueError(f"--mask: expected one per template ({len(paths)}), got {len(masks)}")
    pictures = [image_io.read_color(path) for path in paths]
    in_color = any(np.ptp(picture[..., :3], axis=-1).max() > MIN_COLOR_RANGE for picture in pictures)
    features = [picture[..., :3] if in_color else to_gray(picture) for picture in pictures]
    counts = [picture[..., 3] >= MIN_OPACITY for picture in pictures]
    for i, path in enumerate(masks):
        counts[i] &= read_mask(path, paths[i], counts[i].shape)
    for path, feature, count in zip(paths, features, counts, strict=True):
        check_template(path, feature, count, score)
    return Templates(
        template_names(paths),
        features,
        [feature_mask(count, feature) for count, feature in zip(counts, features, strict=True)],
    )


def template_names(paths: Sequence[Path]) -> list[str]:
    """The files' names, or their paths if two have the same name."""
    names = [path.name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def read_mask(path: Path, template: Path, shape: tuple[int, ...]) -> np.ndarray:
    """A mask file as booleans (h, w), True where it is not black."""
    mask = to_gray(image_io.read_color(path)) > 0
    if mask.shape != shape:
        raise ValueError(f"{path}: expected the size of {template} {shape}, got {mask.shape}")
    return mask


def check_template(path: Path, feature: np.ndarray, count: np.ndarray, score: str) -> None:
    """Raises ValueError if a template has nothing to compare."""
    if not count.any():
        raise ValueError(f"{path}: the mask excludes every pixel")
    if score == "zncc" and np.ptp(feature[count], axis=0).max() == 0:  # of one color
        raise ValueError(f"{path}: the template is constant, for which zncc is undefined; use --score match or cosine")


def feature_mask(count: np.ndarray, feature: np.ndarray) -> np.ndarray | None:
    """A mask (h, w) in the feature's shape; None if all pixels count."""
    if count.all():
        return None
    return np.broadcast_to(count[..., None], feature.shape) if feature.ndim == 3 else count


def on_white(picture: np.ndarray) -> np.ndarray:
    """The colors (H, W, 3) of a picture (H, W, 4) on white paper."""
    return 1 + (picture[..., :3] - 1) * picture[..., 3:]


def to_gray(picture: np.ndarray) -> np.ndarray:
    """The brightness (H, W) of a picture's colors."""
    return picture[..., :3] @ GRAY_WEIGHTS


def list_pictures(paths: Sequence[Path]) -> Iterator[Path]:
    """The files given, and the picture files in the folders given and in their subfolders."""
    suffixes = Image.registered_extensions()
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.suffix.lower() in suffixes and file.is_file())
        else:
            yield path


def read_picture(path: Path, in_color: bool) -> np.ndarray | Unread:
    """A picture on white, (H, W, 3) in color or (H, W) in gray."""
    try:
        picture = on_white(image_io.read_color(path))
    except (ValueError, OSError) as error:
        return Unread(path, cli.one_line_error(error))
    return picture if in_color else to_gray(picture)


def batch_by_size(files: Iterable[Path], in_color: bool, devices: int) -> Iterator[dict[Path, np.ndarray] | Unread]:
    """Reads files and yields batches of pictures of one size, and the files that cannot be read.

    Pictures of each size come in full batches or one by one, so at most two programs are compiled per size. They come
    one by one at the end, or when too many pictures of other sizes are waiting.
    """
    waiting: dict[tuple[int, ...], dict[Path, np.ndarray]] = collections.defaultdict(dict)
    for path in files:
        picture = read_picture(path, in_color)
        if isinstance(picture, Unread):
            yield picture
            continue
        waiting[picture.shape][path] = picture
        if len(waiting[picture.shape]) >= devices * min(MAX_BATCH, max(1, MAX_BATCH_NUMBERS // picture.size)):
            yield waiting.pop(picture.shape)
        while sum(math.prod(shape) * len(group) for shape, group in waiting.items()) > MAX_WAITING_NUMBERS:
            oldest_size = next(iter(waiting))
            yield from singly(waiting.pop(oldest_size))
    for group in waiting.values():
        yield from singly(group)


def singly(pictures: dict[Path, np.ndarray]) -> Iterator[dict[Path, np.ndarray]]:
    """Batches of one picture each."""
    for path, picture in pictures.items():
        yield {path: picture}
