"""What the network of the training benchmarks must compute, in any library."""

from typing import NamedTuple

import numpy as np

from experiments._lib import benchmark_network
from experiments._lib.benchmark import TOLERANCE, check_equal_results

STEPS = 3


class Expected(NamedTuple):
    """What cnn_jax computes."""

    logits: np.ndarray
    biases: list[np.ndarray]
    """The first bias after each of STEPS training steps."""


def problem_and_results() -> tuple[benchmark_network.Problem, Expected]:
    """A small problem, and cnn_jax's results."""
    problem = benchmark_network.make_problem(6, 8, 2, (3, 4))
    calls = benchmark_network.ours(problem)
    logits = np.array(calls["inference"]())
    return problem, Expected(logits, [np.array(calls["train_step"]()) for _ in range(STEPS)])


def check_calls(calls: benchmark_network.Calls, expected: Expected, tolerance: float = TOLERANCE) -> None:
    """A library's calls compute what cnn_jax computes; training leaves the network of "inference" as it is."""
    check_equal_results("inference", calls["inference"](), expected.logits, tolerance)
    for bias in expected.biases:
        check_equal_results("train_step", calls["train_step"](), bias, tolerance)
    check_equal_results("inference after training", calls["inference"](), expected.logits, tolerance)
