"""experiments.poses: searches are judged by the truth."""

import json
import math

import numpy as np
import pytest

from experiments import poses
from experiments._lib import find_poses
from experiments._lib.find_poses import Pose, SceneSize
from tests.helpers import cli

SIZE = SceneSize((60, 80), (20, 25))


def make_row(search, right, pixels, score=0.9):
    return {
        "search": search,
        "degradation": "clean",
        "case": 3,
        "photo": "coffee",
        "truth": Pose(1.0, 2.0, math.pi / 2)._asdict(),
        "found": Pose(1.0, 2.0, 0.0, score=score)._asdict(),
        "error": {"pixels": pixels, "degrees": 0.5, "scale": 0.0},
        "right": right,
        "ms": 10.0 * pixels,
        "cpu_ms": 1.0,
    }


def test_a_search_that_knows_the_truth_is_right_and_others_are_not(monkeypatch):
    pytest.importorskip("skimage")
    cases = list(find_poses.pose_cases(SIZE, 1, 0))
    truths = {case.template.tobytes(): case.truth for case in cases}
    searches = {
        "knows": lambda image, template: truths[template.tobytes()],
        "near": lambda image, template: Pose(*truths[template.tobytes()])._replace(angle=0.0),
        "none": lambda image, template: None,
    }
    rows = poses.compare(searches, cases, ["clean", "noise"], 0)
    assert len(rows) == 3 * 3 * 2
    summary = {(row["search"], row["degradation"]): row for row in poses.summarize(rows)}
    assert [summary[name, "noise"]["right"] for name in searches] == [3, 0, 0]
    assert summary["knows", "clean"]["pixels"] == 0
    assert math.isnan(summary["none", "clean"]["pixels"])


def test_medians_are_those_of_right_poses():
    rows = [make_row("a", True, 0.1), make_row("a", True, 0.3), make_row("a", False, 50.0)]
    (row,) = poses.summarize(rows)
    assert (row["right"], row["cases"]) == (2, 3)
    assert (row["pixels"], row["degrees"], row["ms"]) == pytest.approx((0.2, 0.5, 3.0))


def test_wrong_poses_are_listed():
    (line,) = poses.failures([make_row("a", True, 0.1), make_row("b", False, 9.0)])
    assert line == (
        "wrong: b, clean, case 3 (coffee): truth (1.0, 2.0) 90.0° x1.000 (1.00), found (1.0, 2.0) 0.0° x1.000 (0.90)"
    )


def test_matches_without_a_template_are_false_alarms():
    searches = {
        "always": lambda image, template: Pose(0.0, 0.0, 0.0, score=0.5),
        "bright": lambda image, template: Pose(1.0, 1.0, 0.0) if image.max() > 9 else None,
    }
    scenes = [np.zeros((2, 2)), np.full((2, 2), 10)]
    alarms = poses.false_alarms(searches, {"coffee": np.zeros((1, 1))}, scenes)
    assert [alarm["score"] for alarm in alarms["always"]] == [0.5, 0.5]
    assert [alarm["scene"] for alarm in alarms["bright"]] == [poses.photos.OTHER_PHOTOS[1]]


def test_a_quick_run_writes_metrics_and_a_report(tmp_path, monkeypatch, capsys):
    pytest.importorskip("cv2")
    pytest.importorskip("skimage")
    monkeypatch.setattr(poses, "pin_cpus", lambda count: count)
    metrics = poses.main(poses.Poses(quick=True, searches=("opencv-pyramid",), degradations=("clean",), out=tmp_path))
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["sizes"]["160x120"]["summary"] == metrics["sizes"]["160x120"]["summary"]
    (row,) = metrics["sizes"]["160x120"]["summary"]
    assert (row["search"], row["right"], row["cases"]) == ("opencv-pyramid", 1, 1)
    cli.check_report(tmp_path, figures=0)
    out = capsys.readouterr().out
    assert "| clean " in out
    assert "false alarms in 1 searches" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": ("1x1",)}, "--sizes: expected some of 640x480, .*, got 1x1"),
        ({"searches": ()}, "--searches: expected some of find, opencv-pyramid, opencv-loop, got none"),
        ({"degradations": ("fog",)}, "--degradations: expected some of clean, .*, got fog"),
        ({"poses": 0}, "--poses: expected at least 1"),
        ({"absent": -1}, "--absent: expected at least 0"),
    ],
)
def test_wrong_options_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        poses.main(poses.Poses(out=tmp_path / "out", **options))
    assert not (tmp_path / "out").exists()
