"""experiments._lib.runner: interrupted runs resume, other options are refused, and nothing is left behind."""

import dataclasses
import functools
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from cnn_jax.layers import Chain, Dense, Flatten
from experiments._lib import runner

IMAGES = np.random.default_rng(0).normal(size=(16, 2, 2)).astype(np.float32)
LABELS = (IMAGES.sum((1, 2)) > 0).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Config(runner.RunOptions):
    out: Path = Path("runs")
    steps: int = 8
    rate: float = 0.1


def train(config, run, stop=False):
    def loss(scores, label):
        if stop:  # while the first step is traced
            signal.raise_signal(signal.SIGTERM)
        return optax.softmax_cross_entropy_with_integer_labels(scores, label)

    options = {"optimizer": optax.sgd(config.rate), "batch_size": 8, "key": jax.random.key(0), "progress": False}
    net = Chain(Flatten(), Dense(2))
    data = (IMAGES, LABELS)
    return runner.fit_with_checkpoints(run, "network", net, data, steps=config.steps, loss=loss, **options)


@pytest.fixture
def stopped(tmp_path):
    """Options of a run that was stopped after a step."""
    config = Config(out=tmp_path)
    with pytest.raises(KeyboardInterrupt, match="stopped by SIGTERM after step 1"):
        runner.run_experiment(config, functools.partial(train, stop=True))
    return config


def test_a_stopped_run_resumes(stopped, tmp_path, capsys):
    resumed = runner.run_experiment(stopped, train)
    assert resumed.resumed_after == 1
    assert "network: resuming after step 1" in capsys.readouterr().err
    whole = runner.run_experiment(Config(out=tmp_path / "other"), train)
    assert whole.resumed_after == 0
    jax.tree.map(np.testing.assert_array_equal, resumed[1:3], whole[1:3])
    assert {path.name for path in tmp_path.iterdir()} == {"other"}  # no checkpoints are left


def test_other_options_are_refused(stopped):
    other = dataclasses.replace(stopped, rate=0.2)
    expected = r"unfinished run with rate=0\.1, this one has rate=0\.2; .* --no-resume"
    with pytest.raises(ValueError, match=expected):
        runner.run_experiment(other, train)
    assert runner.run_experiment(dataclasses.replace(other, resume=False), train).resumed_after == 0


def test_an_interrupted_deletion_leaves_no_run(stopped, monkeypatch):
    def killed(folder, **_):
        if folder.exists():
            raise SystemExit

    monkeypatch.setattr(runner.shutil, "rmtree", killed)
    with pytest.raises(SystemExit):
        runner.delete_checkpoints(stopped.out / "saves")
    monkeypatch.undo()
    assert runner.run_experiment(stopped, train).resumed_after == 0
    assert list(stopped.out.iterdir()) == []


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "saves/network/1").mkdir(parents=True)
    (tmp_path / "saves/config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: not the record of a run"):
        runner.claim_dir(tmp_path / "saves", Config(out=tmp_path))


def test_a_run_that_fails_before_a_checkpoint_leaves_nothing(tmp_path):
    def fail(config, run):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        runner.run_experiment(Config(out=tmp_path), fail)
    assert list(tmp_path.iterdir()) == []


def test_other_processes_than_the_first_print_and_leave_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runner.jax, "process_index", lambda: 1)
    stdout = sys.stdout

    def work(config, run):
        print("hidden")
        assert run.out != tmp_path
        return run.out

    out = runner.run_experiment(Config(out=tmp_path), work)
    assert sys.stdout is stdout
    assert capsys.readouterr().out == ""
    assert not out.exists()
    assert list(tmp_path.iterdir()) == []


def test_devices_and_processes_that_cannot_be_connected():
    assert runner.connect_devices(None, ()) is None
    with pytest.raises(ValueError, match="--devices: expected at least 1, got 0"):
        runner.connect_devices(0, ())
    for given in (("auto", "more"), ("a:1", "two", "0")):
        with pytest.raises(ValueError, match="--distributed: expected auto, or HOST:PORT COUNT INDEX, got"):
            runner.connect_devices(None, given)


def test_more_devices_than_there_are_are_refused(monkeypatch):
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)
    available = len(jax.local_devices())
    with pytest.raises(ValueError, match=rf"--devices: expected at most {available} \(available\), got 99"):
        runner.connect_devices(99, ())
