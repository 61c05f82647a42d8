"""Where the best matches are: peaks of a score map, and features looked for at many scales and angles.

    matches = find(image, template, angles=jnp.linspace(0, 6, 24).tolist(), min_score=0.7)
    matches.y[matches.valid], matches.x[matches.valid]

Results have a fixed length, so that everything here runs under `jax.jit` and `jax.vmap`.
"""

import collections
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num

from ._dtypes import accumulation_dtype
from ._padding import NO_PADDING
from ._poses import Pose, pose, turned
from ._reduce_windows import reduce_windows
from ._typing import Pair
from ._validation import as_floats, as_pair, broadcast_mask, check_int, check_shape
from .matching import normalized_squared_difference, squared_difference, zncc

# So many peaks of each feature, for each place in the result and at least, compete: overlapping ones are removed among
# these.
CANDIDATES, LEAST = 32, 4096


class Peaks(NamedTuple):
    """Peaks of a map, the highest first: row, column and height, and which of them are peaks at all."""

    y: Float[Array, " k"]
    x: Float[Array, " k"]
    score: Float[Array, " k"]
    valid: Bool[Array, " k"]


class Matches(NamedTuple):
    """Features found in an image, the best first.

    `y`, `x` are the row and the column of the top left pixel of the upright box of `height` by `width` pixels that
    holds the feature, scaled and turned; its centre is at (y + (height - 1) / 2, x + (width - 1) / 2). `feature` is
    the feature's number in the bank. Where `valid` is false there was no more to find: `feature` is -1, the rest 0.
    """

    y: Float[Array, " k"]
    x: Float[Array, " k"]
    score: Float[Array, " k"]
    feature: Int[Array, " k"]
    scale: Float[Array, " k"]
    angle: Float[Array, " k"]
    height: Float[Array, " k"]
    width: Float[Array, " k"]
    valid: Bool[Array, " k"]


def peaks(
    scores: Num[Array, "H W"],
    *,
    top_k: int = 10,
    min_score: float | Float[Array, ""] = -math.inf,
    min_distance: int | Sequence[int] = 1,
    subpixel: bool = True,
) -> Peaks:
    """The highest local maxima of a map, the highest first.

    A peak is the largest of all pixels at most `min_distance` rows and columns away, and larger than at least one of
    them; of equal ones the first in reading order counts. Pixels at the border can be peaks. NaN and -inf never are.

    Args:
      scores: the map, (H, W).
      top_k: how many peaks to return; where there are fewer, the rest is not `valid`, and 0.
      min_score: what a peak must reach.
      min_distance: in pixels, an int or (rows, columns).
      subpixel: whether to move each peak, by at most half a pixel along each axis, to the top of the paraboloid through
        it and its eight neighbours. The score stays the pixel's own.

    Returns:
      `Peaks`, arrays of length `top_k`.

    Raises:
      ValueError: a map that is not (H, W) or is empty, `top_k` or `min_distance` below 1.
      TypeError: a map that is not real numbers, options that are not ints.

    >>> found = peaks(jnp.array([[0.0, 3.0, 2.0, 0.0, 1.0]]), top_k=3)
    >>> found.x.round(2), found.valid
    (Array([1.25, 4.  , 0.  ], dtype=float32), Array([ True,  True, False], dtype=bool))
    """
    (scores,), least = as_floats(scores=scores), _least(min_score)
    check_shape("scores", scores, "H W")
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    index, score = _highest(scores, as_pair("min_distance", min_distance), check_int("top_k", top_k))
    valid = (score >= least.astype(score.dtype)) & (score > -jnp.inf)
    y, x = (place.astype(score.dtype) for place in jnp.divmod(index, scores.shape[1]))
    if subpixel:
        down, right = _to_the_top(scores)
        y, x = y + down.ravel()[index], x + right.ravel()[index]
    y, x, score = (jnp.where(valid, field, 0) for field in (y, x, score))
    return Peaks(y, x, score, valid)


