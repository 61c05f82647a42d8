"""experiments._lib.baselines_training: every installed library trains the same network."""

import numpy as np
import pytest

from experiments._lib import baselines_training
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
    if baseline.bits == 32:
        check_calls(calls, expected)
        return
    for logits, bias in ((calls["inference"](), calls["train_step"]()), (calls["inference"](), None)):
        np.testing.assert_allclose(logits.float(), expected.logits, atol=0.02 * np.abs(expected.logits).max())
        if bias is not None:
            np.testing.assert_allclose(bias, expected.biases[0], atol=0.02 * np.abs(expected.biases[0]).max())
