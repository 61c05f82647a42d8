"""The same small networks in cnn_jax and in other libraries, each as its users would write it.

A stage is a 3x3 convolution with bias that keeps the size, ReLU and 2x2 max-pooling; after the stages, a dense layer
gives CLASSES scores. A training step is SGD with momentum on the mean cross-entropy of the batch. All start with the
same parameters, those of `network`, and see the same images (N, H, W, C) and labels (N,).

A builder takes the library's module and a `Work`, and returns a call for each task. "inference" returns the scores
(N, CLASSES); "train_step" makes a step from where the last one came to and returns the first bias, which depends on
the whole way back. All that they compute is ready when they return.
"""

import functools
import importlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

import cnn_jax

from .baselines_matching import Call

CLASSES, RATE, MOMENTUM = 10, 0.01, 0.9


class Work(NamedTuple):
    """What everybody computes with."""

    images: np.ndarray
    labels: np.ndarray
    features: Sequence[int]
    """Of every stage."""
    params: Any
    """Those of `network`."""


Calls = Mapping[str, Call]


def network(features: Sequence[int]) -> cnn_jax.Layer:
    """The network in cnn_jax."""
    stages = [
        (cnn_jax.Conv(n, 3, padding="SAME"), cnn_jax.Activation(jax.nn.relu), cnn_jax.MaxPool()) for n in features
    ]
    return cnn_jax.Chain(*itertools.chain(*stages), cnn_jax.Flatten(), cnn_jax.Dense(CLASSES))


def work(images: int, size: int, channels: int, features: Sequence[int]) -> Work:
    """Images of noise, labels at random, and parameters to start from."""
    generator = np.random.default_rng(0)
    pixels = generator.uniform(-1, 1, (images, size, size, channels)).astype(np.float32)
    params = network(features).init(jax.random.key(0), pixels.shape[1:])
    return Work(pixels, generator.integers(CLASSES, size=images), features, jax.tree.map(np.asarray, params))


def ours(work: Work) -> Calls:
    """cnn_jax, one image under vmap."""
    net = network(work.features)
    return _jax_calls(jax.vmap(net.apply, (None, 0)), work.params, work, lambda params: params["conv1"]["bias"])


def ours_scanned(work: Work, steps: int) -> Call:
    """So many training steps of cnn_jax in one `lax.scan`."""
    net = network(work.features)
    return _scanned(jax.vmap(net.apply, (None, 0)), work, steps)


def plain_jax(work: Work) -> Calls:
    """JAX alone, as its tutorials do it."""
    return _jax_calls(_plain_jax, work.params, work, lambda params: params["conv1"]["bias"])


def plain_jax_scanned(work: Work, steps: int) -> Call:
    """So many training steps of JAX alone in one `lax.scan`."""
    return _scanned(_plain_jax, work, steps)


