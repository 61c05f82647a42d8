"""Optimizer wrappers that keep slow weights (EMA, Lookahead), and the dimension numbers that Muon needs."""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jaxtyping import Array, Float, Int, PyTree

from ._dtypes import accumulation_dtype
from ._fit_arguments import check_optimizer
from ._validation import check_int, check_number

__all__ = ["SlowWeightsState", "lookahead", "muon_dimension_numbers", "with_ema"]


def muon_dimension_numbers(params: PyTree) -> PyTree:
    """The dimension numbers of all kernels, for `optax.contrib.muon`, which optimizes matrices.

    A kernel of `Conv` or the features of `Match`, (h, w, C, K), is a matrix of h w C rows and K columns. Other
    parameters have no dimension numbers; Muon leaves them to Adam.

    Args:
      params: the parameters of a network.

    Returns:
      A tree like `params`, of `optax.contrib.MuonDimensionNumbers` and None.

    Notes:
      The kernel of a grouped convolution is taken as one matrix, although each group has a matrix of its channels only.
      Adam is the better choice for it.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024),
    https://kellerjordan.github.io/posts/muon/

    Example:

    >>> optimizer = optax.contrib.muon(0.01, muon_weight_dimension_numbers=muon_dimension_numbers)
    >>> muon_dimension_numbers({"conv1": {"kernel": jnp.zeros((3, 3, 1, 8)), "bias": jnp.zeros(8)}})["conv1"]["kernel"]
    MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)
    """
    kernel_numbers = optax.contrib.MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)
    return jax.tree.map(lambda leaf: kernel_numbers if leaf.ndim == 4 else None, params)


