"""Functions that compare by their contents: never equal where they may compute something else."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from cnn_jax import optimizers
from cnn_jax._contents import Contents
from cnn_jax.layers import Conv

FACTOR = 2
SETTINGS = types.SimpleNamespace(factor=2)


def equal(make):
    """Whether a function made twice is equal to itself."""
    first, second = Contents(make()), Contents(make())
    assert first.value is not second.value
    return first == second and hash(first) == hash(second)


def scaled_by(factor, offset=0.0):
    def scaled(x, *, power=1):
        return (factor * x + offset) ** power

    return scaled


def helper(x):
    return FACTOR * x


@pytest.mark.parametrize(
    "make",
    [
        lambda: optax.adamw(1e-3),
        lambda: optax.sgd(optax.cosine_decay_schedule(0.1, 100), momentum=0.9, nesterov=True),
        lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.apply_if_finite(optax.adam(1e-3), 5)),
        lambda: optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
        lambda: optax.partition({"a": optax.sgd(0.1)}, lambda params: params),
        lambda: optax.contrib.muon(0.1, muon_weight_dimension_numbers=optimizers.muon_dimension_numbers),
        lambda: scaled_by(2),
        lambda: functools.partial(helper, 3),
        lambda: lambda x: jnp.sum(helper(x)) + FACTOR,
        lambda: lambda x: [jax.nn.relu(x) for _ in range(FACTOR)],
        lambda: functools.partial(lambda net, x: net, Conv(2, 3)),
    ],
)
def test_functions_made_anew_of_equal_values_are_equal(make):
    assert equal(make)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (optax.adam(1e-3), optax.adam(1e-4)),
        (scaled_by(2), scaled_by(3)),
        (scaled_by(2), scaled_by(2.0)),
        (scaled_by(0.0), scaled_by(-0.0)),
        (scaled_by(1), scaled_by(True)),
        (scaled_by(2), scaled_by(2, 1.0)),
        (scaled_by((2,)), scaled_by((3,))),
        (scaled_by(jnp.ones(2)), scaled_by(jnp.ones(2))),
        (scaled_by(np.ones(2)), scaled_by(np.ones(2))),
        (functools.partial(helper, 2), functools.partial(helper, 3)),
        (lambda x: x + 1, lambda x: x + 1),
        (scaled_by(2), helper),
    ],
)
def test_functions_of_other_values_or_code_are_not_equal(first, second):
    assert Contents(first) != Contents(second)
    assert Contents(first) == Contents(first)


@pytest.mark.parametrize(
    "make", [lambda: lambda x: SETTINGS.factor * x, lambda: scaled_by([2]), lambda: scaled_by({2})]
)
def test_functions_of_values_that_may_change_are_equal_to_themselves_only(make):
    assert not equal(make)


def test_a_global_variable_that_changed_makes_another_function(monkeypatch):
    before = Contents(helper), Contents(lambda x: helper(x))
    monkeypatch.setitem(globals(), "FACTOR", 3)
    assert before[0] != Contents(helper)
    assert Contents(helper) == Contents(helper)


def test_a_variable_that_changed_later_makes_another_function():
    factor = 2

    def scaled(x):
        return factor * x

    kept = Contents(scaled)

    def unrelated(factor):
        return types.FunctionType(scaled.__code__, globals(), closure=(types.CellType(factor),))

    assert Contents(unrelated(2)) == kept
    factor = 3
    assert Contents(unrelated(2)) != kept  # traced again, `kept` would compute with 3


def test_a_function_that_counts_its_calls_stays_equal_to_itself():
    calls = 0

    def counted(x):
        nonlocal calls
        calls += 1
        return x

    before = Contents(counted)
    counted(1)
    assert before == Contents(counted)


def test_functions_that_refer_to_themselves():
    def make(step):
        def count(x):
            return x if x < 1 else count(x - step)

        return count

    assert Contents(make(1)) == Contents(make(1))
    assert Contents(make(1)) != Contents(make(2))


def test_a_variable_without_a_value_is_no_error():
    def early():
        return late

    contents = Contents(early)
    assert contents == Contents(early)
    if FACTOR < 0:
        late = 1
