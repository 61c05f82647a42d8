"""experiments.scores, run with --smoke as a user runs it."""

import json

import jax
import numpy as np
import pytest

from experiments import scores
from experiments._lib import runner
from tests.helpers.cli import FAST_COMPILE, check_report, run


@pytest.mark.slow
def test_a_first_try(tmp_path):
    options = "--features", 4, 8, "--learning-rates", 0.003, "--seeds", 1
    run(tmp_path, "experiments.scores", "--smoke", *options, environment=FAST_COMPILE)
    found = json.loads((tmp_path / "runs" / "scores" / "metrics.json").read_text())
    assert list(found["kinds"]) == list(scores.KINDS)
    check_report(tmp_path / "runs" / "scores", figures=1)
    for row in found["kinds"].values():
        assert np.shape(row["robustness"]["noise"]) == (1, 4)
    zncc = found["kinds"]["zncc"]["robustness"]
    assert np.ptp(zncc["brightness"][0] + zncc["contrast"][0]) < 0.02  # what zncc is for


def test_the_rate_that_reads_most_is_chosen(tmp_path):
    config = scores.Scores(smoke=True, features=(4, 8), learning_rates=(1e-9, 0.01))
    rate, read = scores.choose("conv", scores.load(config)[0], config, runner.Run(tmp_path, tmp_path / "saves", None))
    assert rate == 0.01
    assert read["0.01"] > read["1e-09"]


def test_networks_are_about_as_large():
    nets = [scores.network(kind, (16, 32), 10) for kind in scores.KINDS]
    params = [jax.eval_shape(lambda key, net=net: net.init(key, (28, 28, 1)), jax.random.key(0)) for net in nets]
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(one)) for one in params]
    assert max(sizes) < 1.01 * min(sizes)


@pytest.mark.parametrize("name", scores.CHANGES)
def test_changes_are_as_strong_as_they_say(name):
    change, strengths = scores.CHANGES[name]
    pixels = np.linspace(-1, 1, 10_000, dtype=np.float32).reshape(100, 100, 1, 1)
    np.testing.assert_array_equal(change(pixels, strengths[0]), pixels)
    changed = np.asarray(change(pixels, 0.5))
    if name == "noise":
        assert np.std(changed - pixels) == pytest.approx(0.5, rel=0.03)
    else:
        np.testing.assert_allclose(changed, {"brightness": pixels + 0.5, "contrast": pixels / 2}[name], rtol=1e-6)
