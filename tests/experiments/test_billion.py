"""experiments.billion: the estimate by hand, and what is measured."""

import dataclasses
import json

import numpy as np
import pytest

from cnn_jax import nets
from experiments import billion
from tests.helpers.cli import check_report

RATES = {"X/O network": 1000.0, "matcher": 500.0, "training": 200.0, "decoding": 10.0, "bytes": 500.0}
RATES |= {"parameters": 1_000_000}


def test_the_estimate_of_one_host_by_hand():
    limits = billion.rate_limits(billion.Billion(times=2.0), RATES, "training", devices=1)
    expected = {"devices": 400, "decoding": 960, "disks": 1e7, "buses": 25e9 / 784, "store": 2e8}
    assert limits == pytest.approx(expected)


def test_the_estimate_of_two_hosts_by_hand():
    limits = billion.rate_limits(billion.Billion(times=2.0), RATES, "training", devices=16)
    # A step sends 8 MB over links of 12.5 GB/s in 0.64 ms, for 16 * 1024 images.
    assert limits["links"] == pytest.approx(16 * 1024 / 0.64e-3)
    assert (limits["devices"], limits["decoding"]) == (6400, 1920)
    assert "links" not in billion.rate_limits(billion.Billion(), RATES, "matcher", devices=16)


@pytest.mark.parametrize(
    ("seconds", "text"), [(90.0, "90.0 seconds"), (120.0, "2.0 minutes"), (9000, "2.5 hours"), (864_000, "10.0 days")]
)
def test_durations_have_a_unit_of_which_there_are_at_least_two(seconds, text):
    assert billion.duration(seconds) == text


def test_estimates_are_written_and_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(billion, "measure", lambda min_seconds: RATES)
    metrics = billion.main(billion.Billion(devices=(3,), out=tmp_path))
    assert json.loads((tmp_path / "metrics.json").read_text())["rows"] == metrics["rows"]
    assert [row["job"] for row in metrics["rows"]] == list(billion.JOBS)
    row = metrics["rows"][0]
    assert row["seconds"] == pytest.approx(1e9 / min(row["limits"].values()))
    assert capsys.readouterr().out.count(" 3 |") == 3
    assert len(check_report(tmp_path, figures=0)["tr"]) == 1 + 3


def check_rates(rates):
    assert rates.keys() == RATES.keys()
    assert all(rate > 0 for rate in rates.values())


def test_every_rate_is_measured(monkeypatch):
    net = nets.xo_net(features=(1, 1, 1))
    monkeypatch.setattr(billion.nets, "xo_net", lambda: net)
    monkeypatch.setattr(billion, "BATCH", 4)
    monkeypatch.setattr(billion.xo, "draw", lambda key, size: (np.zeros((size, size), np.float32), 0))
    check_rates(billion.measure(0.0))


@pytest.mark.slow
def test_every_rate_of_the_real_network_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(billion, "BATCH", 16)
    metrics = billion.main(billion.Billion(devices=(3,), settle=0.001, out=tmp_path))
    check_rates(metrics["rates"])


@pytest.mark.parametrize(
    ("name", "value"), [("bus", 0.0), ("times", float("nan")), ("per_host", 0), ("devices", (1, 0))]
)
def test_wrong_numbers_are_refused_before_the_work(name, value, tmp_path):
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')}: expected (at least 1|a finite number above 0)"):
        billion.main(dataclasses.replace(billion.Billion(out=tmp_path / "out"), **{name: value}))
    assert not list(tmp_path.iterdir())
