"""Cases for eager, first and jitted calls."""

import numpy as np
import pytest

from experiments._lib import throughput_calls
from experiments._lib.throughput_calls import CallCase

CASE = CallCase((20, 21), (3, 4))


@pytest.mark.parametrize("task", ["zncc call", "find call"])
def test_eager_and_jitted_calls_and_opencv_agree(task, monkeypatch):
    cv2 = pytest.importorskip("cv2")
    given = []

    def seconds(*arguments):
        given.append(arguments)
        return 1.5

    monkeypatch.setattr(throughput_calls, "first_call_seconds", seconds)
    benchmark = throughput_calls.call_benchmark(task, CASE, {"opencv": cv2}, 2)
    expected = np.asarray(benchmark.ours())
    eager = benchmark.methods["eager"]
    assert eager is not None
    np.testing.assert_allclose(eager(), expected, atol=1e-6)
    np.testing.assert_allclose(benchmark.baselines["opencv"](), expected, atol=1e-5)
    assert expected.tolist() == [3, 5] if task == "find call" else expected.shape == (18, 18)
    assert benchmark.first_call_s == 1.5
    assert given == [(task.split()[0], (20, 21), (3, 4))]


def test_a_case_is_named_by_its_sizes():
    assert str(CASE) == "1x20x21, 1x3x4"
