"""experiments._lib.find_tiles: tiles cover a picture, and their matches are those of one piece."""

import dataclasses

import numpy as np
import pytest

from experiments._lib import find_tiles
from experiments._lib.find_options import Find, find_arguments
from experiments._lib.find_pictures import Templates
from experiments._lib.find_results import match_records
from experiments._lib.find_search import make_search

RNG = np.random.default_rng(0)
TEMPLATE = RNG.integers(0, 256, (7, 12), np.uint8)
TEMPLATES = Templates(["t"], [TEMPLATE / np.float32(127.5) - 1], [None])
SIZE = (90, 130)
TILE = 60


@pytest.mark.parametrize(
    ("length", "start", "stop", "side", "overlap"),
    [(1000, 0, 1000, 300, 50), (1000, 200, 420, 300, 50), (1000, 100, 900, 60, 50), (300, 0, 300, 300, 50)],
)
def test_every_center_is_in_one_core_and_its_box_in_that_tile(length, start, stop, side, overlap):
    spans = find_tiles.layout_spans(length, start, stop, side, overlap)
    assert len({span.stop - span.start for span in spans}) == 1
    assert spans[0].stop - spans[0].start <= max(side, 2 * overlap)
    for center in np.arange(start, stop - 0.5, 0.5):
        (span,) = (span for span in spans if span.core_start <= center < span.core_stop)
        assert span.start <= max(0, center - overlap / 2 + 0.5)
        assert span.stop >= min(length, center + overlap / 2 - 0.5)


def test_a_region_is_searched_without_the_other_tiles():
    spans = find_tiles.layout_spans(10_000, 4000, 4100, 1000, 60)
    assert spans == [find_tiles.Span(3970, 4130, 3999.5, 4099.5)]


def test_a_region_is_clipped_to_the_picture():
    assert find_tiles.clip_region(None, (20, 30)) == (0, 0, 20, 30)
    assert find_tiles.clip_region((-5, 10, 15, 100), (20, 30)) == (0, 10, 10, 20)
    with pytest.raises(ValueError, match="region: expected a rectangle inside the picture"):
        find_tiles.clip_region((20, 0, 5, 5), (20, 30))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (7, 12)),
        ({"angles": ("0", "90"), "scales": ("1", "2")}, (24, 24)),
        ({"angles": ("45",)}, (14, 14)),
        ({"angle_range": (0, 90)}, (14, 14)),
        ({"scale_range": (0.5, 2)}, (14, 24)),
        ({"scales": ("1", "5000")}, (7, 12)),  # this scale fits nowhere
    ],
)
def test_the_largest_box_holds_every_pose(options, expected):
    assert find_tiles.largest_box([(7, 12)], find_arguments(dataclasses.replace(Find(), **options)), SIZE) == expected


def crowded_picture():
    """A picture of templates, many of which overlap others, in noise."""
    picture = RNG.normal(128, 30, SIZE)
    for _ in range(60):
        y = RNG.integers(SIZE[0] - 7)
        x = RNG.integers(SIZE[1] - 12)
        picture[y : y + 7, x : x + 12] = RNG.uniform(0.4, 0.6) * picture[y : y + 7, x : x + 12] + 0.5 * TEMPLATE
    return np.clip(picture, 0, 255).astype(np.uint8)


def check_that_tiles_change_nothing(**options):
    picture = crowded_picture()
    min_score = None if "score" in options else 0.45
    config = dataclasses.replace(Find(), min_score=min_score, top_k=30, **options)
    arguments = find_arguments(config)
    whole, in_tiles = (
        match_records(search(picture[None])[0], ["t"])
        for search in (make_search(TEMPLATES, region=config.region, tile=tile, **arguments) for tile in (1000, TILE))
    )
    assert whole.found == in_tiles.found > 9
    fields = ["y", "x", "score"]
    expected, found = ([[record[name] for name in fields] for record in page.records] for page in (whole, in_tiles))
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_matches_are_those_of_one_piece():
    check_that_tiles_change_nothing(max_overlap=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"max_overlap": 0.5, "per_feature": True},
        {"max_overlap": 1.0},
        {"score": "squared_difference", "max_score": 40.0},
        {"polarity": "either"},
        {"region": (20, 30, 50, 71)},
        {"min_visible": 0.6},
        {"angles": ("0", "90", "180")},
    ],
)
def test_matches_are_those_of_one_piece_with_every_option(options):
    check_that_tiles_change_nothing(**options)


def test_quality_is_largest_for_the_best_match():
    assert find_tiles.quality(find_arguments(Find()))(0.5) == 0.5
    assert find_tiles.quality(find_arguments(Find(polarity="either")))(-0.9) == 0.9
    assert find_tiles.quality(find_arguments(Find(score="squared_difference", max_score=1)))(3.0) == -3.0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"top_k": 5000}, {"top_k": 5000, "max_overlap": 1.0}),
        ({"top_k": 3}, {"top_k": find_tiles.MATCHES_PER_TILE, "max_overlap": 1.0}),
        ({"top_k": 3, "angle_range": (0, 90)}, {"top_k": 6}),
    ],
)
def test_tiles_keep_matches_that_overlap_unless_they_are_refined(options, expected):
    assert find_tiles.tile_arguments(find_arguments(dataclasses.replace(Find(), **options))) == expected
