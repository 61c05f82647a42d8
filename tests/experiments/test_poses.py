"""experiments.poses: searches are judged by the truth."""

import json

import numpy as np
import pytest

from experiments import poses
from experiments._lib import find_poses
from experiments._lib.find_poses import Pose, SceneSize, Search
from tests.helpers import cli

SIZE = SceneSize((60, 80), (20, 25))


def test_a_search_that_knows_the_truth_is_right_and_others_are_not(monkeypatch):
    pytest.importorskip("skimage")
    cases = list(find_poses.pose_cases(SIZE, 1, 0))
    truths = {case.template.tobytes(): case.truth for case in cases}
    searches = {
        "knows": Search(lambda image, template: truths[template.tobytes()], 1.0),
        "doubts": Search(lambda image, template: truths[template.tobytes()], 1.1),
        "turns": Search(lambda image, template: truths[template.tobytes()]._replace(angle=0.0), 1.0),
        "none": Search(lambda image, template: None, 1.0),
    }
    rows = poses.compare(searches, cases, ["clean", "noise"], 0)
    assert len(rows) == 4 * 3 * 2
    counts = {name: [0, 0] for name in searches}
    for row in rows:
        counts[row["search"]][0] += row["near"]
        counts[row["search"]][1] += row["right"]
    assert counts == {"knows": [6, 6], "doubts": [6, 0], "turns": [0, 0], "none": [0, 0]}


def test_matches_without_a_template_are_false_alarms():
    searches = {
        "always": Search(lambda image, template: Pose(0.0, 0.0, 0.0, score=0.5), 0.5),
        "bright": Search(lambda image, template: Pose(1.0, 1.0, 0.0, score=image.max() / 10), 0.5),
        "none": Search(lambda image, template: None, 0.5),
    }
    scenes = [np.zeros((2, 2)), np.full((2, 2), 10)]
    rows = poses.search_absent(searches, {"coffee": np.zeros((1, 1))}, scenes)
    assert [(row["search"], row["found"]["score"], row["alarm"]) for row in rows] == [
        ("always", 0.5, True),
        ("always", 0.5, True),
        ("bright", 0.0, False),
        ("bright", 1.0, True),
    ]
    assert [row["scene"] for row in rows[2:]] == list(poses.photos.OTHER_PHOTOS[:2])


def test_a_quick_run_writes_metrics_and_a_report(tmp_path, monkeypatch, capsys):
    pytest.importorskip("cv2")
    pytest.importorskip("skimage")
    monkeypatch.setattr(poses, "pin_cpus", lambda count: count)
    metrics = poses.main(poses.Poses(quick=True, searches=("opencv-pyramid",), degradations=("clean",), out=tmp_path))
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["sizes"]["160x120"]["summary"] == metrics["sizes"]["160x120"]["summary"]
    rows = metrics["sizes"]["160x120"]["summary"]
    assert [(row["scene"], row["right"], row["cases"]) for row in rows] == [("turned", 1, 1), ("pasted", 1, 1)]
    (scores,) = metrics["sizes"]["160x120"]["scores"]
    assert (scores["right"], scores["absent"], scores["min_score"]) == (2, 1, 0.5)
    cli.check_report(tmp_path, figures=0)
    out = capsys.readouterr().out
    assert "| pasted | clean " in out
    assert "| lowest right |" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": ("1x1",)}, "--sizes: expected some of 640x480, .*, got 1x1"),
        ({"searches": ()}, "--searches: expected some of find, opencv-pyramid, opencv-loop, got none"),
        ({"degradations": ("fog",)}, "--degradations: expected some of clean, .*, got fog"),
        ({"scenes": ("flat",)}, "--scenes: expected some of turned, pasted, got flat"),
        ({"poses": 0}, "--poses: expected at least 1"),
        ({"absent": -1}, "--absent: expected at least 0"),
    ],
)
def test_wrong_options_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        poses.main(poses.Poses(out=tmp_path / "out", **options))
    assert not (tmp_path / "out").exists()
