"""experiments.calibrate: constants are measured, fitted, stored where `auto` reads them, and reported."""

import json

import pytest

from cnn_jax import _machine_costs
from experiments import calibrate
from experiments._lib.cost_probes import Probe
from tests.helpers import cli

PROBES = [
    Probe("layer", (2, 8, 8, 1), (3, 3, 1, 8), ((1, 1), (1, 1))),
    Probe("maps", (2, 16, 16, 1), (5, 5, 1, 2), channels_first=True),
]


@pytest.fixture
def stored(monkeypatch, tmp_path):
    """Where the constants are stored; two small probes are measured."""
    path = tmp_path / "cache" / "costs.json"
    monkeypatch.setenv("CNN_JAX_COSTS", str(path))
    monkeypatch.setattr(calibrate, "probes", lambda: PROBES)
    monkeypatch.setattr(calibrate, "MIN_SECONDS", 1e-4)
    _machine_costs.machine_costs.cache_clear()
    yield path
    _machine_costs.machine_costs.cache_clear()


def test_constants_are_stored_where_auto_reads_them(stored, tmp_path, capsys):
    content = calibrate.main(calibrate.Calibrate(out=tmp_path))
    assert json.loads(stored.read_text()) == content["constants"]
    _machine_costs.machine_costs.cache_clear()
    assert _machine_costs.to_json(_machine_costs.machine_costs()) == content["constants"]
    assert json.loads((tmp_path / "calibrate.json").read_text()) == json.loads(json.dumps(content))
    assert [row["kind"] for row in content["rows"]] == ["layer", "maps"]
    assert all(min(row["milliseconds"].values()) > 0 for row in content["rows"])
    assert content["regret"]["calibrated"]["largest"] >= content["regret"]["calibrated"]["mean"] >= 1
    cli.check_report(tmp_path, figures=0)
    out = capsys.readouterr().out
    assert f"constants stored in {stored}" in out
    assert "built in: the chosen method takes" in out


def test_constants_are_not_stored_if_not_asked_for(stored, tmp_path, monkeypatch, capsys):
    calibrate.main(calibrate.Calibrate(keep=False, out=tmp_path))
    assert not stored.exists()
    monkeypatch.setenv("CNN_JAX_COSTS", "")
    calibrate.main(calibrate.Calibrate(out=tmp_path))
    assert "CNN_JAX_COSTS is empty: the constants are not stored" in capsys.readouterr().out


def test_several_machines_give_one_set_of_constants(stored, tmp_path):
    first = calibrate.main(calibrate.Calibrate(keep=False, out=tmp_path / "first"))
    path = tmp_path / "first" / "calibrate.json"
    both = calibrate.main(calibrate.Calibrate(machines=(path, path), out=tmp_path / "both"))
    assert len(both["rows"]) == 2 * len(first["rows"])
    assert not stored.exists()


def test_another_file_is_named(stored, tmp_path):
    path = tmp_path / "other.json"
    path.write_text('{"rows": [1]}')
    with pytest.raises(ValueError, match=r"--machines: expected files calibrate.json .*, got .*other.json"):
        calibrate.main(calibrate.Calibrate(machines=(path,), out=tmp_path))


def test_the_built_in_constants_suit_the_measured_machines():
    paths = sorted((cli.ROOT / "results").glob("*jaxlib*.json"))
    assert len(paths) == 4
    for path in paths:
        regret = calibrate.regrets(calibrate.read_rows(path), _machine_costs.BUILT_IN)
        assert regret["mean"] < 1.03  # as the script's docstring claims
        assert regret["largest"] < 1.8
