"""The algorithms of correlation by name, and the choice of the fastest of them on each platform."""

import functools
from collections.abc import Mapping
from typing import Protocol, Unpack, runtime_checkable

from jax import lax
from jaxtyping import Array

from ._cost_model import best_methods
from ._fft import fft_correlate
from ._geometry import Spacing, has_static_sizes, spacing_of
from ._im2col import im2col_correlate
from ._lax_conv import conv_correlate
from ._machine_costs import machine_costs
from ._shift import shift_correlate
from ._tpu_conv import tpu_form
from ._typing import Pads, Pair
from ._validation import check_choice

METHODS = ("auto", "conv", "shift", "im2col", "fft")
GROUPED_METHODS = ("auto", "conv")


class AlgorithmOptions(Spacing):
    """The keyword arguments of `Algorithm`."""

    channels_first: bool
    divisor: int
    precision: lax.PrecisionLike


@runtime_checkable
class Algorithm(Protocol):
    """A way to compute `correlate`, with the same arguments and the same result."""

    def __call__(
        self,
        image: Array,
        kernel: Array,
        *,
        stride: Pair,
        padding: Pads,
        dilation: Pair,
        lhs_dilation: Pair,
        channels_first: bool,
        divisor: int,
        precision: lax.PrecisionLike,
    ) -> Array: ...


ALGORITHMS: Mapping[str, Algorithm] = {
    "conv": conv_correlate,
    "shift": shift_correlate,
    "im2col": im2col_correlate,
    "fft": fft_correlate,
}


def check_method(method: str) -> str:
    """One of METHODS."""
    return check_choice("method", method, METHODS)


def transpose_method(method: str) -> str:
    """The method of derivatives. "shift" may be slow at their shapes."""
    return "auto" if method == "shift" else method


def dispatch(image: Array, kernel: Array, *, method: str, **options: Unpack[AlgorithmOptions]) -> Array:
    """`correlate` in terms of JAX's own operations, by one of ALGORITHMS or the fastest of them on each platform.

    `options` are those of `Algorithm`.
    """
    if not has_static_sizes(image, kernel):
        method = "conv"  # the symbolic batch size of jax.export, which is a number of channels in derivatives
    if method != "auto":
        return ALGORITHMS[method](image, kernel, **options)
    costs = machine_costs()
    best = best_methods(
        image.shape,
        kernel.shape,
        channels_first=options["channels_first"],
        cpu_costs=costs.cpu,
        fft_costs=costs.fft,
        **spacing_of(options),
    )
    methods = {"cpu": best.cpu, "default": best.accelerator}
    if tpu_form(image.shape, kernel.shape, precision=options["precision"], **spacing_of(options)):
        methods["tpu"] = "conv"
    if len(set(methods.values())) == 1:
        return ALGORITHMS[best.cpu](image, kernel, **options)
    functions = {platform: functools.partial(ALGORITHMS[name], **options) for platform, name in methods.items()}
    return lax.platform_dependent(image, kernel, **functions)