def find(
    image: Num[Array, "H W *C"],
    features: Num[Array, "..."] | Sequence[Any],
    *,
    score: Callable[..., Array] = zncc,
    mask: Num[Array, "..."] | Sequence[Any] | None = None,
    scales: Sequence[float] = (1.0,),
    angles: Sequence[float] = (0.0,),
    top_k: int = 10,
    min_score: float | Float[Array, ""] = 0.5,
    max_overlap: float = 0.25,
    subpixel: bool = True,
) -> Matches:
    """Finds features in an image, at every scale and angle asked for: the best match first, none twice.

    Each feature is scaled and turned (bilinearly, smoothed before it shrinks) and compared everywhere, under a mask if
    it is turned. At every pixel the best of its scales and angles is kept, so that no map is kept for each of them:
    about four maps of the image's size for each feature, and the turned features themselves. So two poses of one
    feature around the same pixel cannot both be found. Of the peaks of these maps (of each feature's 4096 highest, or
    32 `top_k` if these are more) the best is taken, those whose boxes overlap it are dropped, and so on.

    Args:
      image: (H, W) or (H, W, C).
      features: one feature (h, w) or (h, w, C), a bank of them (K, ...), or a sequence of features of different sizes.
      score: what to compare by: `zncc`, `cosine`, `match`, or any function `score(image, feature, mask=...)` whose
        map grows with the match.
      mask: which pixels of the features count, as in `match`, one for each feature.
      scales, angles: what to try, in all combinations: factors, and radians counterclockwise as in `affine_matrix`.
        Python numbers: they decide shapes. Too large to fit into the image at some of them is no error. Where one angle
        needs a mask (its corners are empty), all angles of its scale are compared under masks.
      top_k: how many matches to return, at most; the result always has that length.
      min_score: what a match must reach.
      max_overlap: how much two matches may overlap: the intersection of their boxes over the union, 0 to 1.
      subpixel: whether to place matches between pixels, by paraboloids as in `peaks`.

    Returns:
      `Matches`, arrays of length `top_k`. A match lies wholly inside the image.

    Raises:
      ValueError: ranks, channels or masks that differ, empty arrays, features that fit nowhere, no scale or angle,
        a scale not above 0, `max_overlap` outside [0, 1], `top_k` below 1, a squared difference for a score, or a
        score that skips positions.
      TypeError: arrays that are not real numbers, scales or angles that are not Python numbers, a score that is no
        function.

    >>> hook = jnp.array([[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    >>> image = jnp.zeros((20, 30)).at[5:8, 10:14].set(hook).at[12:16, 21:24].set(jnp.rot90(hook))
    >>> found = find(image, hook, angles=(0, jnp.pi / 2), top_k=3, min_score=0.9, subpixel=False)
    >>> found.y, found.x
    (Array([ 5., 12.,  0.], dtype=float32), Array([10., 21.,  0.], dtype=float32))
    """
    (image,) = as_floats(image=image)
    check_shape("image", image, "H W", "H W C")
    top_k, least = check_int("top_k", top_k), _least(min_score)
    if not 0 <= max_overlap <= 1:
        raise ValueError(f"max_overlap: expected 0 to 1, got {max_overlap!r}")
    if not callable(score):
        raise TypeError(f"score: expected a function such as zncc, got {score!r}")
    if score in (squared_difference, normalized_squared_difference):
        raise ValueError(f"score: expected one that grows with the match, got {score.__name__}; negate it")
    tried = list(itertools.product(_numbers("scales", scales), _numbers("angles", angles)))
    if min(scale for scale, _ in tried) <= 0:
        raise ValueError(f"scales: expected numbers above 0, got {scales!r}")
    found = []
    for numbers, bank, weights in _banks(features, mask, image.ndim):
        poses = [pose(bank.shape[1:3], *each) for each in tried]
        poses = [each for each in poses if each.box[0] <= image.shape[0] and each.box[1] <= image.shape[1]]
        if poses:
            best = _search(image, bank, weights, poses, score)
            found.append(_candidates(best, numbers, poses, top_k, subpixel))
    if not found:
        raise ValueError(f"features: expected one that fits into the image {image.shape[:2]} at some scale and angle")
    together = Matches(*(jnp.concatenate(fields) for fields in zip(*found, strict=True)))
    return _apart(together, top_k, least, max_overlap)


def _least(min_score: Any) -> Array:
    (least,) = as_floats(min_score=min_score)
    if least.shape:
        raise ValueError(f"min_score: expected one number, got shape {least.shape}")
    return least


def _numbers(name: str, values: Sequence[float]) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except TypeError as error:  # among them JAX's for traced arrays
        raise TypeError(f"{name}: expected a sequence of Python numbers, got {values!r}") from error
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{name}: expected at least one number, all finite, got {values!r}")
    return numbers


def _banks(features: Any, mask: Any, rank: int) -> list[tuple[list[int], Array, Array | None]]:
    """Features of one size together: their numbers, the features (K, h, w, *C), and their masks."""
    if not isinstance(features, list | tuple):
        alone = jnp.ndim(features) == rank
        features, mask = ([features], mask if mask is None else [mask]) if alone else (list(features), mask)
    masks = [None] * len(features) if mask is None else list(mask)
    if len(features) == 0 or len(masks) != len(features):
        raise ValueError(f"features: expected at least one and a mask for each, got {len(features)}, {len(masks)}")
    groups = collections.defaultdict(list)
    for number, (feature, weights) in enumerate(zip(features, masks, strict=True)):
        (feature,) = as_floats(features=feature)
        check_shape("features", feature, "h w C" if rank == 3 else "h w")
        weights = None if weights is None else broadcast_mask(weights, feature.shape)
        kind = None if weights is None else weights.dtype
        groups[feature.shape, feature.dtype, kind].append((number, feature, weights))
    out = []
    for (*_, kind), group in groups.items():
        numbers, bank, weights = zip(*group, strict=True)
        out.append((list(numbers), jnp.stack(bank), None if kind is None else jnp.stack(weights)))
    return out


