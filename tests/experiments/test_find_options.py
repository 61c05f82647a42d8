"""experiments._lib.find_options: lists of numbers, options that exclude each other, and errors that name options."""

import dataclasses
import math
import re
from pathlib import Path

import pytest

import cnn_jax
from cnn_jax.search import default_min_score
from experiments._lib import cli, find_options
from experiments._lib.find_options import Find, check_options, find_arguments, name_option, parse_numbers


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (("0.5", "2"), (0.5, 2.0)),
        (("0:20:5",), (0, 5, 10, 15)),
        (("-10:10:5", "90"), (-10, -5, 0, 5, 90)),
        (("0.5:2:0.25",), (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)),
        (("0:0.3:0.1",), (0, 0.1, 0.2)),  # 0.3 / 0.1 is rounded down, 3 * 0.1 up
        (("90:0:-45",), (90, 45)),
        ((), ()),
    ],
)
def test_lists_are_numbers_and_ranges_without_their_stop(values, expected):
    assert parse_numbers("--angles", values) == expected


@pytest.mark.parametrize("value", ["x", "", "1:2", "1:2:3:4", "0:360:0", "0:360:-5", "5:5:1", "nan", "0:1:1e-9"])
def test_lists_that_are_not_numbers_are_refused(value):
    with pytest.raises(ValueError, match=f"^--scales: expected .*, got {value}$"):
        parse_numbers("--scales", (value,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale_range": (0.5, 2), "scales": ("2",)}, "--scale-range: only allowed without --scales"),
        ({"angle_range": (0, 90), "angles": ("2",)}, "--angle-range: only allowed without --angles"),
        ({"scale_range": (0.5, 2), "scales": ("1",)}, "--scale-range: only allowed without --scales"),
        ({"angle_range": (0, 90), "angles": ("0",)}, "--angle-range: only allowed without --angles"),
        ({"angle_range": (90, -90)}, "--angle-range: expected LOWEST HIGHEST in degrees, .*, got 90 -90$"),
        ({"angle_range": (-400, 400)}, "--angle-range: expected .* at most 360 apart, got -400 400$"),
        ({"angle_range": (math.nan, 9)}, "--angle-range: expected LOWEST HIGHEST in degrees, .*, got nan 9$"),
        ({"angle_range": (0, math.inf)}, "--angle-range: expected LOWEST HIGHEST in degrees, .*, got 0 inf$"),
        ({"score": "squared_difference"}, "--max-score: expected a number with --score squared_difference"),
        (
            {"score": "squared_difference", "min_score": 0.5, "max_score": 1.0},
            "--min-score: not for --score squared_difference; use --max-score",
        ),
        ({"max_score": 0.5}, "--max-score: not for --score zncc; use --min-score"),
        ({"min_score": math.nan}, "--min-score: expected a number, got nan"),
        ({"tile": 100}, "--tile: expected at least 256, got 100"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    config = dataclasses.replace(Find(), pictures=(Path("a"),), template=(Path("b"),), **options)
    with pytest.raises(ValueError, match=f"^{message}"):
        check_options(config)


@pytest.mark.parametrize("name", ["region", "angle_range", "scale_range"])
def test_the_demonstration_has_its_own_poses(name):
    with pytest.raises(ValueError, match=f"^--{name.replace('_', '-')}: only allowed together with pictures"):
        check_options(dataclasses.replace(Find(), **{name: (1, 2, 3, 4)}))


def test_arguments_are_those_of_find():
    arguments = find_arguments(Find(angles=("0:180:90",), scale_range=(0.5, 2)))
    assert arguments["angles"] == pytest.approx((0, math.pi / 2))
    assert arguments["scale_range"] == (0.5, 2)
    assert arguments["angle_range"] is None
    assert arguments["scales"] == (1.0,)
    assert arguments["min_score"] == default_min_score(scale_range=(0.5, 2))
    assert arguments["score"] is cnn_jax.zncc
    assert "max_score" not in arguments
    arguments = find_arguments(Find(score="squared_difference", max_score=3.0, angle_range=(-180, 180)))
    assert arguments["score"] is cnn_jax.squared_difference
    assert arguments["angle_range"] == pytest.approx((-math.pi, math.pi))
    assert arguments["max_score"] == 3.0
    assert "min_score" not in arguments


def test_errors_name_the_option_and_not_the_argument():
    assert name_option(ValueError("max_overlap: expected 0 to 1, got 2")) == "--max-overlap: expected 0 to 1, got 2"
    assert name_option(ValueError("features: expected one")) == "features: expected one"


def test_the_recorded_defaults_are_those_that_were_used():
    recorded = find_options.search_options(Find())
    assert (recorded["scales"], recorded["angles"], recorded["min_score"]) == (("1",), ("0",), 0.7)
    assert find_options.search_options(Find(angle_range=(0, 90), min_score=0.6))["min_score"] == 0.6
    assert find_options.search_options(Find(score="squared_difference", max_score=1.0))["min_score"] is None


DEFAULTS = [
    ({}, 0.7),
    ({"angle_range": (-5.0, 5.0)}, default_min_score(angle_range=(-1, 1))),
    ({"scale_range": (0.9, 1.1)}, default_min_score(scale_range=(0.9, 1.1))),
    ({"scale_range": (0.9, 1.1), "score": "cosine"}, 0.5),
]


@pytest.mark.parametrize(("ranges", "lowest"), DEFAULTS)
def test_lists_have_a_default_of_the_script_and_ranges_that_of_find(ranges, lowest):
    config = Find(**ranges)
    assert find_arguments(config)["min_score"] == find_options.search_options(config)["min_score"] == lowest


def test_the_help_says_the_lowest_scores(capsys):
    with pytest.raises(SystemExit):
        cli.parse_options(Find, "find", "", ["--help"])
    (text,) = re.findall(r"--min-score FLOAT(.*?)--max-score", capsys.readouterr().out, re.DOTALL)
    for _, lowest in DEFAULTS[:3]:
        assert str(lowest) in text
