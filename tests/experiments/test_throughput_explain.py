"""Cases for occlusion maps."""

import numpy as np

from experiments._lib.throughput_explain import OcclusionCase, occlusion_benchmark


def test_the_batch_and_the_loop_give_the_same_map():
    benchmark = occlusion_benchmark("occlusion", OcclusionCase("xo_net", 4), {}, 2)
    assert benchmark.images == 16
    expected = benchmark.baselines["jax loop"]()
    assert expected.shape == (4, 4)
    np.testing.assert_allclose(benchmark.ours(), expected, atol=1e-5)
