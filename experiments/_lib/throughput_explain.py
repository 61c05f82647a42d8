"""Cases of `experiments.throughput` for occlusion maps: all covered images in one batch, or one after the other."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

import cnn_jax
from cnn_jax import explain, nets

from .benchmark import BenchmarkCase, Call

WINDOW = 5  # pixels along each side of the covered square
BLACK = -1.0


class OcclusionCase(NamedTuple):
    """A network of `cnn_jax.nets` and a square image.

    For each pixel, there is a copy of the image in which the square around it is covered.
    """

    network: str
    side: int

    def __str__(self) -> str:
        return f"{self.side**2}x{self.side}x{self.side}, {self.network}"


CASES = (OcclusionCase("xo_net", 28), OcclusionCase("lenet5", 28))
QUICK_CASES = (OcclusionCase("xo_net", 8),)


def occlusion_benchmark(task: str, case: OcclusionCase, modules: Mapping[str, Any], threads: int) -> BenchmarkCase:
    """`cnn_jax.explain.occlusion`, and a loop that applies the network to one covered image at a time."""
    net = getattr(nets, case.network)()
    shape = (case.side, case.side, 1)
    params = jax.jit(lambda key: net.init(key, shape))(jax.random.key(0))
    image = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    occlusion = jax.jit(functools.partial(explain.occlusion, net, label=0, window=WINDOW))
    return BenchmarkCase(
        ours=lambda: jax.block_until_ready(occlusion(params, image)),
        baselines={"jax loop": occlusion_loop(net, params, image)},
        cost=cnn_jax.cost(occlusion, params, image),
        images=case.side**2,
    )


def occlusion_loop(net: cnn_jax.Layer, params: Any, image: np.ndarray) -> Call:
    """How much the first logit falls when a square around each pixel is covered, one image at a time."""
    apply = jax.jit(net.apply)
    reach = WINDOW // 2

    def loop() -> np.ndarray:
        logits = np.empty(image.shape[:2], np.float32)
        for y, x in np.ndindex(*logits.shape):
            covered = image.copy()
            covered[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1] = BLACK
            logits[y, x] = apply(params, covered)[0]
        return apply(params, image)[0] - logits

    return loop
