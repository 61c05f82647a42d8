"""Layers made of layers: sequences and residual blocks."""

import collections
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Shaped

from ._layer import Apply, ApplyWithIntermediates, Intercept, Layer, Params, Shape, Stages, identity
from ._validation import as_shape


def Chain(*layers: Layer) -> Layer:
    """A sequence of layers: each gets the output of the one before.

    Parameters and intermediate activations are named by kind and number: "conv1", "relu1", "conv2". Each layer
    draws from its own key, folded from the chain's key and the layer's position.

    Args:
      *layers: at least one.

    Returns:
      A layer named "chain". Its parameters are a dict of those of the layers that have parameters.

    Raises:
      ValueError: no layers; from `apply`, parameters of another network.
      TypeError: an argument that is not a Layer; from `apply`, parameters that are not a dict.

    >>> from cnn_jax.layers import Activation, Conv, Dense, Flatten, MaxPool
    >>> net = Chain(Conv(2), Activation(jax.nn.relu), MaxPool(), Flatten(), Dense(2))
    >>> params = net.init(jax.random.key(0), (6, 6, 1))
    >>> {name: value.shape for name, value in net.stages(params, jnp.ones((6, 6, 1))).items()}
    {'conv1': (4, 4, 2), 'relu1': (4, 4, 2), 'max_pool1': (2, 2, 2), 'flatten1': (8,), 'dense1': (2,)}
    """
    named_layers = _name_layers(layers)

    def init(key: Array, shape: Shape) -> Params:
        params = {}
        output = jax.ShapeDtypeStruct(as_shape(shape), jnp.float32)
        for i, (name, layer) in enumerate(named_layers.items()):
            layer_params = layer.init(jax.random.fold_in(key, i), output.shape)
            output = jax.eval_shape(layer.apply, layer_params, output)
            if layer_params:
                params[name] = layer_params
        return params

    def apply_with_intermediates(
        params: Params,
        image: Shaped[ArrayLike, "..."],
        *,
        train: bool = False,
        key: Array | None = None,
        intercept: Intercept = identity,
    ) -> Stages:
        _check_params(params, named_layers)
        stages = Stages()
        for i, (name, layer) in enumerate(named_layers.items()):
            layer_key = None if key is None else jax.random.fold_in(key, i)
            inner_intercept = _inner_intercept(intercept, name) if layer.apply_with_intermediates else identity
            try:
                inner_stages = layer.stages(
                    params.get(name, {}), image, train=train, key=layer_key, intercept=inner_intercept
                )
            except KeyError as error:
                present = list(params.get(name, {}))
                raise ValueError(f"params: expected {error} for layer {name!r}, got {present}") from error
            if layer.apply_with_intermediates is not None:
                stages |= {f"{name}/{inner_name}": value for inner_name, value in inner_stages.items()}
            image = intercept(name, _output(inner_stages))
            stages[name] = image
        return stages

    return Layer(init, _apply_of(apply_with_intermediates), "chain", apply_with_intermediates)


def Residual(*layers: Layer) -> Layer:
    """A residual block: the input plus the output of a chain of layers.

        out = image + chain(image)

    Args:
      *layers: at least one. Their output must have the shape of the input.

    Returns:
      A layer named "residual". Its intermediate activations are those of the chain, then "sum".

    Raises:
      ValueError: no layers; from `apply`, layers that change the shape.
      TypeError: an argument that is not a Layer.

    Source: He et al., "Deep Residual Learning for Image Recognition" (2016), https://arxiv.org/abs/1512.03385

    >>> from cnn_jax.layers import Conv
    >>> net = Residual(Conv(1, 3, padding="SAME"))
    >>> net.apply(net.init(jax.random.key(0), (4, 4, 1)), jnp.ones((4, 4, 1))).shape
    (4, 4, 1)
    """
    chain = Chain(*layers)

    def apply_with_intermediates(
        params: Params,
        image: Shaped[ArrayLike, "..."],
        *,
        train: bool = False,
        key: Array | None = None,
        intercept: Intercept = identity,
    ) -> Stages:
        stages = chain.stages(params, image, train=train, key=key, intercept=intercept)
        change = _output(stages)
        if change.shape != jnp.shape(image):
            raise ValueError(f"Residual: expected layers that keep the shape {jnp.shape(image)}, got {change.shape}")
        stages["sum"] = intercept("sum", jnp.asarray(image) + change)
        return stages

    return Layer(chain.init, _apply_of(apply_with_intermediates), "residual", apply_with_intermediates)


def _name_layers(layers: Sequence[Layer]) -> dict[str, Layer]:
    """The layers by kind and number within the kind."""
    if not layers:
        raise ValueError("layers: expected at least one, got none")
    counts = collections.Counter()
    named_layers = {}
    for layer in layers:
        if not isinstance(layer, Layer):
            raise TypeError(f"layers: expected Layer, got {layer!r}")
        counts[layer.name] += 1
        named_layers[f"{layer.name}{counts[layer.name]}"] = layer
    return named_layers


def _check_params(params: Params, named_layers: dict[str, Layer]) -> None:
    if not isinstance(params, Mapping):
        raise TypeError(f"params: expected a dict, got {type(params).__name__}; apply takes (params, image)")
    if not params.keys() <= named_layers.keys():
        raise ValueError(f"params: expected a dict with layers among {list(named_layers)}, got {list(params)}")


def _inner_intercept(intercept: Intercept, name: str) -> Intercept:
    """The same intercept for the inner layers of one layer, whose names become paths."""
    if intercept is identity:
        return identity
    return lambda inner_name, value: intercept(f"{name}/{inner_name}", value)


def _output(stages: Stages) -> Array:
    return next(reversed(stages.values()))


def _apply_of(apply_with_intermediates: ApplyWithIntermediates) -> Apply:
    """`apply_with_intermediates` that returns the output alone."""

    def apply(
        params: Params, image: Shaped[ArrayLike, "..."], *, train: bool = False, key: Array | None = None
    ) -> Array:
        return _output(apply_with_intermediates(params, image, train=train, key=key))

    return apply
