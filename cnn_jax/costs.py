"""What a function or a network costs: counted from what JAX traces, never guessed.

A multiply-add is one multiplication whose product is added up. Three operations make them, and everything in the
package that costs much is made of these: `lax.dot_general`, `lax.conv_general_dilated`, and the sliding dot product of
`conv` and of all scores, which counts as its definition says, whatever algorithm computes it in the end.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jax.extend.core.primitives import cond_p, conv_general_dilated_p, dot_general_p, scan_p

from ._correlate import correlate_p
from ._validation import as_positive_shape
from .layers import Layer
from .receptive_field import checked_function, parameter_shapes

# The number of all values that are written into the program itself.
LITERAL = 0


class Cost(NamedTuple):
    """What one evaluation takes.

    Attributes:
      parameters: how many numbers the network holds, statistics of BatchNorm among them; 0 for a function.
      multiply_adds: how many products are added up.
      bytes: the least memory traffic: inputs, parameters and outputs, each read or written once.
      shape: the output's shape; of a tree of outputs, the tree of their shapes.
      stages: for a network, each stage's own cost by name, in order; empty for a function and for a stage.
    """

    parameters: int
    multiply_adds: int
    bytes: int
    shape: Any
    stages: dict[str, "Cost"]


def cost(function_or_net: Callable[..., Any] | Layer, *args: Any) -> Cost:
    """Counts parameters, multiply-adds and bytes of a function or a network, without computing anything.

        conv, match    H' W' K h w C        `Dense`    inputs × outputs

    Multiply-adds are those of `lax.dot_general`, `lax.conv_general_dilated` and the package's sliding dot product,
    wherever they stand: under `jax.jit`, `jax.vmap`, `jax.grad` and `jax.checkpoint`, as often as a `lax.scan` runs
    them, and for `lax.cond` in the branch that has most. Taps on a padded border count, as is usual; zeros between the
    pixels of a spread image (the gradient of a stride) do not. What no output depends on is not counted, nor are
    elementwise work, sums, pooling, sorting and Fourier transforms; among these are those that `jax.vmap` over many
    images, each with a large feature of its own, may be traced to.

    Args:
      function_or_net: any function that JAX can trace, or a `Layer`.
      *args: for a function its arguments, arrays or `jax.ShapeDtypeStruct`, and trees of them; options are bound by
        `functools.partial`. For a network the shape of its image, (H, W, C), in float32.

    Returns:
      A `Cost`. A stage of a network has the work and the parameters that no stage before it has needed, so that both
      add up to the network's; its bytes are those it would move alone, and 0 where it passes on what is there.

    Raises:
      TypeError: something else than a function or a `Layer`, arguments that are not arrays, a shape that is not ints.
      ValueError: a shape that the network does not take, or multiply-adds in a `lax.while_loop` or in another
        operation that does not say how often it runs them.

    An image of 8 megapixels becomes one of 2, and the next 16 features of 9x9 pixels a fourth of the work:

    >>> import functools
    >>> from cnn_jax import match, max_pool
    >>> image, features = jax.ShapeDtypeStruct((2448, 3264), "float32"), jax.ShapeDtypeStruct((16, 9, 9), "float32")
    >>> pooled = cost(max_pool, image)
    >>> pooled.shape
    (1224, 1632)
    >>> bank = jax.vmap(functools.partial(match, padding="SAME"), in_axes=(None, 0))
    >>> small = jax.ShapeDtypeStruct(pooled.shape, "float32")
    >>> cost(bank, image, features).multiply_adds / cost(bank, small, features).multiply_adds
    4.0

    >>> from cnn_jax import nets
    >>> whole = cost(nets.xo_net(), (28, 28, 1))
    >>> whole.parameters, whole.multiply_adds, whole.shape
    (33058, 1763072, (2,))
    >>> whole.stages["conv2"].parameters, whole.stages["conv2"].multiply_adds, whole.stages["conv2"].shape
    (4640, 903168, (14, 14, 32))
    """
    if isinstance(function_or_net, Layer):
        if len(args) != 1:
            raise TypeError(f"args: expected one shape (H, W, C) for a Layer, got {len(args)} arguments")
        return _net_cost(function_or_net, as_positive_shape(args[0]))
    function = checked_function(function_or_net)
    for leaf in jax.tree.leaves(args):
        if not (hasattr(leaf, "dtype") and hasattr(leaf, "shape")) and not isinstance(leaf, bool | int | float):
            raise TypeError(f"args: expected arrays or jax.ShapeDtypeStruct, got {leaf!r}; bind others by partial")
    closed, out = jax.make_jaxpr(function, return_shape=True)(*args)
    return Cost(0, *_work(_graph(closed)), _shape(out), {})


def _net_cost(net: Layer, shape: tuple[int, ...]) -> Cost:
    params, image = parameter_shapes(net, shape), jax.ShapeDtypeStruct(shape, jnp.float32)
    closed, stages = jax.make_jaxpr(net.stages, return_shape=True)(params, image)
    graph, leaves = _graph(closed), jax.tree.leaves(params)
    left = {value: leaf.size for value, leaf in zip(graph.inputs, leaves, strict=False)}
    parameters, done, costs = sum(left.values()), set(), {}
    for (name, stage), output in zip(stages.items(), graph.outputs, strict=True):
        work, traffic, read = _needed(graph, [output], done)
        costs[name] = Cost(sum(left.pop(value, 0) for value in read), work, traffic, _shape(stage), {})
    work, traffic, _ = _needed(graph, graph.outputs[-1:], set())
    return Cost(parameters, work, traffic, next(reversed(costs.values())).shape, costs)


class _Equation(NamedTuple):
    multiply_adds: int
    inputs: set[int]
    outputs: set[int]


class _Graph(NamedTuple):
    """Equations over numbered values, with called functions written out in place; `sizes` has the values' bytes."""

    sizes: list[int]
    equations: list[_Equation]
    inputs: list[int]
    outputs: list[int]


