"""experiments._lib.benchmark_network: cnn_jax and plain JAX train the same network."""

import itertools

import numpy as np
import pytest

from experiments._lib import benchmark_network
from experiments._lib.benchmark import check_equal_results
from tests.helpers.networks import STEPS, check_calls, problem_and_results


@pytest.fixture(scope="module")
def shared():
    return problem_and_results()


def test_training_changes_the_network(shared):
    biases = shared[1].biases
    assert all(np.abs(after - before).max() > 1e-5 for before, after in itertools.pairwise(biases))


def test_plain_jax_computes_the_same(shared):
    problem, expected = shared
    check_calls(benchmark_network.plain_jax(problem), expected)


@pytest.mark.parametrize(
    "scanned",
    [
        pytest.param(benchmark_network.ours_scanned, marks=pytest.mark.slow),
        benchmark_network.plain_jax_scanned,
    ],
)
def test_a_scan_makes_as_many_steps(scanned, shared):
    problem, expected = shared
    check_equal_results("scan", scanned(problem, STEPS)(), expected.biases[-1])
