"""experiments._lib.accelerator_cases: both functions of a case compute the same."""

import jax
import numpy as np
import pytest

from experiments._lib import accelerator_cases
from experiments._lib.accelerator_cases import CASES
from tests.helpers.oracles import noise

COMPARED = [name for name, case in CASES.items() if case.plain_jax]


@pytest.mark.parametrize("name", COMPARED)
def test_ours_and_plain_jax_return_the_same_shapes(name):
    case = CASES[name]
    assert case.plain_jax is not None
    ours, plain = (jax.eval_shape(function, *case.arguments) for function in (case.ours, case.plain_jax))
    assert [leaf.shape for leaf in jax.tree.leaves(ours)] == [leaf.shape for leaf in jax.tree.leaves(plain)]


@pytest.mark.parametrize("score", ["match", "zncc"])
def test_scores_in_plain_jax_are_those_of_the_library(score):
    images, features = noise(0, 3, 12, 11), noise(1, 2, 4, 3)
    (case,) = [case for name, case in CASES.items() if name.startswith(f"{score} 1x")]
    assert case.plain_jax is not None
    ours, plain = (jax.jit(function)(images, features) for function in (case.ours, case.plain_jax))
    np.testing.assert_allclose(plain, ours, atol=1e-5)


def test_a_training_step_in_plain_jax_is_that_of_the_library():
    case = accelerator_cases.training_case(2, 8, 1, (4,), np.float32)
    assert case.plain_jax is not None
    params, state, images, labels = case.arguments
    params = jax.tree.map(lambda leaf: noise(0, *leaf.shape), params)
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state)
    arguments = params, state, noise(1, *images.shape), np.zeros(labels.shape, np.int32)
    ours, plain = (jax.jit(function)(*arguments) for function in (case.ours, case.plain_jax))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
