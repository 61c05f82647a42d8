"""Options of `experiments.find`: what they are, how they are checked, and the arguments of `cnn_jax.find` from them."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

import cnn_jax
from cnn_jax.search import default_min_score

from . import find_tiles, runner

SCORES = {
    "zncc": cnn_jax.zncc,
    "cosine": cnn_jax.cosine,
    "match": cnn_jax.match,
    "squared_difference": cnn_jax.squared_difference,
    "normalized_squared_difference": cnn_jax.normalized_squared_difference,
}
DIFFERENCES = ("squared_difference", "normalized_squared_difference")  # scores that are small for a match
DEFAULT_SCALES = ("1",)
DEFAULT_ANGLES = ("0",)
DEFAULT_MIN_SCORE = 0.7  # of lists
FULL_TURN = 360.0  # degrees
MIN_TILE = 256  # pixels
MAX_NUMBERS = 10_000  # of a range START:STOP:STEP
ROUNDING = 1e-9  # steps by which a range may miss its STOP
PICTURE_OPTIONS = ("mask", "scales", "angles", "scale_range", "angle_range", "region", "top_k", "parquet")
SEARCH_OPTIONS = (
    "scales",
    "angles",
    "scale_range",
    "angle_range",
    "score",
    "min_score",
    "max_score",
    "polarity",
    "region",
    "min_visible",
    "top_k",
    "max_overlap",
    "per_feature",
    "seed",
)

Numbers = Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="NUMBER|START:STOP:STEP ...")]
Range = Annotated[tuple[float, float] | None, tyro.conf.arg(metavar="LOWEST HIGHEST")]
Score = Annotated[float | None, tyro.conf.arg(metavar="FLOAT")]
Rectangle = Annotated[tuple[int, int, int, int] | None, tyro.conf.arg(metavar="TOP LEFT HEIGHT WIDTH")]


@dataclasses.dataclass(frozen=True)
class Find(runner.RunOptions):
    """Find templates in pictures. Without pictures, search a demonstration picture that the script draws."""

    pictures: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Picture files, and folders of them. All pages of a TIFF file and all frames of an animation are searched."""
    template: tuple[Path, ...] = ()
    """Template files. Transparent pixels do not count. Pictures are compared in color if any template has colors."""
    mask: tuple[Path, ...] = ()
    """One picture per template, of its size: black where a pixel of the template does not count."""
    scales: Numbers = None
    """Scales at which to search, 1 by default: 2 finds the template at twice its size. 0.5:2:0.25 are 0.5, 0.75, ...
    1.75."""
    angles: Numbers = None
    """Angles at which to search, in degrees counterclockwise, 0 by default. 0:360:5 are 0, 5, ... 355."""
    scale_range: Range = None
    """Search at every scale of this range, coarse to fine, instead of at --scales."""
    angle_range: Range = None
    """Search at every angle of this range in degrees, coarse to fine, instead of at --angles. -180 180 is every
    angle."""
    score: Literal["zncc", "cosine", "match", "squared_difference", "normalized_squared_difference"] = "zncc"
    """How a template is compared with a picture. zncc does not depend on brightness and contrast. The differences are
    small for a match; they also find templates of one color."""
    min_score: Score = None
    """Lowest score of a match. The default is 0.7 for lists, and that of cnn_jax.find for ranges: 0.88 of zncc at any
    angle, 0.92 at any scale. metrics.json has it. Not for the differences."""
    max_score: Score = None
    """Highest score of a match, for the differences, which have no default."""
    polarity: Literal["same", "either"] = "same"
    """either also finds photographic negatives, such as a dark icon in its light version. Their scores are negative."""
    region: Rectangle = None
    """Rectangle of the pictures in which the centers of matches lie, in pixels."""
    min_visible: float = 1.0
    """Smallest visible part of a template that the border of a picture cuts, 0 to 1."""
    top_k: int = 10
    """Largest number of matches per picture."""
    max_overlap: float = 0.25
    """Largest overlap of two matches: intersection over union of their rotated rectangles."""
    per_feature: bool = False
    """Compare overlaps only between matches of the same template."""
    tile: int = find_tiles.DEFAULT_SIDE
    """Side in pixels of the tiles in which larger pictures are searched. The matches do not depend on it; time and
    memory do."""
    json: bool = False
    """Print JSON instead of tables."""
    parquet: bool = False
    """For many pictures: write matches to OUT/matches/part-*.parquet, without tables and copies of the pictures."""
    resume: bool = True
    """With --parquet, continue an interrupted search with the same options; --no-resume starts over."""
    seed: int = 0
    """Seed of the demonstration picture."""
    out: Path = Path("runs/find")
    """Folder for report.html, metrics.json and copies of the pictures with matches outlined."""


