"""The methods of cnn_jax's convolution, for benchmarks."""

from collections.abc import Sequence

import jax

from cnn_jax import _algorithms, _cost_model

METHODS = _algorithms.METHODS
# Pixels in a window for which shifted sums compile in reasonable time.
MAX_SHIFT_PRODUCTS = _cost_model.CPU_COSTS.shift_max_products
MAX_IM2COL_NUMBERS = _cost_model.CPU_COSTS.im2col_max_numbers  # in the unfolded patches of an image


def chosen_method(images: Sequence[int], window: Sequence[int], features: int) -> str:
    """The method that "auto" takes on this device for images (N, H, W) and features of h by w pixels."""
    on_cpu, on_accelerator = _cost_model.best_methods(
        (*images, 1),
        (*window, 1, features),
        stride=(1, 1),
        padding=((0, 0), (0, 0)),
        dilation=(1, 1),
        lhs_dilation=(1, 1),
        channels_first=True,
    )
    return on_cpu if jax.default_backend() == "cpu" else on_accelerator