def _plain_jax(params: Any, x: jax.Array) -> jax.Array:
    for i in range(1, len(params)):
        conv = params[f"conv{i}"]
        x = lax.conv_general_dilated(x, conv["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.nn.relu(x + conv["bias"].reshape(1, 1, 1, -1))
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return x.reshape(len(x), -1) @ params["dense1"]["kernel"] + params["dense1"]["bias"].reshape(1, -1)


# What a training step spends its time in, of one stage: (images, kernel) -> an array, in cnn_jax and in JAX alone.


def _conv(images: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.vmap(lambda image: cnn_jax.conv(image, kernel, padding="SAME"))(images)


def _plain_jax_conv(images: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _plain_jax_pool(images: jax.Array) -> jax.Array:
    return lax.reduce_window(images, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


Part = Callable[[jax.Array, jax.Array], jax.Array]


def _kernel_gradient(conv: Part) -> Part:
    return lambda images, maps: _back(lambda kernel: conv(images, kernel), (3, 3, images.shape[3], maps.shape[3]), maps)


def _image_gradient(conv: Part) -> Part:
    return lambda maps, kernel: _back(lambda images: conv(images, kernel), (*maps.shape[:3], kernel.shape[2]), maps)


def _pool_gradient(pool: Callable[[jax.Array], jax.Array]) -> Part:
    return lambda images, pooled: jax.vjp(pool, images)[1](pooled)[0]


def _back(linear: Callable[[jax.Array], jax.Array], shape: Sequence[int], cotangent: jax.Array) -> jax.Array:
    """The transpose of a linear function of arrays of a shape."""
    return jax.linear_transpose(linear, jax.ShapeDtypeStruct(shape, cotangent.dtype))(cotangent)[0]


# Each for images (N, H, W, C) and K features: in cnn_jax, in JAX alone, and the shapes of the two arguments.
PARTS: Mapping[str, tuple[Part, Part, Callable[[int, int, int, int], Sequence[Sequence[int]]]]] = {
    "conv": (_conv, _plain_jax_conv, lambda n, s, c, k: [(n, s, s, c), (3, 3, c, k)]),
    "its kernels' gradient": (
        _kernel_gradient(_conv),
        _kernel_gradient(_plain_jax_conv),
        lambda n, s, c, k: [(n, s, s, c), (n, s, s, k)],
    ),
    "its images' gradient": (
        _image_gradient(_conv),
        _image_gradient(_plain_jax_conv),
        lambda n, s, c, k: [(n, s, s, k), (3, 3, c, k)],
    ),
    "max_pool's gradient": (
        _pool_gradient(jax.vmap(cnn_jax.max_pool)),
        _pool_gradient(_plain_jax_pool),
        lambda n, s, c, k: [(n, s, s, k), (n, s // 2, s // 2, k)],
    ),
}


def _optimizer() -> optax.GradientTransformation:
    return optax.sgd(RATE, MOMENTUM)


def _step(apply: Callable[[Any, jax.Array], jax.Array]) -> Callable[..., tuple[Any, Any]]:
    def step(params: Any, state: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, Any]:
        def loss(params: Any) -> jax.Array:
            return optax.softmax_cross_entropy_with_integer_labels(apply(params, images), labels).mean()

        change, state = _optimizer().update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, change), state

    return step


def _repeat(step: Callable[..., tuple[Any, Any]], params: Any, work: Work, result: Callable[[Any], Any]) -> Call:
    """A call that goes on from where the last one came to."""
    step = jax.jit(step, donate_argnums=(0, 1))
    params = jax.tree.map(jnp.array, params)
    own, data = [params, _optimizer().init(params)], jax.device_put((work.images, work.labels))

    def call() -> Any:
        own[:] = jax.block_until_ready(step(*own, *data))
        return result(own[0])

    return call


def _scanned(apply: Callable[[Any, jax.Array], jax.Array], work: Work, steps: int) -> Call:
    step = _step(apply)

    def run(params: Any, state: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, Any]:
        return lax.scan(lambda own, _: (step(*own, images, labels), None), (params, state), length=steps)[0]

    return _repeat(run, work.params, work, lambda params: params["conv1"]["bias"])


def _jax_calls(
    apply: Callable[[Any, jax.Array], jax.Array], params: Any, work: Work, result: Callable[[Any], Any]
) -> Calls:
    images, compiled = jax.device_put(work.images), jax.jit(apply)
    fixed = jax.device_put(params)
    return {
        "inference": lambda: jax.block_until_ready(compiled(fixed, images)),
        "train_step": _repeat(_step(apply), params, work, result),
    }


def equinox(eqx: Any, work: Work) -> Calls:
    """Equinox: a module of modules, channels first, vmapped."""
    channels, layers = work.images.shape[3], []
    for i, n in enumerate(work.features, 1):
        conv = eqx.nn.Conv2d(channels, n, 3, padding=1, key=jax.random.key(0))
        values = work.params[f"conv{i}"]["kernel"].transpose(3, 2, 0, 1), work.params[f"conv{i}"]["bias"][:, None, None]
        conv = eqx.tree_at(lambda own: (own.weight, own.bias), conv, tuple(map(jnp.asarray, values)))
        layers += [conv, eqx.nn.Lambda(jax.nn.relu), eqx.nn.MaxPool2d(2, 2)]
        channels = n
    kernel = _channels_first(work)
    dense = eqx.nn.Linear(*kernel.shape[::-1], key=jax.random.key(0))
    values = jnp.asarray(kernel), jnp.asarray(work.params["dense1"]["bias"])
    dense = eqx.tree_at(lambda own: (own.weight, own.bias), dense, values)
    params, rest = eqx.partition(eqx.nn.Sequential([*layers, eqx.nn.Lambda(jnp.ravel), dense]), eqx.is_array)

    def apply(params: Any, images: jax.Array) -> jax.Array:
        return jax.vmap(eqx.combine(params, rest))(images)

    first = work._replace(images=np.ascontiguousarray(work.images.transpose(0, 3, 1, 2)))
    return _jax_calls(apply, params, first, lambda params: params.layers[0].bias.reshape(-1))


def flax(flax: Any, work: Work) -> Calls:
    """Flax NNX."""
    nnx: Any = importlib.import_module("flax.nnx")

    class Net(nnx.Module):
        def __init__(self) -> None:
            widths = [work.images.shape[3], *work.features]
            rngs, self.stages = nnx.Rngs(0), nnx.List()
            for i, (before, after) in enumerate(itertools.pairwise(widths), 1):
                stage = nnx.Conv(before, after, (3, 3), padding="SAME", rngs=rngs)
                own = work.params[f"conv{i}"]
                stage.kernel[...], stage.bias[...] = jnp.asarray(own["kernel"]), jnp.asarray(own["bias"])
                self.stages.append(stage)
            own = work.params["dense1"]
            self.dense = nnx.Linear(*own["kernel"].shape, rngs=rngs)
            self.dense.kernel[...], self.dense.bias[...] = jnp.asarray(own["kernel"]), jnp.asarray(own["bias"])

        def __call__(self, x: jax.Array) -> jax.Array:
            for stage in self.stages:
                x = nnx.max_pool(nnx.relu(stage(x)), (2, 2), strides=(2, 2))
            return self.dense(x.reshape(len(x), -1))

    fixed, model = Net(), Net()
    optimizer = nnx.Optimizer(model, _optimizer(), wrt=nnx.Param)
    images, labels = jax.device_put((work.images, work.labels))

    @nnx.jit
    def infer(model: Any, images: jax.Array) -> jax.Array:
        return model(images)

    @nnx.jit
    def step(model: Any, optimizer: Any, images: jax.Array, labels: jax.Array) -> None:
        def loss(model: Any) -> jax.Array:
            return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()

        optimizer.update(model, nnx.grad(loss)(model))

    infer, step = nnx.cached_partial(infer, fixed), nnx.cached_partial(step, model, optimizer)

    def train() -> jax.Array:
        step(images, labels)
        jax.block_until_ready(nnx.state(model))
        return model.stages[0].bias[...]

    return {"inference": lambda: jax.block_until_ready(infer(images)), "train_step": train}


def torch(torch: Any, work: Work, *, channels_last: bool = False, compiled: bool = False) -> Calls:
    """PyTorch: contiguous or channels last, eager or `torch.compile`d."""
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = torch.tensor(work.images.transpose(0, 3, 1, 2), device=device).contiguous(memory_format=layout)
    labels = torch.tensor(work.labels, device=device)

    def build() -> Any:
        layers, channels = [], work.images.shape[3]
        for i, n in enumerate(work.features, 1):
            conv = torch.nn.Conv2d(channels, n, 3, padding=1)
            own = work.params[f"conv{i}"]
            _set(torch, conv, own["kernel"].transpose(3, 2, 0, 1), own["bias"])
            layers += [conv, torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
            channels = n
        kernel = _channels_first(work)
        dense = torch.nn.Linear(*kernel.shape[::-1])
        _set(torch, dense, kernel, work.params["dense1"]["bias"])
        return torch.nn.Sequential(*layers, torch.nn.Flatten(), dense).to(device, memory_format=layout)

    ready = torch.cuda.synchronize if device == "cuda" else lambda: None
    fixed, net = build(), build()
    infer = torch.compile(fixed) if compiled else fixed
    forward = torch.compile(net) if compiled else net
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=MOMENTUM)

    def inference() -> Any:
        with torch.inference_mode():
            out = infer(images)
        ready()
        return out

    def train_step() -> Any:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(forward(images), labels).backward()
        optimizer.step()
        ready()
        return net[0].bias.detach()

    return {"inference": inference, "train_step": train_step}


def _set(torch: Any, layer: Any, weight: np.ndarray, bias: np.ndarray) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))


def _channels_first(work: Work) -> np.ndarray:
    """The dense layer's kernel (outputs, inputs) for pixels that come after their channels."""
    size, channels = work.images.shape[1] >> len(work.features), work.features[-1]
    kernel = work.params["dense1"]["kernel"].reshape(size, size, channels, CLASSES)
    return np.ascontiguousarray(kernel.transpose(3, 2, 0, 1).reshape(CLASSES, -1))


# For each contestant, the library it needs and its builder.
BASELINES: Mapping[str, tuple[str, Callable[[Any, Work], Calls]]] = {
    "torch": ("torch", torch),
    "torch channels last": ("torch", functools.partial(torch, channels_last=True)),
    "torch.compile": ("torch", functools.partial(torch, compiled=True)),
    "flax": ("flax", flax),
    "equinox": ("equinox", equinox),
}
