"""experiments.cpu_settings: every setting has a process, and its times a column."""

import json
import os

import pytest

from experiments import cpu_settings
from tests.helpers import cli


@pytest.mark.slow
def test_processes_take_turns(tmp_path, monkeypatch, capsys):
    settings = {name: cpu_settings.SETTINGS[name] for name in ("default", "no YNNPACK")}
    monkeypatch.setattr(cpu_settings, "SETTINGS", settings)
    monkeypatch.setattr(cpu_settings, "pin_cpus", lambda count: None)
    before = os.environ.get("XLA_FLAGS")
    config = cpu_settings.CpuSettings(tasks=("match",), rounds=1, quick=True, out=tmp_path)
    content = cpu_settings.main(config)
    assert os.environ.get("XLA_FLAGS") == before
    assert [row["task"] for row in content["rows"]] == ["match", "match"]
    assert all(row["milliseconds"].keys() == settings.keys() for row in content["rows"])
    assert content["means"]["match"]["default"] == pytest.approx(1)
    assert json.loads((tmp_path / "cpu_settings.json").read_text())["rows"] == content["rows"]
    cli.check_report(tmp_path, figures=0)
    assert "no YNNPACK" in capsys.readouterr().out


def test_rounds_are_above_0(tmp_path):
    with pytest.raises(ValueError, match="--rounds: expected at least 1, got 0"):
        cpu_settings.main(cpu_settings.CpuSettings(rounds=0, out=tmp_path))
