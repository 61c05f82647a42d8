"""The methods of cnn_jax's convolution, for benchmarks."""

from collections.abc import Sequence

import jax

from cnn_jax import _algorithms, _cost_model
from cnn_jax._geometry import Spacing
from cnn_jax._typing import Shape

METHODS = _algorithms.METHODS
NO_SPACING = Spacing(stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), lhs_dilation=(1, 1))
# Pixels in a window for which shifted sums compile in reasonable time.
MAX_SHIFT_PRODUCTS = _cost_model.CPU_COSTS.shift_max_products
MAX_IM2COL_NUMBERS = _cost_model.CPU_COSTS.im2col_max_numbers  # in the unfolded patches of an image


def chosen_method(images: Sequence[int], window: Sequence[int], features: int) -> str:
    """The method that "auto" takes on this device for images (N, H, W) and features of h by w pixels."""
    return method_for((*images, 1), (*window, 1, features), channels_first=True)


def method_for(images: Shape, kernels: Shape, *, channels_first: bool) -> str:
    """The method that "auto" takes on this device for images (N, H, W, C) and kernels (h, w, C, K)."""
    best = _cost_model.best_methods(images, kernels, channels_first=channels_first, **NO_SPACING)
    return best.cpu if jax.default_backend() == "cpu" else best.accelerator


def cpu_times_ns(images: Shape, kernels: Shape) -> dict[str, float]:
    """What the cost model expects of each method on a CPU. Accelerators are expected to take fractions of it."""
    return _cost_model.cpu_times_ns(images, kernels, channels_first=False, **NO_SPACING)
