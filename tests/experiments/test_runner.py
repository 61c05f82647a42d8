"""What scripts that train share: what was stopped goes on, other options are refused, nothing is left behind."""

import dataclasses
import functools
import signal
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
    out: Path
    steps: int = 8
    rate: float = 0.1


def work(config, run, stop=False):
    def loss(scores, label):
        if stop:  # while the first step is traced
            signal.raise_signal(signal.SIGTERM)
        return optax.softmax_cross_entropy_with_integer_labels(scores, label)

    options = {"optimizer": optax.sgd(config.rate), "batch_size": 8, "key": jax.random.key(0), "progress": False}
    net = Chain(Flatten(), Dense(2))
    return runner.fit_with_checkpoints(run, "one", net, (IMAGES, LABELS), steps=config.steps, loss=loss, **options)


@pytest.fixture
def stopped(tmp_path):
    """Options of a run that was stopped after a step."""
    config = Config(out=tmp_path)
    with pytest.raises(KeyboardInterrupt, match="stopped by SIGTERM after step 1"):
        runner.run_experiment(config, functools.partial(work, stop=True))
    return config


def test_what_was_stopped_goes_on(stopped, tmp_path, capsys):
    gone_on = runner.run_experiment(stopped, work)
    assert gone_on.resumed_after == 1
    assert "one: going on after step 1" in capsys.readouterr().err
    whole = runner.run_experiment(Config(out=tmp_path / "other"), work)
    assert whole.resumed_after == 0
    jax.tree.map(np.testing.assert_array_equal, gone_on[1:3], whole[1:3])
    assert {path.name for path in tmp_path.iterdir()} == {"other"}  # no saves are left


def test_other_options_are_refused(stopped):
    other = dataclasses.replace(stopped, rate=0.2)
    with pytest.raises(ValueError, match=r"unfinished run with rate 0\.1, this one has 0\.2; .* --no-resume"):
        runner.run_experiment(other, work)
    assert runner.run_experiment(dataclasses.replace(other, resume=False), work).resumed_after == 0


def test_what_was_cut_short_while_it_was_deleted_is_no_run(stopped, monkeypatch):
    def killed(folder, **_):
        if folder.exists():
            raise SystemExit

    monkeypatch.setattr(runner.shutil, "rmtree", killed)
    with pytest.raises(SystemExit):
        runner.delete_checkpoints(stopped.out / "saves")
    monkeypatch.undo()
    assert runner.run_experiment(stopped, work).resumed_after == 0
    assert list(stopped.out.iterdir()) == []


def test_what_ends_before_a_save_leaves_nothing(tmp_path):
    def fail(config, run):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        runner.run_experiment(Config(out=tmp_path), fail)
    assert list(tmp_path.iterdir()) == []


def test_devices_and_processes_that_cannot_be():
    assert runner.connect_devices(None, ()) is None
    with pytest.raises(ValueError, match="--devices: expected at least 1, got 0"):
        runner.connect_devices(0, ())
    for given in (("auto", "more"), ("a:1", "two", "0")):
        with pytest.raises(ValueError, match="distributed: expected auto, or HOST:PORT COUNT NUMBER, got"):
            runner.connect_devices(None, given)