def with_ema(
    optimizer: optax.GradientTransformation, *, decay: float, steps: int
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimizer: after `steps` updates the parameters become their exponential moving average.

        average <- d average + (1 - d) parameters,  d = min(decay, (1 + t) / (10 + t)) at step t

    The averages of 16-bit parameters are kept in float32.

    Args:
      optimizer: an optax optimizer.
      decay: the largest weight of the old average, at least 0 and less than 1.
      steps: the number of updates, that of the whole training.

    Returns:
      An optax optimizer. `fit` calibrates BatchNorm for the averaged parameters. After a training loop of your own,
      pass them to `calibrate`.

    Raises:
      ValueError: decay is not in [0, 1), or steps is below 1.
      TypeError: optimizer is not an optax optimizer, decay is not a number, or steps is not an int.

    Source: the decay grows as in TensorFlow's `ExponentialMovingAverage` with `num_updates`,
    https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage

    Example:

    >>> optimizer = with_ema(optax.sgd(1.0), decay=0.5, steps=1)
    >>> state = optimizer.init(jnp.array(0.0))
    >>> update, state = optimizer.update(jnp.array(-1.0), state, jnp.array(0.0))
    >>> round(float(update), 3)  # d = 2 / 11, so the average of 0 and 1 is 9 / 11
    0.818
    """
    steps = check_int("steps", steps)
    decay = check_number("decay", decay, "a number of at least 0 and less than 1", lambda decay: 0 <= decay < 1)

    def update_slow(step: Array, slow: Array, fast: Array) -> tuple[Array, Array]:
        t = step.astype(slow.dtype)
        d = jnp.minimum(decay, (1 + t) / (10 + t))
        slow = d * slow + (1 - d) * fast
        return slow, jnp.where(step >= steps, slow, fast)

    return _with_slow_weights(optimizer, update_slow)


def lookahead(
    optimizer: optax.GradientTransformation, *, sync_period: int = 5, slow_step_size: float = 0.5
) -> optax.GradientTransformationExtraArgs:
    """Lookahead: adds slow weights, which follow the optimizer's fast weights.

    Every `sync_period` steps, slow weights move towards the fast ones; then the fast weights are set to the slow ones.

        slow <- slow + slow_step_size (parameters - slow),  parameters <- slow

    Unlike `optax.lookahead`, it works on plain parameters. The slow weights of 16-bit parameters are kept in float32.

    Args:
      optimizer: an optax optimizer, which updates the fast weights.
      sync_period: the number of steps between two resets.
      slow_step_size: the fraction of the way that the slow weights move, above 0 and at most 1.

    Returns:
      An optax optimizer.

    Raises:
      ValueError: sync_period is below 1, or slow_step_size is not in (0, 1].
      TypeError: optimizer is not an optax optimizer, sync_period is not an int, or slow_step_size is not a number.

    Source: Zhang, Lucas, Hinton and Ba, "Lookahead Optimizer: k steps forward, 1 step back" (2019),
    https://arxiv.org/abs/1907.08610

    Example:

    >>> optimizer = lookahead(optax.sgd(1.0), sync_period=1, slow_step_size=0.5)
    >>> state = optimizer.init(jnp.array(0.0))
    >>> update, state = optimizer.update(jnp.array(-1.0), state, jnp.array(0.0))
    >>> float(update)  # half the way from 0 to 1
    0.5
    """
    sync_period = check_int("sync_period", sync_period)
    slow_step_size = check_number(
        "slow_step_size", slow_step_size, "a number above 0 and at most 1", lambda size: 0 < size <= 1
    )

    def update_slow(step: Array, slow: Array, fast: Array) -> tuple[Array, Array]:
        is_sync = step % sync_period == 0
        slow = jnp.where(is_sync, slow + slow_step_size * (fast - slow), slow)
        return slow, jnp.where(is_sync, slow, fast)

    return _with_slow_weights(optimizer, update_slow)


class SlowWeightsState(NamedTuple):
    """The state of an optimizer that keeps slow weights."""

    step: Int[Array, ""]
    slow: PyTree
    inner: optax.OptState


@runtime_checkable
class _UpdateSlow(Protocol):
    """Returns the slow and the fast weights after a step, from those before and after the inner optimizer's update."""

    def __call__(
        self, step: Int[Array, ""], slow: Float[Array, "..."], fast: Float[Array, "..."]
    ) -> tuple[Float[Array, "..."], Float[Array, "..."]]: ...


def _with_slow_weights(
    optimizer: optax.GradientTransformation, update_slow: _UpdateSlow
) -> optax.GradientTransformationExtraArgs:
    check_optimizer(optimizer)
    inner_optimizer = optax.with_extra_args_support(optimizer)

    def init(params: PyTree) -> SlowWeightsState:
        slow = jax.tree.map(jnp.copy, _accumulable(params))
        return SlowWeightsState(step=jnp.zeros((), jnp.int32), slow=slow, inner=inner_optimizer.init(params))

    def update(
        updates: PyTree, state: PyTree, params: PyTree = None, **extra: object
    ) -> tuple[PyTree, SlowWeightsState]:
        if params is None:
            raise ValueError("params: expected the parameters, got None")
        inner_updates, inner = inner_optimizer.update(updates, state.inner, params, **extra)
        step = state.step + 1
        fast = _accumulable(optax.apply_updates(params, inner_updates))
        slow_leaves, structure = jax.tree.flatten(state.slow)
        weights = zip(slow_leaves, jax.tree.leaves(fast), strict=True)
        pairs = [update_slow(step, slow_leaf, fast_leaf) for slow_leaf, fast_leaf in weights]
        slow = structure.unflatten([slow_leaf for slow_leaf, _ in pairs])
        fast = structure.unflatten([fast_leaf for _, fast_leaf in pairs])
        return jax.tree.map(_difference, fast, params), SlowWeightsState(step=step, slow=slow, inner=inner)

    return optax.GradientTransformationExtraArgs(init, update)


def _difference(new: Array, old: Array) -> Array:
    """The update from old to new parameters, in the dtype of the old ones."""
    return (new - old.astype(new.dtype)).astype(old.dtype)


def _accumulable(params: PyTree) -> PyTree:
    """Parameters in the dtype to accumulate in: in 16 bits, relative updates below about 1 % are lost."""
    return jax.tree.map(lambda leaf: leaf.astype(accumulation_dtype(leaf.dtype)), params)
