"""Costs of functions and networks: parameters, multiply-adds and bytes, counted from the program that JAX traces.

A multiply-add is one multiplication whose product is added up. Three operations make them: `lax.dot_general`,
`lax.conv_general_dilated`, and the sliding dot product of `conv` and of all scores. The sliding dot product counts by
its definition, whichever algorithm computes it. FLOPs are about twice the multiply-adds.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ._function_or_net import check_function
from ._jaxpr_work import graph_of, needed_work, total_work
from ._layer import param_shapes
from ._validation import as_positive_shape
from .layers import Layer

__all__ = ["Cost", "cost"]


class Cost(NamedTuple):
    """Cost of one evaluation.

    Attributes:
      parameters: how many numbers the network holds, BatchNorm's statistics among them; 0 for a function.
      multiply_adds: how many products are added up.
      bytes: the least memory traffic: inputs, parameters and outputs, each read or written once.
      shape: the output's shape; of a tree of outputs, the tree of their shapes.
      stages: for a network, the cost of each stage by name, in order; empty for a function and for a stage.
    """

    parameters: int
    multiply_adds: int
    bytes: int
    shape: PyTree[tuple[int, ...]]
    stages: dict[str, "Cost"]


def cost(function_or_net: Callable[..., object] | Layer, *args: PyTree) -> Cost:
    """Counts parameters, multiply-adds and bytes of a function or a network, without computing anything.

        conv, match    H' W' K h w C        Dense    inputs × outputs

    Multiply-adds are those of `lax.dot_general`, `lax.conv_general_dilated` and the package's sliding dot product. They
    are counted inside `jax.jit`, `jax.vmap`, `jax.grad` and `jax.checkpoint`, once per step of a `lax.scan`, and for
    `lax.cond` in the most expensive branch. Work that no output depends on is not counted.

    Args:
      function_or_net: any function that JAX can trace, or a `Layer`.
      *args: for a function, its arguments: arrays or `jax.ShapeDtypeStruct`, and trees of them; bind options with
        `functools.partial`. For a network, the shape (H, W, C) of its float32 image.

    Returns:
      A `Cost`. Each stage counts only work and parameters that no earlier stage counted, so that the stages add up to
      the network. A stage's bytes are those that it would move on its own; 0 if it returns an earlier value.

    Raises:
      TypeError: `function_or_net` is neither a function nor a `Layer`, an argument is not an array, or the shape is not
        ints.
      ValueError: the network does not accept the shape, or multiply-adds are inside a `lax.while_loop` or another
        operation with an unknown trip count.

    Notes:
      Accuracy: taps on a padded border count, as is usual. Zeros between the pixels of a dilated image, as in the
      gradient of a strided convolution, do not. Elementwise work, sums, pooling, sorting and Fourier transforms do not
      count either; `jax.vmap` over pairs of an image and a large feature may become Fourier transforms.

    Example:
      Pooling an image of 8 megapixels to 2 leaves a fourth of the work for the next 16 features of 9x9 pixels:

      >>> import functools
      >>> from cnn_jax import match, max_pool
      >>> image = jax.ShapeDtypeStruct((2448, 3264), "float32")
      >>> features = jax.ShapeDtypeStruct((16, 9, 9), "float32")
      >>> pooled = cost(max_pool, image)
      >>> pooled.shape
      (1224, 1632)
      >>> bank = jax.vmap(functools.partial(match, padding="SAME"), in_axes=(None, 0))
      >>> small = jax.ShapeDtypeStruct(pooled.shape, "float32")
      >>> cost(bank, image, features).multiply_adds / cost(bank, small, features).multiply_adds
      4.0

      >>> from cnn_jax import nets
      >>> net_cost = cost(nets.xo_net(), (28, 28, 1))
      >>> net_cost.parameters, net_cost.multiply_adds, net_cost.shape
      (33058, 1763072, (2,))
      >>> conv2 = net_cost.stages["conv2"]
      >>> conv2.parameters, conv2.multiply_adds, conv2.shape
      (4640, 903168, (14, 14, 32))
    """
    if isinstance(function_or_net, Layer):
        if len(args) != 1:
            raise TypeError(f"args: expected one shape (H, W, C) for a Layer, got {len(args)} arguments")
        return _net_cost(function_or_net, as_positive_shape(args[0]))
    function = check_function(function_or_net)
    for leaf in jax.tree.leaves(args):
        _check_array(leaf)
    closed, out = jax.make_jaxpr(function, return_shape=True)(*args)
    work = total_work(closed)
    return Cost(parameters=0, multiply_adds=work.multiply_adds, bytes=work.bytes, shape=_output_shape(out), stages={})


def _check_array(leaf: object) -> None:
    is_array = hasattr(leaf, "dtype") and hasattr(leaf, "shape")
    if not is_array and not isinstance(leaf, bool | int | float):
        raise TypeError(
            f"args: expected arrays or jax.ShapeDtypeStruct, got {leaf!r}; bind others by functools.partial"
        )


def _net_cost(net: Layer, shape: tuple[int, ...]) -> Cost:
    params = param_shapes(net, shape)
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    closed, stages = jax.make_jaxpr(net.stages, return_shape=True)(params, image)
    graph = graph_of(closed)
    leaves = jax.tree.leaves(params)
    uncounted = {value: leaf.size for value, leaf in zip(graph.inputs[: len(leaves)], leaves, strict=True)}
    parameters = sum(uncounted.values())
    counted = set()
    costs = {}
    for (name, stage), output in zip(stages.items(), graph.outputs, strict=True):
        work = needed_work(graph, [output], counted)
        costs[name] = Cost(
            parameters=sum(uncounted.pop(value, 0) for value in work.read),
            multiply_adds=work.multiply_adds,
            bytes=work.bytes,
            shape=_output_shape(stage),
            stages={},
        )
    total = needed_work(graph, graph.outputs[-1:], set())
    return Cost(
        parameters=parameters,
        multiply_adds=total.multiply_adds,
        bytes=total.bytes,
        shape=next(reversed(costs.values())).shape,
        stages=costs,
    )


def _output_shape(out: PyTree) -> PyTree[tuple[int, ...]]:
    return jax.tree.map(lambda leaf: leaf.shape, out)
