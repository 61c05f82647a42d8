"""experiments._lib.baselines_training: every installed library trains the same network."""

import pytest

from experiments._lib import baselines_training
from experiments._lib.benchmark import TOLERANCE
from tests.helpers.networks import check_calls, problem_and_results

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shared():
    return problem_and_results()


@pytest.mark.parametrize("name", baselines_training.BASELINES)
def test_libraries_compute_the_same(name, shared):
    baseline = baselines_training.BASELINES[name]
    if name == "torch.compile":
        pytest.skip("compiling takes a minute; experiments.throughput compares its results")
    problem, expected = shared
    calls = baseline.build(pytest.importorskip(baseline.library), problem)
    if baseline.bits == 16:
        calls = {task: (lambda call=call: call().float()) for task, call in calls.items()}
    check_calls(calls, expected, tolerance=TOLERANCE if baseline.bits == 32 else 0.05)
