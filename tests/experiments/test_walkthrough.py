"""The article's worked example, run as a user runs it."""

import json

import numpy as np
import pytest

from tests.helpers import article
from tests.helpers.cli import FAST_COMPILE, check_report, run


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """The folder that the script wrote to, and what it printed."""
    folder = tmp_path_factory.mktemp("walkthrough")
    out, _ = run(folder, "experiments.walkthrough", "--out", "w", environment=FAST_COMPILE)
    return folder / "w", out


def test_votes_are_those_of_the_article(result):
    votes = json.loads((result[0] / "metrics.json").read_text())["votes"]
    assert votes["the X"] == pytest.approx({"X": 1, "O": 5 / 9})
    assert votes["a deformed X"] == pytest.approx({"X": 37 / 45, "O": 20 / 36})


def test_steps_are_those_of_the_article(result):
    steps = json.loads((result[0] / "metrics.json").read_text())["steps"]
    expected = {
        "the X": (article.MAPS, article.RECTIFIED, article.POOLED, article.POOLED_TWICE),
        "a deformed X": (
            article.DEFORMED_MAPS,
            article.DEFORMED_MAPS.clip(0),
            article.DEFORMED_POOLED.clip(0),
            article.DEFORMED_POOLED_TWICE,
        ),
    }
    for name, maps in expected.items():
        assert len(steps[name]) == len(maps)
        for step, expected_maps in zip(("match", "relu", "pooled", "pooled twice"), maps, strict=True):
            np.testing.assert_allclose(steps[name][step], expected_maps, atol=1e-6)


def test_the_table_is_printed(result):
    assert "| the X        | 1.0000 | 0.5556 |" in result[1]


def test_figures_and_report_are_written(result):
    folder, _ = result
    assert len(list(folder.glob("*.png"))) == 8
    texts = check_report(folder, figures=8)
    assert texts["td"] == ["1.0000", "0.5556", "0.8222", "0.5556"]
    assert texts["pre"] == ["python -m experiments.walkthrough --out w"]
