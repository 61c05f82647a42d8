"""Correlations whose times tell what the algorithms cost on a machine."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from cnn_jax import _correlate, _cost_model

from .benchmark import Call, compiled_call

METHODS = ("conv", "shift", "im2col", "fft")
KERNEL_GRADIENT = "kernels' gradient"
UNSPACED = {"stride": (1, 1), "dilation": (1, 1), "lhs_dilation": (1, 1)}


class Probe(NamedTuple):
    """A correlation of images (N, H, W, C) and kernels (h, w, C, K)."""

    kind: str
    """What it is a part of. In the gradient of kernels, images and channels change places."""
    image: tuple[int, ...]
    kernel: tuple[int, ...]
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    channels_first: bool = False

    def __str__(self) -> str:
        return f"{self.kind}: {'x'.join(map(str, self.image))}, {'x'.join(map(str, self.kernel))}"

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of the cost model."""
        return {"padding": self.padding, "channels_first": self.channels_first, **UNSPACED}


# Images and features of a layer: images, side, channels, side of a kernel, features.
LAYERS = (
    (256, 28, 1, 3, 16),
    (256, 16, 1, 3, 8),
    (64, 28, 1, 5, 32),
    (128, 32, 3, 3, 32),
    (128, 24, 4, 3, 8),
    (256, 8, 8, 3, 16),
    (16, 48, 8, 5, 8),
    (256, 14, 16, 3, 32),
    (16, 64, 16, 3, 16),
    (128, 16, 32, 3, 64),
    (1, 64, 32, 3, 32),
    (256, 8, 64, 3, 128),
    (256, 4, 128, 3, 64),
    (1, 16, 1, 3, 8),
    (1, 28, 1, 5, 6),
    (1, 8, 8, 3, 16),
    (2, 32, 3, 3, 32),
    (1, 16, 32, 3, 32),
)
# Maps of scores: images, side, side of a feature, features.
MAPS = (
    (256, 28, 3, 16),
    (64, 64, 5, 16),
    (8, 256, 9, 8),
    (2, 512, 13, 4),
    (1, 1024, 19, 2),
    (2, 512, 33, 8),
    (1, 1024, 64, 1),
    (1, 2048, 31, 1),
    (16, 128, 17, 4),
    (1, 20, 9, 1),
    (1, 64, 5, 4),
    (1, 64, 21, 1),
    (1, 128, 9, 8),
)


def probes() -> Iterator[Probe]:
    """Forward passes of layers, both of their gradients, and maps of scores."""
    for images, side, channels, window, features in LAYERS:
        before, after = (window - 1) // 2, window // 2
        same = ((before, after), (before, after))
        yield Probe("layer", (images, side, side, channels), (window, window, channels, features), same)
        yield Probe("images' gradient", (images, side, side, features), (window, window, features, channels), same)
        yield Probe(KERNEL_GRADIENT, (channels, side, side, images), (side, side, images, features), same)
    for images, side, window, features in MAPS:
        yield Probe("maps", (images, side, side, 1), (window, window, 1, features), channels_first=True)


def calls(probe: Probe, max_times_best: float) -> dict[str, Call]:
    """A probe by every method whose predicted time is within a factor of the best one's."""
    times = _cost_model.cpu_times_ns(probe.image, probe.kernel, **probe.options)
    generator = np.random.default_rng(0)
    image, kernel = (generator.uniform(-1, 1, shape).astype(np.float32) for shape in (probe.image, probe.kernel))
    if probe.kind == KERNEL_GRADIENT:
        image, kernel = image.transpose(3, 1, 2, 0), kernel.transpose(2, 0, 1, 3)
    operands = jax.device_put((image, kernel))
    return {
        method: compiled_call(correlation(probe, method), *operands)
        for method in METHODS
        if times.get(method, np.inf) <= max_times_best * min(times.values())
    }


def correlation(probe: Probe, method: str) -> Any:
    """The function of a probe by a method; of a gradient of kernels that of a batch (N, H, W, C) and (N, H', W', K)."""

    def correlate(image: jax.Array, kernel: jax.Array) -> jax.Array:
        if probe.kind == KERNEL_GRADIENT:
            image, kernel = image.transpose(3, 1, 2, 0), kernel.transpose(1, 2, 0, 3)
        return _correlate.correlate(image, kernel, method=method, precision=None, **probe.options)

    return correlate


def tile(probe: Probe) -> tuple[int, int]:
    """Rows and columns of the tiles that "fft" cuts a probe's images into."""
    return _cost_model.fft_plan(*shapes(probe)).tile


def shapes(probe: Probe) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Images and kernels as the cost model of "fft" takes them."""
    return _cost_model.transformed_shapes(probe.image, probe.kernel, padding=probe.padding, **UNSPACED)
