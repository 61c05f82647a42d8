"""Functions that compare by their contents: never equal where they may compute something else."""

import functools
import types
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from cnn_jax import optimizers
from cnn_jax._contents import Contents
from cnn_jax.layers import Chain, Conv, Layer

FACTOR = 2


class Settings:
    def method(self, x, **options: Any):
        return x


class Text(str):
    """A text of a class that may print another one."""


class Doubled(Layer):
    """A user's own layer."""

    factor: float
    name = "doubled"


SETTINGS = Settings()


def equal(make):
    """Whether a function made twice is equal to itself."""
    first, second = Contents(make()), Contents(make())
    assert first.value is not second.value
    return first == second and hash(first) == hash(second)


def scaled_by(factor, offset=0.0):
    def scaled(x, *, power=1):
        return (factor * x + offset) ** power

    return scaled


def with_attribute(factor):
    def scaled(x):
        return vars(scaled)["factor"] * x

    vars(scaled)["factor"] = factor
    return scaled


def helper(x: Any, **options: Any):
    return FACTOR * x


@pytest.mark.parametrize(
    "make",
    [
        lambda: optax.adamw(1e-3),
        lambda: optax.sgd(optax.cosine_decay_schedule(0.1, 100), momentum=0.9, nesterov=True),
        lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.apply_if_finite(optax.adam(1e-3), 5)),
        lambda: optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
        lambda: optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 1e-3, 10, 100), mask=helper),
        lambda: optax.MultiSteps(optax.adam(1e-3), 2),
        lambda: optax.MultiSteps(optax.adam(1e-3), 2).gradient_transformation(),
        lambda: optax.partition({"a": optax.sgd(0.1)}, helper),
        lambda: optax.contrib.muon(0.1, muon_weight_dimension_numbers=optimizers.muon_dimension_numbers),
        lambda: functools.partial(helper, 3, scale=np.float32(2), labels=("X", {"O": None})),
        lambda: functools.partial(helper, Chain(Conv(2, 3), Doubled(2))),
        lambda: functools.partial(SETTINGS.method, dtype=np.dtype("float32"), ufunc=np.add),
    ],
)
def test_functions_made_anew_of_equal_values_are_equal(make):
    assert equal(make)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (optax.adam(1e-3), optax.adam(1e-4)),
        (functools.partial(helper, 2), functools.partial(helper, 3)),
        (functools.partial(helper, 2), functools.partial(helper, 2.0)),
        (functools.partial(helper, 1), functools.partial(helper, True)),
        (functools.partial(helper, 0.0), functools.partial(helper, -0.0)),
        (functools.partial(helper, (2,)), functools.partial(helper, (3,))),
        (functools.partial(helper, np.float32(2)), functools.partial(helper, np.int32(2))),
        (functools.partial(helper, np.float32(0)), functools.partial(helper, -np.float32(0))),
        (functools.partial(helper, jnp.ones(2)), functools.partial(helper, jnp.ones(2))),
        (functools.partial(helper, np.ones(2)), functools.partial(helper, np.ones(2))),
        (functools.partial(helper, {2}), functools.partial(helper, {2})),
        (functools.partial(helper, Doubled(2)), functools.partial(helper, Doubled(2.0))),
        (functools.partial(helper, Text("a")), functools.partial(helper, Text("a"))),
        (functools.partial(helper, {}.get), functools.partial(helper, {}.get)),
        (scaled_by(2), scaled_by(2)),
        (with_attribute(2), with_attribute(2)),
        (types.SimpleNamespace(method=1), types.SimpleNamespace(method=1)),
    ],
)
def test_functions_that_may_compute_something_else_are_not_equal(first, second):
    assert Contents(first) != Contents(second)
    assert Contents(first) == Contents(first)


def test_a_function_of_jax_in_name_only_is_a_users_own():
    def make(factor):
        return functools.wraps(jnp.tanh)(lambda x: factor * x)

    assert Contents(make(2)) != Contents(make(3))
    partials = [optax.clip_by_global_norm(1.0).update for _ in range(2)]
    vars(partials[0])["factor"] = 2
    assert Contents(partials[0]) != Contents(partials[1])


def test_a_global_variable_that_changed_makes_another_function(monkeypatch):
    before = Contents(helper), Contents(lambda x: helper(x))
    monkeypatch.setitem(globals(), "FACTOR", 3)
    assert before[0] != Contents(helper)
    assert Contents(helper) == Contents(helper)


def test_a_variable_that_changed_later_makes_another_function():
    factor = 2
    items = [2]

    def scaled(x):
        return factor * items[0] * x

    kept = Contents(scaled)
    assert kept == Contents(scaled)
    factor = 3
    assert kept != Contents(scaled)  # traced again, `kept` would compute with 3


def test_arguments_of_a_partial_function_that_changed_later_make_another_function():
    first, second = (functools.partial(helper, weights=[2]) for _ in range(2))
    kept = Contents(first)
    assert kept == Contents(second)
    first.keywords["weights"][0] = 3
    assert kept != Contents(second)  # traced again, `kept` would compute with 3


def test_a_function_that_counts_its_calls_stays_equal_to_itself():
    calls = 0

    def counted(x):
        nonlocal calls
        calls += 1
        return x

    before = Contents(counted)
    counted(1)
    assert before == Contents(counted)


def test_a_function_that_refers_to_itself():
    def count(x):
        return x if x < 1 else count(x - 1)

    assert Contents(count) == Contents(count)


def test_a_variable_without_a_value_is_no_error():
    def early():
        return late

    contents = Contents(early)
    assert contents == Contents(early)
    if FACTOR < 0:
        late = 1