def check_options(config: Find) -> None:
    """Raises ValueError for options that do not go together."""
    if bool(config.pictures) != bool(config.template):
        raise ValueError("pictures and --template: expected both, or neither for the demonstration")
    defaults = Find()
    for name in PICTURE_OPTIONS:
        if not config.pictures and getattr(config, name) != getattr(defaults, name):
            raise ValueError(f"{option_name(name)}: only allowed together with pictures")
    for name, list_name in {"scale_range": "scales", "angle_range": "angles"}.items():
        if getattr(config, name) is not None and getattr(config, list_name) is not None:
            raise ValueError(f"{option_name(name)}: only allowed without {option_name(list_name)}")
    if config.distributed and not config.parquet:
        raise ValueError("--distributed: only allowed together with --parquet")
    if config.tile < MIN_TILE:
        raise ValueError(f"--tile: expected at least {MIN_TILE}, got {config.tile}")
    check_angle_range(config.angle_range)
    check_score_limits(config)


def check_angle_range(angle_range: tuple[float, float] | None) -> None:
    """Raises ValueError if a range of degrees has its ends exchanged, or is more than a full turn."""
    if angle_range is None:
        return
    low, high = angle_range
    if not 0 <= high - low <= FULL_TURN:
        expected = f"LOWEST HIGHEST in degrees, at most {FULL_TURN:g} apart"
        raise ValueError(f"--angle-range: expected {expected}, got {low:g} {high:g}")


def check_score_limits(config: Find) -> None:
    """Raises ValueError if --min-score or --max-score is not a number, or is not for the score."""
    is_difference = config.score in DIFFERENCES
    expected = "--max-score" if is_difference else "--min-score"
    for name in ("min_score", "max_score"):
        limit = getattr(config, name)
        if limit is not None and option_name(name) != expected:
            raise ValueError(f"{option_name(name)}: not for --score {config.score}; use {expected}")
        if limit is not None and math.isnan(limit):
            raise ValueError(f"{option_name(name)}: expected a number, got nan")
    if is_difference and config.max_score is None:
        raise ValueError(f"--max-score: expected a number with --score {config.score}, which is small for a match")


def find_arguments(config: Find) -> dict[str, Any]:
    """The arguments of `cnn_jax.find`, without the features, masks and region."""
    options = search_options(config)
    limit = "max_score" if config.score in DIFFERENCES else "min_score"
    return {
        "score": SCORES[config.score],
        "scales": parse_numbers("--scales", options["scales"]),
        "angles": tuple(map(math.radians, parse_numbers("--angles", options["angles"]))),
        "scale_range": config.scale_range,
        "angle_range": config.angle_range and tuple(map(math.radians, config.angle_range)),
        limit: options[limit],
        "polarity": config.polarity,
        "min_visible": config.min_visible,
        "top_k": config.top_k,
        "max_overlap": config.max_overlap,
        "per_feature": config.per_feature,
    }


def parse_numbers(option: str, values: Sequence[str]) -> tuple[float, ...]:
    """The numbers in an option's values: plain numbers, and START:STOP:STEP without STOP.

    Raises:
      ValueError: a value is neither; the message names the option.
    """
    return tuple(number for value in values for number in parse_number_or_range(option, value))


def parse_number_or_range(option: str, value: str) -> list[float]:
    """The number, or the numbers of the range START:STOP:STEP."""
    try:
        numbers = [float(part) for part in value.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3) or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{option}: expected numbers or START:STOP:STEP, got {value}")
    if len(numbers) == 1:
        return numbers
    start, stop, step = numbers
    count = math.ceil((stop - start) / step - ROUNDING) if step else 0
    if not 0 < count <= MAX_NUMBERS:
        raise ValueError(f"{option}: expected START:STOP:STEP of 1 to {MAX_NUMBERS} numbers, got {value}")
    return [float(f"{start + i * step:.9g}") for i in range(count)]


def has_range(config: Find) -> bool:
    """Whether the search is coarse to fine."""
    return config.scale_range is not None or config.angle_range is not None


def search_options(config: Find) -> dict[str, Any]:
    """The options that the matches depend on, with the defaults that were used."""
    options = {name: getattr(config, name) for name in SEARCH_OPTIONS}
    defaults: dict[str, Any] = {"scales": DEFAULT_SCALES, "angles": DEFAULT_ANGLES}
    if config.score not in DIFFERENCES:
        of_ranges = default_min_score(
            SCORES[config.score], scale_range=config.scale_range, angle_range=config.angle_range
        )
        defaults["min_score"] = of_ranges if has_range(config) else DEFAULT_MIN_SCORE
    return options | {name: value for name, value in defaults.items() if options[name] is None}


def option_name(argument: str) -> str:
    """An option as the user writes it: --max-overlap for max_overlap."""
    return f"--{argument.replace('_', '-')}"


def name_option(error: Exception) -> str:
    """The message of an error of `cnn_jax.find`, which begins with an argument's name, with the option's name."""
    argument, colon, rest = str(error).partition(": ")
    return option_name(argument) + colon + rest if argument in SEARCH_OPTIONS else str(error)
