"""What optax's optimizers need to know about networks, and two that keep slow copies of the parameters."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jaxtyping import Array

from ._dtypes import accumulation_dtype
from ._validation import check_int, check_number

UpdateSlow = Callable[[Array, Array, Array], tuple[Array, Array]]


def muon_dimension_numbers(params: Any) -> Any:
    """Says which parameters are kernels (of `Conv`, features of `Match`): matrices of h w C rows, K columns to Muon.

    For `optax.contrib.muon(rate, muon_weight_dimension_numbers=muon_dimension_numbers)`, which leaves the rest to Adam. The kernels of
    a grouped convolution are taken as one matrix too, though every group is one by itself: better leave them to Adam.

    >>> muon_dimension_numbers({"conv1": {"kernel": jnp.zeros((3, 3, 1, 8)), "bias": jnp.zeros(8)}})["conv1"]["kernel"]
    MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)
    """
    rows_and_columns = optax.contrib.MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)
    return jax.tree.map(lambda leaf: rows_and_columns if leaf.ndim == 4 else None, params)


def with_ema(
    optimizer: optax.GradientTransformation, *, decay: float, steps: int
) -> optax.GradientTransformationExtraArgs:
    """An optimizer that ends, after `steps` of them, at the exponential moving average of all parameters on the way.

        average <- d average + (1 - d) parameters,  d = min(decay, (1 + t) / (10 + t)) at step t

    With BatchNorm, `calibrate` after it. Raises a ValueError for a decay that is not in [0, 1).

    Source: the decay grows as in TensorFlow's ExponentialMovingAverage with `num_updates`.

    >>> rule = with_ema(optax.sgd(0.1), decay=0.99, steps=100)
    """
    steps = check_int("steps", steps)
    decay = check_number("decay", decay, "a number of at least 0 and less than 1", lambda decay: 0 <= decay < 1)

    def update_slow(step: Array, slow: Array, fast: Array) -> tuple[Array, Array]:
        t = step.astype(slow.dtype)
        d = jnp.minimum(decay, (1 + t) / (10 + t))
        slow = d * slow + (1 - d) * fast
        return slow, jnp.where(step >= steps, slow, fast)

    return _with_slow(optimizer, update_slow)


def lookahead(
    optimizer: optax.GradientTransformation, *, sync_period: int = 5, slow_step_size: float = 0.5
) -> optax.GradientTransformationExtraArgs:
    """An optimizer that is set back every few steps to slow parameters, which come a part of the way towards it first.

        slow <- slow + slow_step_size (parameters - slow),  parameters <- slow,  every `sync_period` steps

    Unlike `optax.lookahead` it takes and gives plain parameters. Raises a ValueError for a slow_step_size that is not in (0, 1].

    Source: Zhang, Lucas, Hinton and Ba, "Lookahead Optimizer: k steps forward, 1 step back" (2019).

    >>> rule = lookahead(optax.sgd(0.1), sync_period=5, slow_step_size=0.5)
    """
    sync_period = check_int("sync_period", sync_period)
    slow_step_size = check_number(
        "slow_step_size", slow_step_size, "a number above 0 and at most 1", lambda value: 0 < value <= 1
    )

    def update_slow(step: Array, slow: Array, fast: Array) -> tuple[Array, Array]:
        now = step % sync_period == 0
        slow = jnp.where(now, slow + slow_step_size * (fast - slow), slow)
        return slow, jnp.where(now, slow, fast)

    return _with_slow(optimizer, update_slow)


class SlowWeightsState(NamedTuple):
    """The state of an optimizer that keeps slow parameters."""

    step: Array
    slow: Any
    inner: Any


def _with_slow(
    optimizer: optax.GradientTransformation, update_slow: UpdateSlow
) -> optax.GradientTransformationExtraArgs:
    if not hasattr(optimizer, "update"):
        raise TypeError(f"optimizer: expected one of optax's, got {optimizer!r}")
    inner = optax.with_extra_args_support(optimizer)

    def init(params: Any) -> SlowWeightsState:
        return SlowWeightsState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, _wide(params)), inner.init(params))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, SlowWeightsState]:
        if params is None:
            raise ValueError("params: expected the parameters, got None")
        change, own = inner.update(updates, state.inner, params, **extra)
        step = state.step + 1
        fast = optax.apply_updates(params, change)
        both = [update_slow(step, *pair) for pair in zip(*map(jax.tree.leaves, (state.slow, _wide(fast))), strict=True)]
        slow, fast = (jax.tree.unflatten(jax.tree.structure(params), [pair[i] for pair in both]) for i in (0, 1))
        change = jax.tree.map(lambda fast, old: (fast - old.astype(fast.dtype)).astype(old.dtype), fast, params)
        return change, SlowWeightsState(step, slow, own)

    return optax.GradientTransformationExtraArgs(init, update)


def _wide(params: Any) -> Any:
    """Parameters in the dtype to add up in: 16 bits do not see a hundredth of themselves."""
    return jax.tree.map(lambda leaf: leaf.astype(accumulation_dtype(leaf.dtype)), params)
