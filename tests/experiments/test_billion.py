"""experiments.billion: the calculation by hand, and what few pictures measure. How it starts: test_experiments.py."""

import json

import pytest

from experiments import billion
from tests.helpers.cli import check_report

RATES = {"X/O network": 1000.0, "matcher": 500.0, "training": 200.0, "decoding": 10.0, "bytes": 500.0}


def test_the_calculation_by_hand():
    config = billion.Billion(times=2.0)
    rates = RATES | {"parameters": 1_000_000}
    one, many = (billion.limits(config, rates, "training", devices) for devices in (1, 16))
    assert one == pytest.approx(
        {"devices": 400, "decoding": 960, "disks": 1e7, "buses": 25e9 / 784, "store": 2e8}  # one host, no links
    )
    # Two hosts; a step takes 8 MB over links of 12.5 GB/s, 0.64 ms, for 16 * 1024 images.
    assert many["links"] == pytest.approx(16 * 1024 / 0.64e-3)
    assert (many["devices"], many["decoding"]) == (6400, 1920)


def test_what_is_measured_written_and_printed(tmp_path, monkeypatch, capsys):
    for name in ("BATCH", "DECODED"):
        monkeypatch.setattr(billion, name, 16)
    billion.main(billion.Billion(devices=(3,), settle=0.001, out=tmp_path))
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert [row["job"] for row in found["rows"]] == list(billion.JOBS)
    row = found["rows"][0]
    assert row["seconds"] == pytest.approx(1e9 / min(row["limits"].values()))
    assert capsys.readouterr().out.count(" 3 |") == 3
    assert len(check_report(tmp_path, figures=0)["tr"]) == 1 + 3


def test_wrong_numbers_are_refused_before_the_work(tmp_path):
    with pytest.raises(ValueError, match="--bus: expected a finite number above 0"):
        billion.main(billion.Billion(bus=0.0, out=tmp_path / "out"))
    assert not list(tmp_path.iterdir())
