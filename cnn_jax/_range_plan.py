"""Plans of a coarse-to-fine search: the levels of its pyramid, and the poses that are compared on the top level."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ._pose_refinement import Freedom, Limits
from ._pyramid import PyramidPlan, plan_pyramid
from ._typing import Pair

# Pixels of the template's shorter side on the top level, if it has at least as many.
TOP_SIDE = 16
# Pixels that the template's rim moves between two angles, or two scales, of the top level.
STEP_PIXELS = 1.0
# Largest ratio of two scales that one size of the template is compared at.
MAX_SCALE_RATIO = 2.05
# Pixels of the top level that the filters of a pyramid mix.
FILTER_SIDE = 5
# A template whose sides differ more is not compared under a disk.
MIN_DISK_ASPECT = 0.5
# Logarithms of scales that are taken for 0, so that the template need not be scaled.
SCALE_TOLERANCE = 0.1
# Rounding of angles and of logarithms of scales.
ROUNDING = 1e-9
# Angles of a range at which it is tried whether a template fits.
ANGLE_SAMPLES = 1441

Range = tuple[float, float]


class RangePlan(NamedTuple):
    """The static part of a search of templates of one size. It is hashable, an argument of a compiled program."""

    template_size: Pair
    """Rows and columns of the template."""
    base_scale: float
    """The scale that the template is brought to first. Logarithms of scales are relative to it."""
    size: Pair
    """Rows and columns of the template at the base scale."""
    pyramid: PyramidPlan
    angles: tuple[float, ...]
    """Angles that are compared on the top level, in radians."""
    log_scales: tuple[float, ...]
    """Logarithms of the scales that are compared on the top level."""
    freedom: Freedom
    limits: Limits
    has_disk: bool
    """Whether the inscribed disk shows enough of the template."""
    turn_start: float | None
    """The first angle of a range that holds every angle; None for other ranges."""

    @property
    def searched_side(self) -> int:
        """Rows, and columns, of the image that matter to a match: those of the template, and what filters mix in."""
        template = math.hypot(*self.template_size) * self.base_scale * math.exp(self.limits.log_scale[1])
        return math.ceil(template + FILTER_SIDE * self.pyramid.factors[-1])

    def center(self, factor: float) -> tuple[float, float]:
        """Row and column of the template's center on the level that is smaller by this factor."""
        return (self.size[0] - 1) / 2 / factor, (self.size[1] - 1) / 2 / factor


def plan_ranges(
    template_size: Pair,
    image_size: Pair,
    *,
    angles: Sequence[float],
    scales: Sequence[float],
    angle_range: Range | None,
    scale_range: Range | None,
    omitted_levels: int = 0,
    has_texture_in_disk: bool = True,
) -> list[RangePlan]:
    """Plans of a search, one for each part of the scales that one size of the template is compared at.

    Args:
      template_size: rows and columns.
      image_size: rows and columns. Scales at which the template is larger are left out.
      angles, scales: compared where there is no range, and not refined.
      angle_range, scale_range: the least and the largest, or None.
      omitted_levels: levels of the pyramid that are left out at the top.
      has_texture_in_disk: whether the inscribed disk shows enough of the template.
    """
    turns = angles if angle_range is None else _sample_angles(angle_range)
    largest_scale = _largest_scale(template_size, image_size, turns)
    if scale_range is None:
        parts = _split_scales([scale for scale in scales if scale <= largest_scale])
    else:
        parts = _split_range(scale_range[0], min(scale_range[1], largest_scale))
    plans = []
    for part in parts:
        base = math.sqrt(min(part) * max(part))
        base = 1.0 if abs(math.log(base)) < SCALE_TOLERANCE else base
        size = max(1, round(template_size[0] * base)), max(1, round(template_size[1] * base))
        pyramid = plan_pyramid(min(size), TOP_SIDE * 2**omitted_levels)
        top_size = max(size) / pyramid.factors[-1]
        log_range = math.log(min(part) / base), math.log(max(part) / base)
        log_scales = tuple(math.log(scale / base) for scale in part)
        plans.append(
            RangePlan(
                template_size=template_size,
                base_scale=base,
                size=size,
                pyramid=pyramid,
                angles=tuple(angles) if angle_range is None else angle_steps(angle_range, top_size),
                log_scales=log_scales if scale_range is None else _scale_steps(log_range, top_size),
                freedom=Freedom(angle_range is not None, scale_range is not None),
                limits=Limits(_angle_limits(angle_range), log_range),
                has_disk=has_texture_in_disk and min(size) >= MIN_DISK_ASPECT * max(size),
                turn_start=angle_range[0] if angle_range is not None and is_full_turn(angle_range) else None,
            )
        )
    return plans


def _sample_angles(angle_range: Range) -> list[float]:
    """Angles of a range, quarter turns among them: at those a template may fit exactly."""
    low, high = angle_range
    quarters = np.arange(math.ceil(low / (math.pi / 2)), high / (math.pi / 2)) * (math.pi / 2)
    return [*np.linspace(low, high, ANGLE_SAMPLES).tolist(), *quarters.tolist()]


def _largest_scale(template_size: Pair, image_size: Pair, angles: Sequence[float]) -> float:
    """The largest scale at which the template fits into the image at some angle."""
    height, width = template_size
    cos = np.abs(np.cos(angles))
    sin = np.abs(np.sin(angles))
    rows = image_size[0] / (height * cos + width * sin)
    columns = image_size[1] / (height * sin + width * cos)
    return float(np.minimum(rows, columns).max()) + ROUNDING


def _split_scales(scales: Sequence[float]) -> list[list[float]]:
    """Scales, sorted and cut where their ratio becomes too large."""
    parts: list[list[float]] = []
    for scale in sorted(set(scales)):
        if not parts or scale > parts[-1][0] * MAX_SCALE_RATIO:
            parts.append([])
        parts[-1].append(scale)
    return parts


def _split_range(low: float, high: float) -> list[list[float]]:
    """The ends of parts of a range, of equal ratios; none if the range is empty."""
    if high < low:
        return []
    count = max(1, math.ceil(math.log(high / low) / math.log(MAX_SCALE_RATIO) - ROUNDING))
    edges = np.geomspace(low, high, count + 1).tolist()
    return [[edges[i], edges[i + 1]] for i in range(count)]


def is_full_turn(angle_range: Range) -> bool:
    """Whether a range holds every angle."""
    return angle_range[1] - angle_range[0] >= 2 * math.pi - ROUNDING


def _angle_limits(angle_range: Range | None) -> Range:
    if angle_range is None or is_full_turn(angle_range):
        return -math.inf, math.inf
    return angle_range


def angle_steps(angle_range: Range, size: float) -> tuple[float, ...]:
    """Angles in a range whose steps move the rim of a template of this size by `STEP_PIXELS`."""
    low, high = angle_range
    steps = math.ceil(min(high - low, 2 * math.pi) / math.atan(2 * STEP_PIXELS / size) - ROUNDING)
    if is_full_turn(angle_range):
        return tuple((low + 2 * math.pi * np.arange(steps) / steps).tolist())
    return tuple(np.linspace(low, high, steps + 1).tolist())


def _scale_steps(log_range: Range, size: float) -> tuple[float, ...]:
    low, high = log_range
    steps = math.ceil((high - low) * size / (2 * STEP_PIXELS) - ROUNDING)
    return tuple(np.linspace(low, high, steps + 1).tolist())