def _graph(closed: ClosedJaxpr) -> _Graph:
    sizes, equations, constants = [], [], {}

    def new(atom: Any) -> int:
        sizes.append(math.prod(atom.aval.shape) * atom.aval.dtype.itemsize)
        return len(sizes) - 1

    def write_out(closed: ClosedJaxpr, inputs: list[int]) -> list[int]:
        """Adds the equations; returns the outputs' numbers."""
        jaxpr = closed.jaxpr
        numbers = dict(zip(jaxpr.invars, inputs, strict=True))
        for variable, constant in zip(jaxpr.constvars, closed.consts, strict=True):
            if id(constant) not in constants:
                constants[id(constant)] = new(variable)
            numbers[variable] = constants[id(constant)]

        def number(atom: Any) -> int:
            return LITERAL if isinstance(atom, Literal) else numbers[atom]

        for equation in jaxpr.eqns:
            given = [number(atom) for atom in equation.invars]
            called = _called(equation)
            if called is None:
                made = [new(variable) for variable in equation.outvars]
                equations.append(_Equation(_multiply_adds(equation), set(given), set(made)))
            else:
                made = write_out(called, given)
            numbers |= zip(equation.outvars, made, strict=True)
        return [number(atom) for atom in jaxpr.outvars]

    sizes.append(0)  # of literals
    inputs = [new(variable) for variable in closed.jaxpr.invars]
    return _Graph(sizes, equations, inputs, write_out(closed, inputs))


def _needed(graph: _Graph, outputs: Sequence[int], done: set[int]) -> tuple[int, int, set[int]]:
    """Multiply-adds and bytes of what the outputs need beyond the equations done, which they join; and what they read.

    An output that was there before is passed on, not moved.
    """
    wanted, read, made, work = set(outputs), set(), set(), 0
    for i in reversed(range(len(graph.equations))):
        equation = graph.equations[i]
        if i not in done and not wanted.isdisjoint(equation.outputs):
            done.add(i)
            work += equation.multiply_adds
            wanted |= equation.inputs
            read |= equation.inputs
            made |= equation.outputs
    read -= made
    moved = read | (made & set(outputs))
    return work, sum(graph.sizes[value] for value in moved), read


def _work(graph: _Graph) -> tuple[int, int]:
    return _needed(graph, graph.outputs, set())[:2]


def _inner(equation: JaxprEqn) -> Iterator[ClosedJaxpr]:
    for value in equation.params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, ClosedJaxpr):
                yield each
            elif isinstance(each, Jaxpr) and not each.constvars:
                yield ClosedJaxpr(each, ())


def _called(equation: JaxprEqn) -> ClosedJaxpr | None:
    """The function that an equation does nothing but call (jit, checkpoint, custom derivatives), else None."""
    inner = list(_inner(equation))
    if len(inner) != 1 or equation.primitive is scan_p:
        return None
    called = inner[0].jaxpr
    same = _shapes(equation.invars) == _shapes(called.invars) and _shapes(equation.outvars) == _shapes(called.outvars)
    return inner[0] if same else None


def _multiply_adds(equation: JaxprEqn) -> int:
    primitive, params = equation.primitive, equation.params
    ins, outs = _shapes(equation.invars), _shapes(equation.outvars)
    if primitive is dot_general_p:
        (contracted, _), _ = params["dimension_numbers"]
        return math.prod(outs[0]) * math.prod(ins[0][axis] for axis in contracted)
    if primitive is correlate_p:
        (n, *_, channels), (*window, _, kernels) = ins
        size = outs[0][2:] if params["channels_first"] else outs[0][1:3]
        steps = (params[name] for name in ("stride", "dilation", "lhs_dilation", "padding"))
        return n * kernels * channels * _taps(size, window, *steps)
    if primitive is conv_general_dilated_p:
        _, (features, channels, *window), (batch, _, *size) = params["dimension_numbers"]
        each = outs[0][batch] * ins[1][features] * ins[1][channels]
        steps = (params[name] for name in ("window_strides", "rhs_dilation", "lhs_dilation", "padding"))
        return each * _taps([outs[0][axis] for axis in size], [ins[1][axis] for axis in window], *steps)
    inner = [_work(_graph(closed))[0] for closed in _inner(equation)]
    if primitive is cond_p:
        return max(inner)
    if primitive is scan_p:
        return params["length"] * sum(inner)
    if any(inner):
        raise ValueError(
            f"function_or_net: expected multiply-adds that run a known number of times, got some in {primitive}; "
            "lax.scan and lax.fori_loop with fixed bounds say how often"
        )
    return 0


def _taps(
    size: Sequence[int],
    window: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    spread: Sequence[int],
    border: Sequence[tuple[int, int]],
) -> int:
    """How often a window of all positions meets a pixel, on the border too but not between spread pixels."""
    total = 1
    for n, k, s, d, between, (low, _) in zip(size, window, stride, dilation, spread, border, strict=True):
        places = s * np.arange(n)[:, None] + d * np.arange(k)[None, :] - low
        total *= int((places % between == 0).sum())
    return total


def _shapes(atoms: Sequence[Any]) -> list[tuple[int, ...]]:
    return [atom.aval.shape for atom in atoms]


def _shape(out: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.shape, out)
