"""Layers made of layers: sequences, and blocks that reuse their input."""

import collections
import dataclasses
import textwrap
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Shaped

from ._layer import Layer, output_of
from ._layer_functions import Intercept, Stages, identity
from ._params import Params, ParamsError, check_is_dict
from ._typing import Shape


class Chain(Layer, init=False):
    """A sequence of layers, named "chain": each gets the output of the one before.

    Parameters and intermediate activations are named by kind and number: "conv1", "relu1", "conv2". Each layer
    draws from its own key, folded from the chain's key and the layer's position. The parameters are a dict of those of
    the layers that have parameters.

    Args:
      *layers: at least one.

    Raises:
      ValueError: no layers; from `apply`, parameters of another network.
      TypeError: an argument that is not a Layer; from `apply`, parameters that are not a dict.

    >>> from cnn_jax.layers import Activation, Conv, Dense, Flatten, MaxPool
    >>> net = Chain(Conv(2), Activation(jax.nn.relu), MaxPool(), Flatten(), Dense(2))
    >>> params = net.init(jax.random.key(0), (6, 6, 1))
    >>> {name: value.shape for name, value in net.stages(params, jnp.ones((6, 6, 1))).items()}
    {'conv1': (4, 4, 2), 'relu1': (4, 4, 2), 'max_pool1': (2, 2, 2), 'flatten1': (8,), 'dense1': (2,)}
    """

    layers: tuple[Layer, ...] = dataclasses.field(init=False)
    name = "chain"
    has_intermediates = True

    def __init__(self, *layers: Layer) -> None:
        self._set(layers=_check_layers(layers))

    def _init(self, key: Array, shape: Shape) -> Params:
        params = {}
        output = jax.ShapeDtypeStruct(shape, jnp.float32)
        for i, (name, layer) in enumerate(_named(self.layers).items()):
            layer_params = layer.init(jax.random.fold_in(key, i), output.shape)
            output = jax.eval_shape(layer.apply, layer_params, output)
            if not isinstance(layer_params, dict) or layer_params:
                params[name] = layer_params
        return params

    def _apply_with_intermediates(
        self,
        params: Params,
        image: Shaped[ArrayLike, "..."],
        *,
        train: bool = False,
        key: Array | None = None,
        intercept: Intercept = identity,
    ) -> Stages:
        stages = Stages()
        for i, (name, layer) in enumerate(_named(self.layers).items()):
            layer_key = None if key is None else jax.random.fold_in(key, i)
            inner_intercept = _inner_intercept(intercept, name) if layer.has_intermediates else identity
            try:
                inner_stages = layer.stages(
                    params.get(name, {}), image, train=train, key=layer_key, intercept=inner_intercept
                )
            except ParamsError as error:
                raise error.inside(name) from None
            if layer.has_intermediates:
                stages |= {f"{name}/{inner_name}": value for inner_name, value in inner_stages.items()}
            image = intercept(name, output_of(inner_stages))
            stages[name] = image
        return stages

    def _check_params(self, params: Params, image: Shaped[ArrayLike, "..."]) -> None:
        """Raises for parameters of layers that are not in the chain; each layer checks its own."""
        check_is_dict(params)
        names = list(_named(self.layers))
        if not params.keys() <= set(names):
            raise ValueError(f"params: expected a dict with layers among {names}, got {list(params)}")

    def __repr__(self) -> str:
        lines = "".join(f"{layer!r},\n" for layer in self.layers)
        return f"{type(self).__name__}(\n{textwrap.indent(lines, '  ')})"


class _SkipBlock(Chain, init=False):
    """A chain whose input and output are joined."""

    joined: ClassVar[str]  # the name of the last stage

    def _join(self, image: Array, out: Array) -> Array:
        """The output of the block."""
        raise NotImplementedError

    def _apply_with_intermediates(
        self,
        params: Params,
        image: Shaped[ArrayLike, "..."],
        *,
        train: bool = False,
        key: Array | None = None,
        intercept: Intercept = identity,
    ) -> Stages:
        stages = super()._apply_with_intermediates(params, image, train=train, key=key, intercept=intercept)
        stages[self.joined] = intercept(self.joined, self._join(jnp.asarray(image), output_of(stages)))
        return stages


class Residual(_SkipBlock, init=False):
    """A residual block, named "residual": the input plus the output of a chain of layers.

        out = image + chain(image)

    Its intermediate activations are those of the chain, then "sum".

    Args:
      *layers: at least one. Their output must have the shape of the input.

    Raises:
      ValueError: no layers; from `apply`, layers that change the shape.
      TypeError: an argument that is not a Layer.

    Source: He et al., "Deep Residual Learning for Image Recognition" (2016), https://arxiv.org/abs/1512.03385

    >>> from cnn_jax.layers import Conv
    >>> net = Residual(Conv(1, 3, padding="SAME"))
    >>> net.apply(net.init(jax.random.key(0), (4, 4, 1)), jnp.ones((4, 4, 1))).shape
    (4, 4, 1)
    """

    name = "residual"
    joined = "sum"

    def _join(self, image: Array, out: Array) -> Array:
        if out.shape != image.shape:
            raise ValueError(f"Residual: expected layers that keep the shape {image.shape}, got {out.shape}")
        return image + out


class Concatenate(_SkipBlock, init=False):
    """A skip connection, named "concatenate": the channels of the input, then those of the output of a chain of layers.

        out = concatenate([image, chain(image)], axis=-1)

    Its intermediate activations are those of the chain, then "concatenation". Nested in each other, such blocks are a
    U-Net.

    Args:
      *layers: at least one. Their output must have the rows and columns of the input.

    Raises:
      ValueError: no layers; from `apply`, layers that change the number of rows or columns.
      TypeError: an argument that is not a Layer.

    Source: Ronneberger, Fischer and Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation" (2015),
    https://arxiv.org/abs/1505.04597

    >>> from cnn_jax.layers import Conv
    >>> net = Concatenate(Conv(5, padding="SAME"))
    >>> net.apply(net.init(jax.random.key(0), (4, 4, 1)), jnp.ones((4, 4, 1))).shape
    (4, 4, 6)
    """

    name = "concatenate"
    joined = "concatenation"

    def _join(self, image: Array, out: Array) -> Array:
        if out.shape[:-1] != image.shape[:-1]:
            raise ValueError(
                f"Concatenate: expected layers that keep the rows and columns {image.shape[:-1]}, got {out.shape[:-1]}"
            )
        return jnp.concatenate([image, out], -1)


def _check_layers(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    if not layers:
        raise ValueError("layers: expected at least one, got none")
    for layer in layers:
        if not isinstance(layer, Layer):
            raise TypeError(f"layers: expected Layer, got {layer!r}")
    return tuple(layers)


def _named(layers: Sequence[Layer]) -> dict[str, Layer]:
    """The layers by kind and number within the kind."""
    counts = collections.Counter()
    named_layers = {}
    for layer in layers:
        counts[layer.name] += 1
        named_layers[f"{layer.name}{counts[layer.name]}"] = layer
    return named_layers


def _inner_intercept(intercept: Intercept, name: str) -> Intercept:
    """The same intercept for the inner layers of one layer, whose names become paths."""
    if intercept is identity:
        return identity
    return lambda inner_name, value: intercept(f"{name}/{inner_name}", value)
