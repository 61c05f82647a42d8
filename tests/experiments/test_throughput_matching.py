"""Cases for the scores."""

import numpy as np
import pytest

from experiments._lib.throughput_matching import MatchingCase, is_practical, noise, score_benchmark

CASE = MatchingCase(2, (8, 9), 2, (3, 4))


def test_a_case_is_named_by_its_sizes():
    assert str(CASE) == "2x8x9, 2x3x4"


def test_features_are_cut_from_the_images():
    images, features = noise(CASE)
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 4), axis=(1, 2)).reshape(-1, 3, 4)
    assert all((windows == feature).all(axis=(1, 2)).any() for feature in features)


@pytest.mark.parametrize("task", ["match", "zncc"])
def test_all_methods_give_the_same_maps(task):
    benchmark = score_benchmark(task, CASE, {}, 2)
    expected = np.asarray(benchmark.ours())
    assert expected.shape == (2, 2, 6, 6)
    assert benchmark.auto in benchmark.methods
    for method, call in benchmark.methods.items():
        assert call is not None, method
        np.testing.assert_allclose(call(), expected, atol=1e-5, err_msg=method)


def test_methods_that_take_too_long_are_left_out():
    large = MatchingCase(1, (512, 512), 1, (33, 33))
    assert [is_practical(method, large) for method in ("conv", "shift", "im2col", "fft")] == [True, False, False, True]
