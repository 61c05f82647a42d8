"""Every function of arrays and its derivatives, for each image of a batch, in float32 beside float64.

XLA:CPU computes wrong numbers in some programs of this kind: see test_wrong_programs. This process has the settings of
`configure_cpu`; the last test runs the others in one that has XLA's own.
"""

import itertools
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.public_functions import CASES, DRAWN, Case, images_of, loss_of

TOLERANCE = 1e-3  # of the largest magnitude of an array
FAST_CASES = ("conv_auto", "zncc", "max_pool", "net")


def norm_of(case: Case) -> Any:
    """The Euclidean norm of all floats that a function returns."""

    def norm(image: Any, param: Any) -> Any:
        leaves = jax.tree.leaves(case.function(image, param))
        return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)) + 1e-6)

    return norm


def norms(case: Case) -> Any:
    return norm_of(case)


def gradients(case: Case) -> Any:
    return jax.grad(loss_of(case), (0, 1))


def gradients_of_norms(case: Case) -> Any:
    return jax.grad(norm_of(case), (0, 1))


def second_derivatives(case: Case) -> Any:
    """The derivative of the gradient along a direction."""

    def along(image: Any, param: Any) -> Any:
        direction = jax.tree.map(jnp.cos, (image, param))
        return jax.jvp(jax.grad(loss_of(case), (0, 1)), (image, param), direction)[1]

    return along


QUANTITIES = (norms, gradients, gradients_of_norms, second_derivatives)
CELLS = [
    pytest.param(name, quantity, marks=() if name in FAST_CASES else pytest.mark.slow, id=f"{name}-{quantity.__name__}")
    for name, quantity in itertools.product(CASES, QUANTITIES)
    if name not in DRAWN and (quantity is norms or CASES[name].has_gradient)
]


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize(("name", "quantity"), CELLS)
def test_float32_is_as_float64(name, quantity):
    case = CASES[name]
    images = images_of(case)

    def run(images: Any, param: Any) -> Any:
        return jax.jit(jax.vmap(quantity(case), (0, None)))(images, param)

    got = run(images, case.param)
    with jax.enable_x64(True):
        expected = run(*jax.tree.map(lambda leaf: leaf.astype(np.float64), (images, case.param)))
    for actual, desired in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        scale = float(np.abs(desired).max())
        np.testing.assert_allclose(actual, desired, rtol=0, atol=TOLERANCE * max(scale, 1e-2))


@pytest.mark.slow
def test_float32_is_as_float64_with_the_settings_of_xla():
    """Without second derivatives, which take minutes to compile."""
    chosen = f"{__file__}::test_float32_is_as_float64"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "", "-k", "not second_derivatives", chosen]
    environment = os.environ | {"CNN_JAX_TEST_CPU": "default", "XLA_FLAGS": ""}  # not the flag of this process
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
