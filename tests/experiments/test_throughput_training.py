"""Cases for networks and their layers."""

import numpy as np
import pytest

from experiments._lib.baselines_layers import LAYER_BENCHMARKS
from experiments._lib.throughput_training import NetworkCase, layer_benchmark, network_benchmark

CASE = NetworkCase(4, 8, 1, (4,))


def test_a_case_is_named_by_its_sizes():
    assert str(CASE) == "4x8x8x1, 4"


def test_ours_and_plain_jax_give_the_same_logits():
    benchmark = network_benchmark("inference", CASE, {}, 2)
    assert benchmark.images == 4
    assert benchmark.methods == {}
    np.testing.assert_allclose(benchmark.ours(), benchmark.baselines["jax"](), atol=1e-5)


@pytest.mark.parametrize("task", LAYER_BENCHMARKS)
def test_ours_and_plain_jax_give_the_same_for_each_layer(task):
    benchmark = layer_benchmark(task, CASE, {}, 2)
    np.testing.assert_allclose(benchmark.ours(), benchmark.baselines["jax"](), atol=1e-4)
