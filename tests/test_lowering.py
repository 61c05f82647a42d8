"""Public functions compile for platforms that this machine does not have, and are exported for all of them at once."""

from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax as cnn
from cnn_jax._algorithms import METHODS
from cnn_jax.warping import affine, elastic
from tests.helpers.oracles import noise

PLATFORMS = ("cpu", "cuda", "tpu")
IMAGES, FEATURES = noise(0, 3, 8, 8), noise(1, 4, 3, 3)
IMAGE, KERNEL = noise(2, 8, 8, 1), noise(3, 3, 3, 1, 2)
POOLS = (cnn.max_pool, cnn.min_pool, cnn.avg_pool, cnn.max_abs_pool)
WARPS = {"affine": (affine, (IMAGE, np.eye(2, 3))), "elastic": (elastic, (IMAGE, np.zeros((2, 2, 2))))}


def match_all(images, features):
    return jax.vmap(lambda image: jax.vmap(partial(cnn.match, image))(features))(images)


FUNCTIONS = (
    {f"conv {method}": (partial(cnn.conv, method=method), (IMAGE, KERNEL)) for method in METHODS}
    | {pool.__name__: (partial(pool, padding="CEIL", window=3), (IMAGE,)) for pool in POOLS}
    | {"window_sum": (partial(cnn.window_sum, window=3), (IMAGE,)), "match": (match_all, (IMAGES, FEATURES))}
    | WARPS
)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_export_serves_all_platforms(name):
    function, arguments = FUNCTIONS[name]
    exported = jax.export.export(jax.jit(function), platforms=PLATFORMS)(*arguments)
    assert exported.platforms == PLATFORMS
    np.testing.assert_allclose(exported.call(*arguments), function(*arguments), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_lower_for_every_platform(name):
    function, arguments = FUNCTIONS[name]
    traced = jax.jit(jax.grad(lambda *a: jnp.sum(function(*a) ** 2))).trace(*arguments)
    for platform in PLATFORMS:
        lowered = traced.lower(lowering_platforms=(platform,)).as_text()
        # It is fast on TPUs, slow on CPUs, and not the same in every run on GPUs.
        assert platform == "tpu" or "select_and_scatter" not in lowered