class _Best(NamedTuple):
    """The best of all poses around every pixel of the image, for each feature, (K, H, W)."""

    score: Array
    pose: Array  # its number
    down: Array  # from the pixel to the peak beside it
    right: Array


def _search(image: Array, bank: Array, weights: Array | None, poses: Sequence[Pose], score: Callable) -> _Best:
    shape = (len(bank), *image.shape[:2])
    dtype = accumulation_dtype(image.dtype)
    nothing = jnp.zeros(shape, dtype)
    best = _Best(jnp.full(shape, -jnp.inf, dtype), jnp.zeros(shape, jnp.int32), nothing, nothing)
    for _, group in itertools.groupby(enumerate(poses), lambda each: each[1].scale):
        numbers, turns = zip(*group, strict=True)
        boxes = np.array([each.box for each in turns])
        canvas = int(boxes[:, 0].max()), int(boxes[:, 1].max())
        around = [((n - 1) // 2, n // 2) for n in canvas] + [(0, 0)] * (image.ndim - 2)
        wide = jnp.pad(image, around, mode="edge")  # so that maps have the image's size, a pixel for each centre
        bank_score = jax.vmap(functools.partial(_masked, score, wide), (0, None if weights is None else 0))
        kernels, masks = turned(bank, weights, turns, canvas)
        steps = kernels, masks, jnp.array(boxes), jnp.array(numbers, jnp.int32)
        best, _ = lax.scan(functools.partial(_better, bank_score), best, steps)
    return best


def _masked(score: Callable[..., Array], image: Array, feature: Array, mask: Array | None) -> Array:
    return score(image, feature, mask=mask)


def _better(
    bank_score: Callable[..., Array], best: _Best, turn: tuple[Array, Array | None, Array, Array]
) -> tuple[_Best, None]:
    """The better, around every pixel, of what there is and of one more pose."""
    kernels, masks, box, number = turn
    maps = bank_score(kernels, masks).astype(best.score.dtype)
    if maps.shape != best.score.shape:
        raise ValueError(f"score: expected maps of all positions {best.score.shape[1:]}, got {maps.shape[1:]}")
    rows, columns = (
        (jnp.arange(n) >= (side - 1) // 2) & (jnp.arange(n) < n - side // 2)
        for n, side in zip(maps.shape[1:], box, strict=True)
    )
    inside = rows[:, None] & columns[None, :]
    maps = jnp.where(inside[None] & ~jnp.isnan(maps), maps, -jnp.inf)
    new = _Best(maps, jnp.full(maps.shape, number), *jax.vmap(_to_the_top)(maps))
    return jax.tree.map(lambda new, old: jnp.where(maps > best.score, new, old), new, best), None


def _candidates(best: _Best, numbers: Sequence[int], poses: Sequence[Pose], top_k: int, subpixel: bool) -> Matches:
    """The highest peaks of each feature, several for each place in the result."""
    boxes = np.array([each.box for each in poses])
    scales, angles, *_ = zip(*poses, strict=True)

    def of_feature(best: _Best, number: Array) -> Matches:
        index, score = _highest(best.score, (1, 1), max(LEAST, CANDIDATES * top_k))
        which, down, right = (field.ravel()[index] for field in best[1:])
        height, width = jnp.array(boxes, score.dtype)[which].T
        row, column = jnp.divmod(index, best.score.shape[1])
        y, x = row.astype(score.dtype) - (height - 1) // 2, column.astype(score.dtype) - (width - 1) // 2
        if subpixel:
            y, x = y + down, x + right
        scale, angle = (jnp.array(each, score.dtype)[which] for each in (scales, angles))
        return Matches(y, x, score, jnp.full_like(index, number), scale, angle, height, width, score > -jnp.inf)

    found = jax.vmap(of_feature)(best, jnp.array(numbers, jnp.int32))
    return Matches(*(field.ravel() for field in found))


def _apart(found: Matches, top_k: int, least: Array, max_overlap: float) -> Matches:
    """The best, then the best of those that do not overlap it too much, and so on."""
    bottom, right = found.y + found.height, found.x + found.width
    area = found.height * found.width

    def take(scores: Array, _: None) -> tuple[Array, Array]:
        i = scores.argmax()
        rows = jnp.minimum(bottom, bottom[i]) - jnp.maximum(found.y, found.y[i])
        columns = jnp.minimum(right, right[i]) - jnp.maximum(found.x, found.x[i])
        common = jnp.maximum(rows, 0) * jnp.maximum(columns, 0)
        overlaps = common > max_overlap * (area + area[i] - common)
        taken = jnp.where(scores[i] > -jnp.inf, i, -1)
        return jnp.where(overlaps, -jnp.inf, scores).at[i].set(-jnp.inf), taken

    scores = jnp.where(found.score >= least.astype(found.score.dtype), found.score, -jnp.inf)
    _, taken = lax.scan(take, scores, None, top_k)
    out = Matches(*(jnp.where(taken >= 0, field[taken], jnp.zeros_like(field[taken])) for field in found))
    return out._replace(feature=jnp.where(out.valid, out.feature, -1))


def _highest(scores: Array, distance: Pair, most: int) -> tuple[Array, Array]:
    """Places (in reading order) and heights of the highest peaks of a map; -inf where there are no more."""
    height, width = scores.shape
    block = distance[0] + 1, distance[1] + 1  # holds one peak at most
    scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
    index = jnp.arange(height * width).reshape(height, width)
    around = (distance[0], distance[0]), (distance[1], distance[1])
    window = 2 * distance[0] + 1, 2 * distance[1] + 1

    def higher(a: tuple[Array, Array], b: tuple[Array, Array], *_: int) -> tuple[Array, Array]:
        second = (b[0] > a[0]) | ((b[0] == a[0]) & (b[1] < a[1]))
        return jnp.where(second, b[0], a[0]), jnp.where(second, b[1], a[1])

    bordered = jnp.pad(scores, around, constant_values=-jnp.inf), jnp.pad(index, around)
    _, top = reduce_windows(bordered, window, (1, 1), NO_PADDING, 0, higher)
    low = reduce_windows(scores, window, (1, 1), around, jnp.inf, lambda a, b, *_: jnp.minimum(a, b))
    peak = jnp.where((top == index) & (low < scores), scores, -jnp.inf)

    counts = [-(-n // side) for n, side in zip(scores.shape, block, strict=True)]
    fill = [(0, n * side - size) for n, side, size in zip(counts, block, scores.shape, strict=True)]
    blocks = jnp.pad(peak, fill, constant_values=-jnp.inf).reshape(counts[0], block[0], counts[1], block[1])
    blocks = blocks.swapaxes(1, 2).reshape(-1, block[0] * block[1])
    at_most = min(most, len(blocks))
    best, which = lax.top_k(blocks.max(axis=1), at_most)
    row, column = jnp.divmod(blocks.argmax(axis=1)[which], block[1])
    row, column = row + which // counts[1] * block[0], column + which % counts[1] * block[1]
    rest = (0, most - at_most)
    return jnp.pad(row * width + column, rest), jnp.pad(best, rest, constant_values=-jnp.inf)


def _to_the_top(scores: Array) -> tuple[Array, Array]:
    """From each pixel to the top of the paraboloid through it and its neighbours, down and right.

    Half a pixel at most, and 0 along an axis that has no top or lacks a neighbour. The mixed derivative counts: without
    it what runs diagonally would be placed a quarter of a pixel off.
    """
    height, width = scores.shape
    wide = jnp.pad(scores, 1, constant_values=-jnp.inf)
    near = {(i, j): wide[1 + i : 1 + i + height, 1 + j : 1 + j + width] for i in (-1, 0, 1) for j in (-1, 0, 1)}
    mixed = (near[1, 1] - near[1, -1] - near[-1, 1] + near[-1, -1]) / 4

    def along(before: Array, after: Array) -> tuple[Array, Array, Array]:
        bend = before - 2 * scores + after
        top = jnp.isfinite(bend) & (bend < 0)
        return top, jnp.where(top, (after - before) / 2, 0), jnp.where(top, bend, -1)

    (top_y, slope_y, bend_y), (top_x, slope_x, bend_x) = along(near[-1, 0], near[1, 0]), along(near[0, -1], near[0, 1])
    unit = jnp.maximum(-bend_y, -bend_x)  # or products would leave the numbers' range
    slope_y, bend_y, slope_x, bend_x, mixed = (each / unit for each in (slope_y, bend_y, slope_x, bend_x, mixed))
    mixed = jnp.where(top_y & top_x & jnp.isfinite(mixed) & (bend_y * bend_x > mixed**2), mixed, 0)
    determinant = bend_y * bend_x - mixed**2
    down, right = (mixed * slope_x - bend_x * slope_y) / determinant, (mixed * slope_y - bend_y * slope_x) / determinant
    return jnp.clip(down, -0.5, 0.5), jnp.clip(right, -0.5, 0.5)
