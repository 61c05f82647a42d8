"""experiments._lib.pose_report: medians of right poses, failures, and the scores on both sides of the lowest score."""

import math

import pytest

from experiments._lib import pose_report
from experiments._lib.find_poses import Pose


def make_row(search, right, pixels, score=0.9, near=None):
    return {
        "search": search,
        "scene": "turned",
        "degradation": "clean",
        "case": 3,
        "photo": "coffee",
        "truth": Pose(1.0, 2.0, math.pi / 2)._asdict(),
        "found": Pose(1.0, 2.0, 0.0, score=score)._asdict(),
        "error": {"pixels": pixels, "degrees": 0.5, "scale": 0.0},
        "near": right if near is None else near,
        "right": right,
        "ms": 10.0 * pixels,
        "cpu_ms": 1.0,
    }


def test_medians_are_those_of_right_poses():
    rows = [make_row("a", True, 0.1), make_row("a", True, 0.3), make_row("a", False, 50.0)]
    rows.append(make_row("a", False, 1.0) | {"scene": "pasted"})
    turned, pasted = pose_report.summarize(rows)
    assert (turned["scene"], turned["right"], turned["cases"]) == ("turned", 2, 3)
    assert (turned["pixels"], turned["degrees"], turned["ms"]) == pytest.approx((0.2, 0.5, 3.0))
    assert (pasted["scene"], pasted["right"], pasted["cases"]) == ("pasted", 0, 1)
    assert math.isnan(pasted["pixels"])


def test_wrong_poses_are_listed():
    rows = [make_row("a", True, 0.1), make_row("b", False, 9.0), make_row("c", False, 0.1, score=0.3, near=True)]
    wrong, low = pose_report.failures(rows)
    assert wrong == (
        "wrong: b, turned, clean, case 3 (coffee): "
        "truth (1.0, 2.0) 90.0° x1.000 (1.00), found (1.0, 2.0) 0.0° x1.000 (0.90)"
    )
    assert low.startswith("wrong: c, turned, clean")
    assert low.endswith("(0.30), below the lowest score")


def test_scores_are_counted_on_both_sides_of_the_lowest_score():
    rows = [make_row("a", True, 0.1, score=score, near=True) for score in (0.5, 0.8, 0.9)]
    rows.append(make_row("a", False, 50.0, score=0.2))
    absent = [{"search": "a", "found": {"score": score}} for score in (0.3, 0.8)]
    summary, nothing = pose_report.summarize_scores({"a": 0.8, "b": 0.5}, rows, absent)
    expected = {"search": "a", "min_score": 0.8, "highest_absent": 0.8, "absent": 2, "false_alarms": 1}
    assert summary == expected | {"lowest_right": 0.5, "right": 3, "missed": 1}
    assert math.isnan(nothing["highest_absent"])
    assert math.isnan(nothing["lowest_right"])
    assert pose_report.score_table([summary])[1] == ["a", "0.8", "0.800", "1/2", "0.500", "1/3"]
