import numpy as np

from experiments._lib.device_setting import Setting


def test_calls_that_fail_or_differ_are_left_out():
    def fail():
        raise RuntimeError("no\nalgorithm")

    calls = {"ours": lambda: np.ones(3), "same": lambda: np.ones(5), "other": lambda: np.zeros(3), "fails": fail}
    line = Setting(is_quick=True).time(calls, compared_images=3)
    assert line["ms"].keys() == {"ours", "same"}
    assert line["skipped"].keys() == {"other", "fails"}
    assert line["skipped"]["fails"] == "RuntimeError: no algorithm"
    assert line["first_call_s"].keys() == {"ours", "same", "other"}
