"""The article's worked example, run as a user runs it."""

import json

import pytest

from tests.helpers.cli import check_report, run


def test_walkthrough(tmp_path):
    out, _ = run(tmp_path, "experiments.walkthrough", "--out", "w")
    metrics = json.loads((tmp_path / "w/metrics.json").read_text())
    assert metrics["votes"]["the X"] == pytest.approx({"X": 1, "O": 5 / 9})
    assert metrics["votes"]["a deformed X"] == pytest.approx({"X": 37 / 45, "O": 20 / 36})
    assert len(list((tmp_path / "w").glob("*.png"))) == 8
    assert "| the X        | 1.0000 | 0.5556 |" in out
    texts = check_report(tmp_path / "w", figures=8)
    assert texts["td"] == ["1.0000", "0.5556", "0.8222", "0.5556"]
    assert texts["pre"] == ["python -m experiments.walkthrough --out w"]
