"""Baselines of training and inference: the network of `benchmark_network` in Equinox, Flax and PyTorch.

A builder takes the library's module and a `Problem`, and returns the library's calls. All networks start with the
problem's parameters.
"""

import functools
import importlib
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .benchmark_network import CLASSES, LEARNING_RATE, MOMENTUM, Calls, Problem, jax_calls, optimizer

# Equinox.


def equinox(eqx: Any, problem: Problem) -> Calls:
    """Equinox: a Sequential, channels first, vmapped."""
    layers = []
    channels = problem.images.shape[3]
    for i, count in enumerate(problem.features, 1):
        conv = eqx.nn.Conv2d(channels, count, 3, padding=1, key=jax.random.key(0))
        stage = problem.params[f"conv{i}"]
        conv = _set_equinox(eqx, conv, stage["kernel"].transpose(3, 2, 0, 1), stage["bias"][:, None, None])
        layers += [conv, eqx.nn.Lambda(jax.nn.relu), eqx.nn.MaxPool2d(2, 2)]
        channels = count
    kernel = _dense_kernel_channels_first(problem)
    dense = eqx.nn.Linear(*kernel.shape[::-1], key=jax.random.key(0))
    dense = _set_equinox(eqx, dense, kernel, problem.params["dense1"]["bias"])
    net = eqx.nn.Sequential([*layers, eqx.nn.Lambda(jnp.ravel), dense])
    params, static = eqx.partition(net, eqx.is_array)

    def apply(params: Any, images: jax.Array) -> jax.Array:
        return jax.vmap(eqx.combine(params, static))(images)

    channels_first = problem._replace(images=np.ascontiguousarray(problem.images.transpose(0, 3, 1, 2)))
    return jax_calls(apply, params, channels_first, lambda params: params.layers[0].bias.reshape(-1))


def _set_equinox(eqx: Any, layer: Any, weight: np.ndarray, bias: np.ndarray) -> Any:
    values = (jnp.asarray(weight), jnp.asarray(bias))
    return eqx.tree_at(lambda layer: (layer.weight, layer.bias), layer, values)


# Flax.


def flax(flax: Any, problem: Problem) -> Calls:
    """Flax NNX."""
    nnx: Any = importlib.import_module("flax.nnx")
    fixed = _flax_network(nnx, problem)
    model = _flax_network(nnx, problem)
    state = nnx.Optimizer(model, optimizer(), wrt=nnx.Param)
    images, labels = jax.device_put((problem.images, problem.labels))

    @nnx.jit
    def infer(model: Any, images: jax.Array) -> jax.Array:
        return model(images)

    @nnx.jit
    def step(model: Any, state: Any, images: jax.Array, labels: jax.Array) -> None:
        def loss(model: Any) -> jax.Array:
            return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

        state.update(model, nnx.grad(loss)(model))

    cached_infer = nnx.cached_partial(infer, fixed)
    cached_step = nnx.cached_partial(step, model, state)

    def train_step() -> jax.Array:
        cached_step(images, labels)
        jax.block_until_ready(nnx.state(model))
        return model.stages[0].bias[...]

    return {"inference": lambda: jax.block_until_ready(cached_infer(images)), "train_step": train_step}


def _flax_network(nnx: Any, problem: Problem) -> Any:
    class Network(nnx.Module):
        def __init__(self) -> None:
            channels = [problem.images.shape[3], *problem.features]
            rngs = nnx.Rngs(0)
            self.stages = nnx.List()
            for i, (before, after) in enumerate(itertools.pairwise(channels), 1):
                conv = nnx.Conv(before, after, (3, 3), padding="SAME", rngs=rngs)
                self.stages.append(_set_flax(conv, problem.params[f"conv{i}"]))
            dense = problem.params["dense1"]
            self.dense = _set_flax(nnx.Linear(*dense["kernel"].shape, rngs=rngs), dense)

        def __call__(self, x: jax.Array) -> jax.Array:
            for conv in self.stages:
                x = nnx.max_pool(nnx.relu(conv(x)), (2, 2), strides=(2, 2))
            return self.dense(x.reshape(len(x), -1))

    return Network()


def _set_flax(layer: Any, params: Mapping[str, np.ndarray]) -> Any:
    layer.kernel[...] = jnp.asarray(params["kernel"])
    layer.bias[...] = jnp.asarray(params["bias"])
    return layer


# PyTorch.


def torch(
    torch: Any, problem: Problem, *, channels_last: bool = False, compiled: bool = False, bfloat16: bool = False
) -> Calls:
    """PyTorch: contiguous or channels last, eager or `torch.compile`d, in float32 or by autocast to bfloat16.

    oneDNN computes bfloat16 with AMX or AVX-512 instructions of their own, where the CPU has them.
    """
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = torch.tensor(problem.images.transpose(0, 3, 1, 2), device=device).contiguous(memory_format=layout)
    labels = torch.tensor(problem.labels, device=device)
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    fixed = _torch_network(torch, problem).to(device, memory_format=layout)
    model = _torch_network(torch, problem).to(device, memory_format=layout)
    infer = torch.compile(fixed, dynamic=False) if compiled else fixed
    forward = torch.compile(model, dynamic=False) if compiled else model
    autocast = functools.partial(torch.autocast, device, torch.bfloat16, enabled=bfloat16)
    sgd = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)

    def inference() -> Any:
        with torch.inference_mode(), autocast():
            logits = infer(images)
        synchronize()
        return logits

    def train_step() -> Any:
        sgd.zero_grad()
        with autocast():
            loss = torch.nn.functional.cross_entropy(forward(images), labels)
        loss.backward()
        sgd.step()
        synchronize()
        return model[0].bias.detach()

    return {"inference": inference, "train_step": train_step}


def _torch_network(torch: Any, problem: Problem) -> Any:
    layers = []
    channels = problem.images.shape[3]
    for i, count in enumerate(problem.features, 1):
        conv = torch.nn.Conv2d(channels, count, 3, padding=1)
        stage = problem.params[f"conv{i}"]
        _set_torch(torch, conv, stage["kernel"].transpose(3, 2, 0, 1), stage["bias"])
        layers += [conv, torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
        channels = count
    kernel = _dense_kernel_channels_first(problem)
    dense = torch.nn.Linear(*kernel.shape[::-1])
    _set_torch(torch, dense, kernel, problem.params["dense1"]["bias"])
    return torch.nn.Sequential(*layers, torch.nn.Flatten(), dense)


def _set_torch(torch: Any, layer: Any, weight: np.ndarray, bias: np.ndarray) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))


def _dense_kernel_channels_first(problem: Problem) -> np.ndarray:
    """The dense layer's kernel (outputs, inputs) for inputs flattened as (C, H, W)."""
    size = problem.images.shape[1] >> len(problem.features)
    kernel = problem.params["dense1"]["kernel"].reshape(size, size, problem.features[-1], CLASSES)
    return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1).reshape(CLASSES, -1))


class Baseline(NamedTuple):
    """A library's network."""

    library: str
    build: Callable[[Any, Problem], Calls]
    bits: int = 32
    """Of the numbers that it multiplies. With 16 results are not those of the others."""


BASELINES: Mapping[str, Baseline] = {
    "torch": Baseline("torch", torch),
    "torch channels last": Baseline("torch", functools.partial(torch, channels_last=True)),
    "torch.compile": Baseline("torch", functools.partial(torch, compiled=True)),
    "torch bfloat16": Baseline("torch", functools.partial(torch, channels_last=True, bfloat16=True), bits=16),
    "flax": Baseline("flax", flax),
    "equinox": Baseline("equinox", equinox),
}
