"""The small network of the training benchmarks, in cnn_jax and in plain JAX.

A stage is a 3x3 convolution with bias that keeps the size, ReLU and 2x2 max-pooling. After the stages a dense layer
gives CLASSES logits. A training step is SGD with momentum on the mean cross-entropy of the batch.

Every library's network has a call for each task. "inference" returns the logits (N, CLASSES). "train_step" makes a
step from where the last one ended and returns the first bias, which depends on the whole backward pass.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

import cnn_jax

from .baselines_layers import plain_jax_conv, plain_jax_pool
from .benchmark import Call, compiled_call

CLASSES = 10
LEARNING_RATE = 0.01
MOMENTUM = 0.9

Calls = Mapping[str, Call]
Apply = Callable[[Any, jax.Array], jax.Array]
Step = Callable[..., tuple[Any, Any]]


class Problem(NamedTuple):
    """The data and the initial parameters that all libraries share."""

    images: np.ndarray
    labels: np.ndarray
    features: Sequence[int]
    """Features of every stage."""
    params: Any
    """Parameters of `network`."""


def make_problem(images: int, size: int, channels: int, features: Sequence[int]) -> Problem:
    """Images of noise, random labels, and initial parameters."""
    generator = np.random.default_rng(0)
    pixels = generator.uniform(-1, 1, (images, size, size, channels)).astype(np.float32)
    params = network(features).init(jax.random.key(0), pixels.shape[1:])
    labels = generator.integers(CLASSES, size=images)
    return Problem(pixels, labels, features, jax.tree.map(np.asarray, params))


def network(features: Sequence[int]) -> cnn_jax.Layer:
    """The network in cnn_jax."""
    stages = [
        (cnn_jax.Conv(count, 3, padding="SAME"), cnn_jax.Activation(jax.nn.relu), cnn_jax.MaxPool())
        for count in features
    ]
    return cnn_jax.Chain(*itertools.chain(*stages), cnn_jax.Flatten(), cnn_jax.Dense(CLASSES))


def ours(problem: Problem) -> Calls:
    """cnn_jax: one image under vmap."""
    apply = jax.vmap(network(problem.features).apply, (None, 0))
    return jax_calls(apply, problem.params, problem, _first_bias)


def ours_scanned(problem: Problem, steps: int) -> Call:
    """`steps` training steps of cnn_jax in one `lax.scan`."""
    return _scanned(jax.vmap(network(problem.features).apply, (None, 0)), problem, steps)


def plain_jax(problem: Problem) -> Calls:
    """JAX without a library, as in its tutorials."""
    return jax_calls(plain_jax_network, problem.params, problem, _first_bias)


def plain_jax_scanned(problem: Problem, steps: int) -> Call:
    """`steps` training steps of plain JAX in one `lax.scan`."""
    return _scanned(plain_jax_network, problem, steps)


def plain_jax_network(params: Any, x: jax.Array) -> jax.Array:
    """`network` in JAX without a library, for a batch of images; the number of stages is that of the parameters."""
    for i in range(1, len(params)):
        stage = params[f"conv{i}"]
        x = plain_jax_conv(x, stage["kernel"])
        x = jax.nn.relu(x + stage["bias"].reshape(1, 1, 1, -1))
        x = plain_jax_pool(x)
    return x.reshape(len(x), -1) @ params["dense1"]["kernel"] + params["dense1"]["bias"].reshape(1, -1)


def _first_bias(params: Any) -> Any:
    return params["conv1"]["bias"]


def jax_calls(apply: Apply, params: Any, problem: Problem, result: Callable[[Any], Any]) -> Calls:
    """The calls of a network in JAX: `apply(params, images)` gives logits, `result(params)` the first bias."""
    return {
        "inference": compiled_call(apply, jax.device_put(params), jax.device_put(problem.images)),
        "train_step": _stateful_call(sgd_step(apply), params, problem, result),
    }


def _scanned(apply: Apply, problem: Problem, steps: int) -> Call:
    step = sgd_step(apply)

    def run(params: Any, state: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, Any]:
        return lax.scan(lambda carry, _: (step(*carry, images, labels), None), (params, state), length=steps)[0]

    return _stateful_call(run, problem.params, problem, _first_bias)


def optimizer() -> optax.GradientTransformation:
    """SGD with momentum."""
    return optax.sgd(LEARNING_RATE, MOMENTUM)


def sgd_step(apply: Apply) -> Step:
    """A function (params, optimizer's state, images, labels) -> (params, state) that makes one training step."""

    def step(params: Any, state: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, Any]:
        def loss(params: Any) -> jax.Array:
            return optax.softmax_cross_entropy_with_integer_labels(apply(params, images), labels).mean()

        change, state = optimizer().update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, change), state

    return step


def in_dtype(apply: Apply, dtype: Any) -> Apply:
    """A network that computes in a dtype; parameters, images and logits are float32."""

    def run(params: Any, images: jax.Array) -> jax.Array:
        params, images = jax.tree.map(lambda leaf: leaf.astype(dtype), (params, images))
        return apply(params, images).astype(jnp.float32)

    return run


def _stateful_call(step: Step, params: Any, problem: Problem, result: Callable[[Any], Any]) -> Call:
    """A call that makes a step from where the last one ended."""
    step = jax.jit(step, donate_argnums=(0, 1))
    params = jax.tree.map(jnp.array, params)
    params_and_state = (params, optimizer().init(params))
    data = jax.device_put((problem.images, problem.labels))

    def call() -> Any:
        nonlocal params_and_state
        params_and_state = jax.block_until_ready(step(*params_and_state, *data))
        return result(params_and_state[0])

    return call
