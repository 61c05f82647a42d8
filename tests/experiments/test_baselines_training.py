"""The networks that experiments.throughput times: everybody who is installed computes the same."""

import itertools

import numpy as np
import pytest

from experiments._lib import baselines_training, benchmark

STEPS = 3


@pytest.fixture(scope="module")
def work():
    return baselines_training.work(6, 8, 2, (3, 4))


@pytest.fixture(scope="module")
def expected(work):
    """The scores, and the first bias after every one of a few steps."""
    calls = baselines_training.ours(work)
    scores = np.array(calls["inference"]())
    return scores, [np.array(calls["train_step"]()) for _ in range(STEPS)]


def same(calls, expected):
    scores, biases = expected
    benchmark.check_equal_results("inference", calls["inference"](), scores)
    for bias in biases:
        benchmark.check_equal_results("train_step", calls["train_step"](), bias)
    benchmark.check_equal_results("inference after training", calls["inference"](), scores)


def test_training_changes_the_network(expected):
    biases = expected[1]
    assert all(np.abs(after - before).max() > 1e-5 for before, after in itertools.pairwise(biases))


def test_jax_alone_computes_the_same(work, expected):
    same(baselines_training.plain_jax(work), expected)


@pytest.mark.parametrize("name", baselines_training.BASELINES)
def test_peers_compute_the_same(name, work, expected):
    library, build = baselines_training.BASELINES[name]
    if name == "torch.compile":
        pytest.skip("compiling takes a minute; experiments.throughput compares its results")
    same(build(pytest.importorskip(library), work), expected)


@pytest.mark.parametrize("scanned", [baselines_training.ours_scanned, baselines_training.plain_jax_scanned])
def test_a_scan_makes_as_many_steps(scanned, work, expected):
    benchmark.check_equal_results("scan", scanned(work, STEPS)(), expected[1][-1])
