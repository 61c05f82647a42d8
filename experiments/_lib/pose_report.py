"""Statistics and tables of `experiments.poses`."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from . import report
from .find_poses import DEGRADATIONS, SCENES, PoseError


def summarize(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For every kind of scene, degradation and search the number of right poses, and medians of errors and times."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["scene"], row["degradation"], row["search"]), []).append(row)
    return [
        {
            "scene": scene,
            "degradation": degradation,
            "search": search,
            "cases": len(members),
            "right": sum(row["right"] for row in members),
            **{name: median_error(members, name) for name in PoseError._fields},
            **{unit: statistics.median(row[unit] for row in members) for unit in ("ms", "cpu_ms")},
        }
        for (scene, degradation, search), members in sorted(groups.items(), key=lambda group: rank(*group[0]))
    ]


def rank(scene: str, degradation: str, search: str) -> tuple[int, int, str]:
    """The order of a row in the tables."""
    return SCENES.index(scene), DEGRADATIONS.index(degradation), search


def median_error(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    """The median of an error over the right poses; NaN without a right pose."""
    errors = [row["error"][name] for row in rows if row["right"]]
    return statistics.median(errors) if errors else math.nan


def summarize_scores(
    min_scores: Mapping[str, float], rows: Sequence[Mapping[str, Any]], absent_rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """For every search the scores on both sides of its lowest score of a match.

    Args:
      min_scores: the lowest score of every search.
      rows: calls with the template, at any score; `near` says whether the pose is the true one.
      absent_rows: calls without the template.
    """
    summaries = []
    for search, min_score in min_scores.items():
        right = [row["found"]["score"] for row in rows if row["search"] == search and row["near"]]
        absent = [row["found"]["score"] for row in absent_rows if row["search"] == search]
        summaries.append(
            {
                "search": search,
                "min_score": min_score,
                "highest_absent": max(absent, default=math.nan),
                "absent": len(absent),
                "false_alarms": sum(score >= min_score for score in absent),
                "lowest_right": min(right, default=math.nan),
                "right": len(right),
                "missed": sum(score < min_score for score in right),
            }
        )
    return summaries


def blocks(name: str, result: Mapping[str, Any]) -> report.Results:
    """The tables of a size: poses, scores; and the failures."""
    has_scales = result["size"]["scale_range"][0] < result["size"]["scale_range"][1]
    head = ["scene", "degradation", "search", "right poses", "pixels", "degrees", "scale", "ms", "CPU ms"]
    table = [head] + [
        [
            row["scene"],
            row["degradation"],
            row["search"],
            f"{row['right']}/{row['cases']}",
            f"{row['pixels']:.4f}",
            f"{row['degrees']:.4f}",
            f"{100 * row['scale']:.3f} %" if has_scales else "-",
            f"{row['ms']:.0f}",
            f"{row['cpu_ms']:.0f}",
        ]
        for row in result["summary"]
    ]
    template = "x".join(map(str, reversed(result["size"]["template"])))
    return [
        f"{name} pixels, template of {template} pixels:",
        table,
        score_table(result["scores"]),
        *failures(result["rows"]),
    ]


def score_table(scores: Sequence[Mapping[str, Any]]) -> report.Table:
    """Both sides of every search's lowest score."""
    head = ["search", "lowest score of a match", "highest without template", "false alarms", "lowest right", "missed"]
    return [head] + [
        [
            row["search"],
            f"{row['min_score']:g}",
            f"{row['highest_absent']:.3f}",
            f"{row['false_alarms']}/{row['absent']}",
            f"{row['lowest_right']:.3f}",
            f"{row['missed']}/{row['right']}",
        ]
        for row in scores
    ]


def failures(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for every wrong pose."""
    return [
        f"wrong: {row['search']}, {row['scene']}, {row['degradation']}, case {row['case']} ({row['photo']}): "
        f"truth {pose_text(row['truth'])}, found {pose_text(row['found']) if row['found'] else 'nothing'}"
        f"{', below the lowest score' if row['near'] else ''}"
        for row in rows
        if not row["right"]
    ]


def pose_text(pose: Mapping[str, float]) -> str:
    """A pose for people: place, angle in degrees, scale and score."""
    angle = math.degrees(pose["angle"])
    return f"({pose['y']:.1f}, {pose['x']:.1f}) {angle:.1f}° x{pose['scale']:.3f} ({pose['score']:.2f})"
