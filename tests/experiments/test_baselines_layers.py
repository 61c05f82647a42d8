"""experiments._lib.baselines_layers: cnn_jax's layers and their gradients equal those of plain JAX."""

import jax
import numpy as np
import pytest

from experiments._lib.baselines_layers import GROUPED_BENCHMARKS, LAYER_BENCHMARKS
from experiments._lib.benchmark import check_equal_results

BENCHMARKS = {**LAYER_BENCHMARKS, **GROUPED_BENCHMARKS}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_layers_compute_the_same(name):
    layer = BENCHMARKS[name]
    generator = np.random.default_rng(0)
    shapes = layer.shapes(2, 6, 3, 4)
    arrays = [generator.standard_normal(shape).astype(np.float32) for shape in shapes]
    check_equal_results(name, jax.jit(layer.ours)(*arrays), np.asarray(jax.jit(layer.plain_jax)(*arrays)))
