"""The public functions of arrays with and without `jax.jit`, and with arguments on the device or the host."""

import functools

import chex
import numpy as np
from absl.testing import parameterized

import cnn_jax

IMAGE = np.random.default_rng(0).integers(-4, 5, (6, 7, 2)).astype(np.float32)
KERNEL = np.random.default_rng(1).integers(-4, 5, (3, 2, 2, 3)).astype(np.float32)
FUNCTIONS = {
    "conv": (cnn_jax.conv, (IMAGE, KERNEL)),
    "window_sum": (functools.partial(cnn_jax.window_sum, window=2), (IMAGE,)),
    "max_pool": (cnn_jax.max_pool, (IMAGE,)),
    "avg_pool": (functools.partial(cnn_jax.avg_pool, padding="CEIL"), (IMAGE,)),
    "match": (cnn_jax.match, (IMAGE, KERNEL[..., 0])),
    "zncc": (cnn_jax.zncc, (IMAGE, KERNEL[..., 0])),
}


class TestVariants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True, with_device=True, without_device=True)  # pyright: ignore[reportCallIssue]
    @parameterized.named_parameters((name, name) for name in FUNCTIONS)
    def test_variants_agree(self, name):
        function, arguments = FUNCTIONS[name]
        result = self.variant(function)(*arguments)
        chex.assert_tree_all_finite(result)
        chex.assert_trees_all_close(result, function(*arguments), atol=1e-6)
