"""Reading for `experiments.find`: templates with their masks, pages of picture files, and batches of one size."""

import collections
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax
import numpy as np

from cnn_jax.data import image_io

from . import cli

MAX_BATCH = 8  # pictures per device searched at a time
MAX_BATCH_PIXELS = 2_000_000  # of these pictures together
MAX_WAITING_BYTES = 200_000_000  # of pictures that wait for others of their size
MAX_PIXELS = 200_000_000  # of a picture
MIN_COLOR_RANGE = 0.02  # between the channels of a pixel that counts as colored
MIN_OPACITY = 0.5  # of pixels that count
GRAY_WEIGHTS = (0.299, 0.587, 0.114)  # of red, green and blue in ITU-R BT.601

Colors = TypeVar("Colors", np.ndarray, jax.Array)


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


class Page(NamedTuple):
    """A page of a TIFF file, an image of an animation, or the only picture in a file."""

    path: Path
    number: int
    """From 1."""
    total: int
    """Pages of the file."""

    @property
    def label(self) -> str:
        """The path, and the number if the file has several pages."""
        return str(self.path) if self.total == 1 else f"{self.path}, page {self.number}"


class Unread(NamedTuple):
    """A page that cannot be read."""

    page: Page
    reason: str


Pages = dict[Page, np.ndarray]
"""Pages of one size: bytes (H, W) or (H, W, 3), or floats (H, W) in [-1, 1]."""


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
    pictures = [read_template(path) for path in paths]
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


def read_template(path: Path) -> np.ndarray:
    """A template (h, w, 4) with opacity; of a file with several pages, the first one."""
    count = image_io.count_frames(path)
    if count > 1:
        print(f"{path}: the template is the first of {count} pages", file=sys.stderr)
    return image_io.read_color(path)


def size_text(shape: Sequence[int]) -> str:
    """An array's rows and columns as the width and height that picture viewers show."""
    return f"({shape[1]} x {shape[0]} pixels)"


def template_names(paths: Sequence[Path]) -> list[str]:
    """The files' names, or their paths if two have the same name."""
    names = [path.name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def read_mask(path: Path, template: Path, shape: tuple[int, ...]) -> np.ndarray:
    """A mask file as booleans (h, w), True where it is not black."""
    mask = to_gray(image_io.read_color(path)) > 0
    if mask.shape != shape:
        raise ValueError(f"{path}: expected the size of {template} {size_text(shape)}, got {size_text(mask.shape)}")
    return mask


def check_template(path: Path, feature: np.ndarray, count: np.ndarray, score: str) -> None:
    """Raises ValueError if a template has nothing to compare."""
    if not count.any():
        raise ValueError(f"{path}: the mask excludes every pixel")
    if score == "zncc" and np.ptp(feature[count], axis=0).max() == 0:  # of one color
        raise ValueError(
            f"{path}: the template is constant, for which zncc is undefined; use --score squared_difference"
        )


def feature_mask(count: np.ndarray, feature: np.ndarray) -> np.ndarray | None:
    """A mask (h, w) in the feature's shape; None if all pixels count."""
    if count.all():
        return None
    return np.broadcast_to(count[..., None], feature.shape) if feature.ndim == 3 else count


def to_gray(colors: Colors) -> Colors:
    """The brightness (H, W) of an array (H, W, 3 or more), whose first three channels are colors."""
    red, green, blue = (colors[..., channel] * weight for channel, weight in enumerate(GRAY_WEIGHTS))
    return red + green + blue


def list_pictures(paths: Sequence[Path]) -> Iterator[Path]:
    """The files given, and the picture files in the folders given and in their subfolders."""
    for path in paths:
        if path.is_dir():
            files = (file for file in path.rglob("*") if file.suffix.lower() in image_io.SUFFIXES)
            yield from sorted(file for file in files if file.is_file())
        else:
            yield path


def read_pages(path: Path) -> Iterator[Pages | Unread]:
    """Every page of a file, and the pages that cannot be read."""
    try:
        count = image_io.count_frames(path)
        frames = image_io.read_frames(path, max_pixels=MAX_PIXELS)
        for number, frame in enumerate(frames, start=1):
            page = Page(path, number, count)
            yield Unread(page, cli.one_line_error(frame)) if isinstance(frame, ValueError) else {page: frame}
    except (ValueError, OSError) as error:
        yield Unread(Page(path, number=1, total=1), cli.one_line_error(error))


def batch_by_size(files: Iterable[Path], devices: int) -> Iterator[Pages | Unread]:
    """Reads files and yields batches of pages of one size, and the pages that cannot be read.

    Pages of each size come in full batches or one by one, so at most two programs are compiled per size. They come one
    by one at the end, or when too many pages of other sizes are waiting.
    """
    waiting: dict[tuple[tuple[int, ...], np.dtype], Pages] = collections.defaultdict(dict)
    for pages in itertools.chain.from_iterable(map(read_pages, files)):
        if isinstance(pages, Unread):
            yield pages
            continue
        ((page, picture),) = pages.items()
        size = picture.shape, picture.dtype
        waiting[size][page] = picture
        height, width = picture.shape[:2]
        if len(waiting[size]) >= devices * min(MAX_BATCH, max(1, MAX_BATCH_PIXELS // (height * width))):
            yield waiting.pop(size)
        while sum(waited.nbytes for group in waiting.values() for waited in group.values()) > MAX_WAITING_BYTES:
            oldest_size = next(iter(waiting))
            yield from singly(waiting.pop(oldest_size))
    for group in waiting.values():
        yield from singly(group)


def singly(pages: Pages) -> Iterator[Pages]:
    """Batches of one page each."""
    for page, picture in pages.items():
        yield {page: picture}
