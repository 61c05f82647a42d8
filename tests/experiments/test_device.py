"""experiments.device, rehearsed with small sizes on the CPU."""

import json
import subprocess
import sys

import pytest

from experiments import device
from experiments._lib.device_stages import STAGES, Stage

# Libraries that other scripts need, and machines with a GPU may not have.
ABSENT = ("tyro", "jinja2", "pooch", "rich", "grain", "matplotlib", "safetensors", "orbax")


def test_a_stage_needs_no_library_that_may_be_missing(tmp_path):
    lines = tmp_path / "lines"
    args = ["--quick", "--stages", "memory", "--stage-lines", str(lines)]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({ABSENT})); from experiments import device; device.main({args})"
    )
    subprocess.run([sys.executable, "-c", code], cwd=device.ROOT, check=True)
    machine, *results = map(json.loads, lines.read_text().splitlines())
    assert machine["machine"]["device"].startswith("cpu")
    assert [line["name"] for line in results] == ["zncc 8x28x28, 4x3x3"]


def test_a_run_keeps_what_every_stage_measured(tmp_path, monkeypatch, capsys):
    """A stage that fails, or is stopped, takes nothing from the others; results of a CPU stay in --out."""
    calls = {
        "memory": ({"machine": {"device": "cpu (cpu)"}}, {"name": "a", "ms": {"ours": 1.25}}),
        "methods": ({"machine": {"device": "cpu (cpu)"}},),
    }

    def status_of(command, environment, limit):
        name, path = command[command.index("--stages") + 1], command[command.index("--stage-lines") + 1]
        text = "".join(json.dumps(line) + "\n" for line in calls[name])
        with open(path, "a") as file:
            file.write(text if name == "memory" else text + '{"name": "cut", "ms": {"ours": 1}')
        return "done" if name == "memory" else "stopped after 9 s"

    monkeypatch.setattr(device, "status_of", status_of)
    monkeypatch.setattr(device, "ROOT", tmp_path)
    device.main(["--stages", "memory", "methods", "memory", "--out", str(tmp_path / "out")])
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert content["machine"] == {"device": "cpu (cpu)"}
    assert content["stages"]["memory"]["results"] == [{"name": "a", "ms": {"ours": 1.25}}]
    assert content["stages"]["methods"] == {"status": "stopped after 9 s", "seconds": 0.0, "results": []}
    assert not (tmp_path / "results").exists()
    assert "a: ms ours=1.25" in capsys.readouterr().out


def test_a_stage_that_fails_keeps_what_it_has_measured(tmp_path, monkeypatch):
    def measure(setting):
        yield {"name": "first"}
        raise MemoryError("no more")

    monkeypatch.setitem(device.STAGES, "memory", Stage(measure, 10))
    with pytest.raises(MemoryError):
        device.run_stage("memory", True, tmp_path / "lines")
    machine, first = map(json.loads, (tmp_path / "lines").read_text().splitlines())
    assert machine.keys() == {"machine"}
    assert first == {"name": "first"}


def test_a_run_without_an_accelerator_ends_at_once(tmp_path):
    with pytest.raises(
        ValueError, match=r"^memory failed with exit code 2: error: JAX finds no accelerator here; --quick"
    ):
        device.main(["--stages", "memory", "methods", "--out", str(tmp_path)])
    assert json.loads((tmp_path / "metrics.json").read_text())["stages"].keys() == {"memory"}


def test_flags_of_a_stage_are_added_to_those_of_the_user(monkeypatch):
    seen = []

    def status_of(command, environment, limit):
        seen.append(environment["XLA_FLAGS"])
        return "done"

    monkeypatch.setattr(device, "status_of", status_of)
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    device.call_stage("determinism", True, 60)
    assert seen == ["--xla_dump_to=x --xla_gpu_deterministic_ops=true"]


def test_results_of_an_accelerator_are_named_after_it(tmp_path, monkeypatch):
    monkeypatch.setattr(device, "ROOT", tmp_path)
    content = {"machine": {"device": "gpu (NVIDIA H100 80GB HBM3)"}, "stages": {}}
    (tmp_path / "results").mkdir()
    device.save(content | {"stages": {"memory": {}}}, tmp_path, is_quick=False)
    content["stages"] = dict.fromkeys(STAGES)
    device.save(content, tmp_path, is_quick=True)
    assert not list((tmp_path / "results").iterdir())
    device.save(content, tmp_path, is_quick=False)
    assert json.loads((tmp_path / "results" / "nvidia-h100-80gb-hbm3.json").read_text()) == content


def test_a_stage_ends_with_an_error_or_at_its_limit():
    failing = [sys.executable, "-c", "raise ValueError('no device')"]
    assert device.status_of(failing, {}, 60) == "failed with exit code 1: ValueError: no device"
    assert device.status_of([sys.executable, "-c", "import time; time.sleep(60)"], {}, 0.5) == "stopped after 0 s"
    assert device.call_stage("memory", True, seconds_left=1)["status"] == "not started: no time left"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--stages", "x"], "invalid choice: 'x'"),
        (["--minutes", "0"], "--minutes: expected a finite number above 0, got 0.0"),
    ],
)
def test_wrong_options_are_refused(args, message, capsys):
    with pytest.raises((SystemExit, ValueError)) as info:
        device.main(args)
    assert message in capsys.readouterr().err + str(info.value)


@pytest.mark.slow
def test_a_rehearsal_of_all_stages_is_right(tmp_path):
    content = device.main(["--quick", "--out", str(tmp_path), "--minutes", "20"])
    assert content["stages"].keys() == STAGES.keys()
    for name, result in content["stages"].items():
        assert result["status"] == "done", name
        assert result["results"], name
        assert all(line.get("right", True) for line in result["results"]), name
