"""Injected hyperparameters: found in any optimizer's state, and compared with those of an earlier run."""

import jax.numpy as jnp
import optax

from cnn_jax._hyperparameters import changed_hyperparameters, injected_hyperparameters, take_leaves

PARAMS = {"hyperparams": {"learning_rate": jnp.zeros(2)}}  # names of parameters do not count


def state(rate):
    return optax.chain(
        optax.clip(1.0), optax.inject_hyperparams(optax.sgd)(learning_rate=rate, momentum=0.9), optax.scale_by_adam()
    ).init(PARAMS)


def test_hyperparameters_are_found_within_other_states():
    assert injected_hyperparameters(state(0.5)) == {
        "1/hyperparams/learning_rate": 0.5,
        "1/hyperparams/momentum": float(jnp.float32(0.9)),
    }
    assert injected_hyperparameters(optax.adam(0.1).init(PARAMS)) == {}


def test_those_that_differ_are_described_by_their_values():
    previous = injected_hyperparameters(state(0.25))
    changed = changed_hyperparameters(state(0.5), previous)
    assert changed == {"1/hyperparams/learning_rate": "learning_rate 0.25 -> 0.5"}
    assert changed_hyperparameters(state(0.5), {}) == {}
    assert changed_hyperparameters(state(0.25), previous) == {}


def test_only_the_named_leaves_are_taken():
    taken = take_leaves(state(0.25), state(0.5), {"1/hyperparams/learning_rate": "changed"})
    assert injected_hyperparameters(taken) == injected_hyperparameters(state(0.5))
    assert taken[2].mu is not None
