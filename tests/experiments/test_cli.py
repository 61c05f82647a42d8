"""experiments._lib.cli, and what all scripts share: help, exit codes, and folders that cannot be written to."""

import inspect
import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from cnn_jax.data.pixels import to_uint8
from experiments._lib import cli
from experiments._lib.find_options import Find
from tests.helpers.cli import run, run_each

NAMES = (
    "walkthrough",
    "find",
    "scaling",
    "poses",
    "throughput",
    "calibrate",
    "cpu_settings",
    "accelerators",
    "xo",
    "digits",
    "cifar10",
    "folder",
    "scores",
    "billion",
    "draw",
    "gallery",
)
COMMANDS = [(f"experiments.{name}",) for name in NAMES]
COMMANDS += [("experiments.xo", "classify"), ("experiments.xo", "evaluate"), ("experiments.folder", "classify")]
WITHOUT_DEFAULT_WORK = ("folder", "gallery")  # needs pictures; starts the other scripts


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Of every command: its help, its answer to an unknown option, and its answer where it cannot write."""
    folder = tmp_path_factory.mktemp("answers")
    (folder / "runs").write_text("a file in the way")
    scripts = [(f"experiments.{name}",) for name in NAMES if name not in WITHOUT_DEFAULT_WORK]
    lines = [(*command, "--help") for command in COMMANDS]
    lines += [(*command, "--no-such-option", "1") for command in COMMANDS]
    lines += scripts
    count = len(COMMANDS)
    found = run_each(folder, lines, code=[0] * count + [2] * (count + len(scripts)))
    return found[:count], found[count : 2 * count], found[2 * count :]


def test_every_command_has_help(answers):
    for command, (out, _) in zip(COMMANDS, answers[0], strict=True):
        assert "usage:" in out, command


def test_unknown_options_are_refused(answers):
    for command, (_, err) in zip(COMMANDS, answers[1], strict=True):
        assert err.startswith("error: "), command
        assert err.endswith(" --help\n"), command
        assert len(err.splitlines()) == 1, command


def test_an_unwritable_folder_stops_a_script_before_the_work(answers):
    for _, err in answers[2]:
        assert err.startswith("error: ")
        assert len(err.splitlines()) == 1


@pytest.fixture
def jax_settings(monkeypatch):
    """What is set in JAX's configuration, which stays as it is."""
    settings = {}
    monkeypatch.setattr(jax.config, "update", settings.__setitem__)
    return settings


def test_compiled_programs_are_kept_in_the_users_cache(tmp_path, monkeypatch, jax_settings):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    cli.use_compilation_cache()
    assert jax_settings == {
        "jax_compilation_cache_dir": str(tmp_path / "cnn_jax/compiled"),
        "jax_persistent_cache_min_compile_time_secs": cli.MIN_CACHED_COMPILE_SECONDS,
    }
    assert (tmp_path / "cnn_jax/compiled").is_dir()


def test_the_users_own_cache_settings_are_left(tmp_path, monkeypatch, jax_settings):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1")
    cli.use_compilation_cache()
    assert jax_settings == {}


def test_an_unwritable_cache_is_not_used(tmp_path, monkeypatch, jax_settings):
    (tmp_path / "cache").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    cli.use_compilation_cache()
    assert jax_settings == {}


@pytest.mark.slow
def test_what_was_compiled_is_kept_for_the_next_run(tmp_path):
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "JAX_COMPILATION_CACHE_DIR": ""}
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    run(tmp_path, "experiments.walkthrough", environment=environment)
    assert any(path.name.startswith("jit_steps") for path in (tmp_path / "cache/cnn_jax/compiled").iterdir())


@pytest.mark.slow
def test_an_unwritable_cache_does_not_stop_a_script(tmp_path):
    (tmp_path / "cache").touch()
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "JAX_COMPILATION_CACHE_DIR": ""}
    assert "the X" in run(tmp_path, "experiments.walkthrough", environment=environment)[0]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("two\n  lines"), "two lines"),
        (FileNotFoundError(2, "No such file", "a.png"), "a.png: No such file"),
        (OSError(30, "Read-only", ".tmp", None, "new.png"), "new.png: Read-only"),
        (OSError("plain"), "plain"),
        ("text", "text"),
    ],
)
def test_errors_are_one_line(error, line):
    assert cli.one_line_error(error) == line


