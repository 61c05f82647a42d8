"""Search of large pictures in overlapping tiles, with the matches that a search of the whole picture has."""

import functools
import itertools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import cnn_jax
from cnn_jax._non_max_suppression import non_max_suppression
from cnn_jax._rectangles import make_rectangles

from .find_results import Outlined, outline

DEFAULT_SIDE = 2560  # pixels of a tile
# Around the largest box: the pixels that local maxima and subpixel positions depend on, and rounding.
MARGIN = 8
MATCHES_PER_TILE = 1000
TOLERANCE = 0.6  # pixels outside its part of the picture that a tile's matches may be; subpixel positions move by 0.5
MAX_OVERLAP = 0.99  # of two matches; those that overlap more are one match that two tiles have found

Rectangle = tuple[int, int, int, int]
"""Top, left, height and width in pixels."""


class Span(NamedTuple):
    """Rows or columns of a tile."""

    start: int
    stop: int
    core_start: float
    """Matches with centers from here to `core_stop` are this tile's; others are those of neighboring tiles."""
    core_stop: float


def tile_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `cnn_jax.find` for a tile that differ from those for the whole picture.

    Lists of poses: all local maxima are kept, since the best of several that overlap may be in the next tile. Ranges: a
    search refines a number of candidates that grows with `top_k`, so only the matches of neighboring tiles are added.
    """
    top_k = arguments["top_k"]
    if arguments["scale_range"] or arguments["angle_range"]:
        return {"top_k": 2 * top_k}
    return {"top_k": max(MATCHES_PER_TILE, top_k), "max_overlap": 1.0}


def clip_region(region: Rectangle | None, size: Sequence[int]) -> Rectangle:
    """The part of a region that lies in a picture of this size; without a region, the picture.

    Raises:
      ValueError: the region lies outside.
    """
    if region is None:
        return 0, 0, size[0], size[1]
    top, left, height, width = region
    bottom = min(top + height, size[0])
    right = min(left + width, size[1])
    clipped = max(0, top), max(0, left), bottom - max(0, top), right - max(0, left)
    if min(clipped[2:]) <= 0:
        raise ValueError(f"region: expected a rectangle inside the picture {tuple(size)}, got {region}")
    return clipped


def largest_box(
    sizes: Sequence[Sequence[int]], arguments: Mapping[str, Any], picture_size: Sequence[int]
) -> tuple[int, int]:
    """Height and width that each template (h, w) has at most, in every pose that fits into the picture.

    Args:
      sizes: the templates' rows and columns.
      arguments: those of `cnn_jax.find`.
      picture_size: rows and columns.
    """
    fitting = []
    for h, w in sizes:
        largest_scale = max(picture_size) / min(h, w)
        scales = [scale for scale in arguments["scales"] if scale <= largest_scale]
        if arguments["scale_range"]:
            scales = [min(arguments["scale_range"][1], largest_scale)]
        fitting += [(h * scale, w * scale) for scale in scales]
    if arguments["angle_range"]:
        boxes = [(math.hypot(*size), math.hypot(*size)) for size in fitting]
    else:
        boxes = [turned_box(size, angle) for size in fitting for angle in arguments["angles"]]
    height = max((box[0] for box in boxes), default=0)
    width = max((box[1] for box in boxes), default=0)
    return math.ceil(min(height, picture_size[0])), math.ceil(min(width, picture_size[1]))


def turned_box(size: Sequence[float], angle: float) -> tuple[float, float]:
    """Height and width of the upright box around a turned rectangle (h, w)."""
    cos = abs(math.cos(angle))
    sin = abs(math.sin(angle))
    return size[0] * cos + size[1] * sin, size[0] * sin + size[1] * cos


def layout_spans(length: int, start: int, stop: int, side: int, overlap: int) -> list[Span]:
    """Spans of one length along an axis, overlapping, that hold the pixels from start to stop and half an overlap more.

    Args:
      length: pixels of the picture along the axis.
      start, stop: where centers of matches lie.
      side: the longest span, if it is twice the overlap or more.
      overlap: pixels that neighboring spans share, at least.
    """
    first = max(0, start - math.ceil(overlap / 2))
    last = min(length, stop + math.ceil(overlap / 2))
    side = max(side, 2 * overlap)
    count = max(1, math.ceil((last - first - overlap) / (side - overlap)))
    size = math.ceil((last - first - overlap) / count) + overlap if count > 1 else last - first
    starts = [min(first + i * (size - overlap), last - size) for i in range(count)]
    inner = [(left + size + right) / 2 - 0.5 for left, right in itertools.pairwise(starts)]
    cores = [-math.inf if start == 0 else start - 0.5, *inner, math.inf if stop == length else stop - 0.5]
    return [Span(begin, begin + size, *core) for begin, core in zip(starts, itertools.pairwise(cores), strict=True)]


def search_tiles(
    picture: np.ndarray,
    search: Callable[[np.ndarray], list[Outlined]],
    side: int,
    box: tuple[int, int],
    region: Rectangle,
    arguments: Mapping[str, Any],
) -> Outlined:
    """The matches in a picture, from those in its tiles.

    Args:
      picture: (H, W, ...).
      search: searches a stack of tiles of one size with `tile_arguments`.
      side: pixels of a tile.
      box: height and width of the largest template in any pose.
      region: where the centers of matches lie.
      arguments: those of `cnn_jax.find` for the whole picture.
    """
    top, left, height, width = region
    rows = layout_spans(picture.shape[0], top, top + height, side, box[0] + 2 * MARGIN)
    columns = layout_spans(picture.shape[1], left, left + width, side, box[1] + 2 * MARGIN)
    tiles = np.array(list(itertools.product(rows, columns)))
    in_tiles = []
    for row, column in tiles[..., :2].astype(int):
        (outlined,) = search(picture[None, slice(*row), slice(*column)])
        in_tiles.append(outlined.matches)
    matches = jax.tree.map(lambda *fields: np.stack(fields), *in_tiles)
    limits = {name: arguments[name] for name in ("max_overlap", "top_k", "per_feature")}
    return jax.device_get(merge(matches, tiles, quality=quality(arguments), **limits))


def quality(arguments: Mapping[str, Any]) -> Callable[[Any], Any]:
    """A function of a score that is largest for the best match."""
    if "max_score" in arguments:
        return operator.neg
    return abs if arguments["polarity"] == "either" else operator.pos


@functools.partial(jax.jit, static_argnames=("quality", "max_overlap", "top_k", "per_feature"))
def merge(
    matches: cnn_jax.Matches,
    tiles: jax.Array,
    *,
    quality: Callable[[Any], Any],
    max_overlap: float,
    top_k: int,
    per_feature: bool,
) -> Outlined:
    """The best matches of all tiles after non-maximum suppression, in the picture's coordinates.

    Args:
      matches: (T, k), those in each tile.
      tiles: (T, 2, 4), each tile's rows and columns, which are `Span`s.
      quality: a function of a score that is largest for the best match.
      max_overlap, top_k, per_feature: arguments of `cnn_jax.find` for the whole picture.
    """
    start, _, core_start, core_stop = jnp.moveaxis(tiles[:, None].astype(matches.y.dtype), -1, 0)
    moved = matches._replace(y=matches.y + start[..., 0], x=matches.x + start[..., 1])
    is_in_core = (moved.center >= core_start - TOLERANCE) & (moved.center < core_stop + TOLERANCE)
    moved = moved._replace(valid=matches.valid & is_in_core.all(axis=-1), found=jnp.zeros_like(matches.feature))
    candidates = jax.tree.map(jnp.ravel, moved)
    y, x = candidates.center.T
    kept = non_max_suppression(
        make_rectangles(y, x, candidates.template_height, candidates.template_width, candidates.angle),
        jnp.where(candidates.valid, quality(candidates.score), -jnp.inf),
        max_overlap=min(max_overlap, MAX_OVERLAP),
        top_k=top_k,
        classes=candidates.feature if per_feature else None,
    )
    best = jax.tree.map(lambda field: field[kept.indices], candidates)
    return outline(best._replace(valid=kept.indices >= 0, found=kept.found))
