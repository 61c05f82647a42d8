"""Scores of templates in several poses, each drawn on a canvas."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from ._poses import Canvas, PoseTable, draw_templates, scale_with_masks
from ._typing import Pair, Score
from ._visible_scores import visible_score

Ranking = Literal["highest", "lowest", "magnitude"]  # which scores are the best
# Rounding of the visible part of a template, as a fraction.
VISIBLE_TOLERANCE = 1e-4


class Bank(NamedTuple):
    """K templates. A template may be smaller than its array, and has its top left pixel there."""

    templates: Shaped[Array, "K h w *C"]
    masks: Shaped[Array, "K h w *C"] | None
    """Weights of their pixels."""
    sizes: Int[Array, "K 2"]
    """Rows and columns."""


class Scoring(NamedTuple):
    """How poses are scored. It is hashable, an argument of a compiled program."""

    score: Score
    ranking: Ranking
    candidates: int
    """Local maxima of each template to keep."""
    poses_per_map: int | None = None
    """None: local maxima are those of the best of all poses. A number: those of the best of so many consecutive poses,
    so that several poses at one pixel are kept."""
    min_visible: float = 1.0
    """The smallest visible part of a template, if not all pixels of the image count."""


def pose_scores(
    image: Array, valid: Array | None, bank: Bank, table: PoseTable, canvas: Canvas, scoring: Scoring
) -> Callable[[Array], tuple[Array, Array]]:
    """A function of P poses that returns their scores and ranks (P, K, H, W); ranks are -inf where a box ends outside.

    The image is padded only as far as canvases reach further than the boxes on them.
    """
    size = image.shape[:2]
    before = [(side - 1) // 2 - (least - 1) // 2 for side, least in zip(canvas.size, canvas.smallest_box, strict=True)]
    after = [side // 2 - least // 2 for side, least in zip(canvas.size, canvas.smallest_box, strict=True)]
    margins = list(zip(before, after, strict=True))
    centered = [((least - 1) // 2, least // 2) for least in canvas.smallest_box]
    padded = jnp.pad(image, [*margins, *[(0, 0)] * (image.ndim - 2)], mode="edge")
    padded_valid = None if valid is None else jnp.pad(valid, margins)
    scaled = scale_with_masks(*bank, table, canvas)

    def score_template(template: Array, mask: Array | None) -> tuple[Array, Array]:
        if padded_valid is not None:
            return _score_visible_part(padded, padded_valid, template, mask, scoring)
        scores = scoring.score(padded, template, mask=mask)
        _check_score_map(scores, padded.shape, template.shape)
        return scores, ~jnp.isnan(scores)

    def score_bank(templates: Array, masks: Array | None) -> tuple[Array, Array]:
        one_mask = masks is None or masks.ndim < templates.ndim
        return jax.vmap(score_template, (0, None if one_mask else 0))(templates, masks)

    def score_poses(poses: Array) -> tuple[Array, Array]:
        if canvas.is_identity:
            scores, is_score = jax.tree.map(lambda maps: maps[None], score_bank(bank.templates, bank.masks))
        else:
            templates, masks = jax.vmap(lambda pose: draw_templates(scaled, table, canvas, pose))(poses)
            scores, is_score = jax.vmap(score_bank, (0, None if masks is None else 0))(templates, masks)
        scores, is_score = (jnp.pad(maps, [(0, 0), (0, 0), *centered]) for maps in (scores, is_score))
        fits = _box_fits(jnp.take(jnp.asarray(table.box), poses, axis=-2), size)
        return scores, jnp.where(fits & is_score, rank_of(scores, scoring.ranking), -jnp.inf)

    return score_poses


def _check_score_map(scores: object, image_shape: tuple[int, ...], template_shape: tuple[int, ...]) -> None:
    """Refuses functions that are no scores: their result is no map of numbers, one for every position."""
    rows, columns = (n - side + 1 for n, side in zip(image_shape[:2], template_shape[:2], strict=True))
    shape = getattr(scores, "shape", None)
    is_bool = getattr(scores, "dtype", None) == jnp.bool_
    if shape == (rows, columns) and not is_bool:
        return
    got = type(scores).__name__ if shape is None else f"shape {shape}{' of bools' if is_bool else ''}"
    raise ValueError(
        f"score: expected maps of all positions, shape ({rows}, {columns}) for arguments of shapes {image_shape} and "
        f"{template_shape}, got {got}"
    )


def _score_visible_part(
    image: Array, valid: Array, template: Array, mask: Array | None, scoring: Scoring
) -> tuple[Array, Array]:
    """The score of the visible part of every patch, and whether enough is visible."""
    scored = visible_score(image, valid, template, mask, scoring.score)
    is_score = (scored.visible >= scoring.min_visible - VISIBLE_TOLERANCE) & ~jnp.isnan(scored.score)
    # A difference that is not defined is 0, which would be a perfect match.
    return scored.score, is_score & scored.defined if scoring.ranking == "lowest" else is_score


def _box_fits(boxes: Array, image_size: Pair | Sequence[int]) -> Array:
    """Whether boxes (P, 2) or (K, P, 2) around a pixel lie inside the image: (P, 1 or K, H, W)."""
    boxes = boxes[:, None] if boxes.ndim == 2 else jnp.moveaxis(boxes, 0, 1)

    def fits_along(axis: int) -> Array:
        side = boxes[:, :, axis, None]
        pixels = jnp.arange(image_size[axis], dtype=boxes.dtype)[None, None]
        return (pixels >= (side - 1) // 2) & (pixels < image_size[axis] - side // 2)

    return fits_along(0)[:, :, :, None] & fits_along(1)[:, :, None, :]


def rank_of(scores: Array, ranking: Ranking) -> Array:
    """The larger, the better."""
    if ranking == "magnitude":
        return jnp.abs(scores)
    return -scores if ranking == "lowest" else scores