def test_help_has_a_line_for_each_paragraph_and_command():
    docstring = """What?

    Claim: one
    `two`.
    Evidence: three.

        python -m a     first
        python -m b     second
    """
    assert cli.paragraphs(inspect.cleandoc(docstring)) == [
        "What?",
        "Claim: one `two`.",
        "Evidence: three.",
        "    python -m a     first\n    python -m b     second",
    ]


@pytest.fixture
def quiet_start(monkeypatch):
    """Scripts that start without changing this process's settings."""
    monkeypatch.setattr(cli, "use_compilation_cache", lambda: None)
    monkeypatch.setattr(cli.cnn_jax, "configure_cpu", lambda: None)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("wrong"), 2, "error: wrong"),
        (MemoryError("full"), 2, "error: full"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyboardInterrupt("stopped by SIGTERM"), 130, "stopped by SIGTERM"),
    ],
)
def test_errors_of_users_become_exit_codes(error, code, line, quiet_start, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as exit_:
        cli.run_script(main)
    assert exit_.value.code == code
    assert capsys.readouterr().err == line + "\n"


def test_errors_of_programmers_are_raised(quiet_start):
    with pytest.raises(KeyError):
        cli.run_script(lambda: {}["missing"])


@pytest.mark.parametrize("value", [0, -1, 0.0, -0.5, float("nan"), float("inf")])
def test_options_that_are_not_positive_are_refused_by_name(value):
    expected = "at least 1" if isinstance(value, int) else "a finite number above 0"
    with pytest.raises(ValueError, match=rf"^--batch-size: expected {expected}, got {value}$"):
        cli.check_positive("--batch-size", value)


def test_options_below_0_are_refused_by_name():
    with pytest.raises(ValueError, match=r"^--seed: expected at least 0, got -1$"):
        cli.check_not_negative("--seed", -1)


def test_checked_options_are_returned():
    assert cli.check_positive("--steps", 3) == 3
    assert cli.check_positive("--rate", 0.5) == 0.5
    assert cli.check_not_negative("--seed", 0) == 0


def test_output_folders_are_made_and_left_empty(tmp_path):
    folder = cli.make_output_dir(tmp_path / "a/b")
    assert folder.is_dir()
    assert list(folder.iterdir()) == []


def test_paths_may_be_in_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    options = cli.parse_options(Find, "find", "", ["page.png", "--template", "~/x.png", "o.png", "--out", "~/run"])
    assert options.pictures == (Path("page.png"),)
    assert options.template == (Path("/home/me/x.png"), Path("o.png"))
    assert options.out == Path("/home/me/run")


def test_urls_in_place_of_paths_are_refused(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.parse_options(Find, "find", "", ["--out", "gs://bucket/run"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("error: out: expected a path on this machine, got the URL 'gs:/bucket")


def test_json_files_hold_arrays_as_lists(tmp_path):
    content = {"array": np.arange(3), "scalar": np.float32(0.5), "device": jax.numpy.ones(2), "path": "ü"}
    cli.write_json(tmp_path / "a.json", content)
    found = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert found == {"array": [0, 1, 2], "scalar": 0.5, "device": [1, 1], "path": "ü"}


def test_pixels_become_bytes():
    pixels = np.array([-1.0, 0.0, 1.0, 2.0, np.nan])
    assert to_uint8(pixels).tolist() == [0, 128, 255, 255, 128]


def test_versions_name_libraries_device_and_cpu():
    found = cli.versions()
    assert found["jax"] == jax.__version__
    assert int(found["cores"]) <= (os.cpu_count() or 1)
    assert found["processor"] or not Path("/proc/cpuinfo").exists()
