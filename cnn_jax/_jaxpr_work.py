"""Work of traced programs: the multiply-adds and memory traffic of a jaxpr's equations."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var
from jax.extend.core.primitives import cond_p, conv_general_dilated_p, dot_general_p, scan_p

from ._correlate import correlate_p
from ._geometry import Spacing, spacing_of
from ._grouped import grouped_correlate_p

LITERAL = 0  # the one value that stands for all constants written into a program


class Equation(NamedTuple):
    """One operation; `inputs` and `outputs` are indices of values."""

    multiply_adds: int
    inputs: frozenset[int]
    outputs: frozenset[int]


class Graph(NamedTuple):
    """A program as equations over numbered values; called functions are inlined.

    Attributes:
      value_bytes: size of each value.
      equations: all equations, in the order of the program.
      inputs, outputs: indices of the program's values.
    """

    value_bytes: list[int]
    equations: list[Equation]
    inputs: list[int]
    outputs: list[int]


class Work(NamedTuple):
    """Work of a part of a graph.

    Attributes:
      multiply_adds: how many products are added up.
      bytes: size of all values that the part reads or returns.
      read: indices of the values that the part reads and does not compute.
    """

    multiply_adds: int
    bytes: int
    read: set[int]


def graph_of(closed: ClosedJaxpr) -> Graph:
    """The graph of a traced program."""
    builder = _GraphBuilder()
    inputs = [builder.add_value(variable) for variable in closed.jaxpr.invars]
    outputs = builder.add_equations(closed, inputs)
    return Graph(builder.value_bytes, builder.equations, inputs, outputs)


def needed_work(graph: Graph, outputs: Sequence[int], counted: set[int]) -> Work:
    """Work of the equations that the outputs need and that are not `counted` yet; adds them to `counted`.

    An output that no such equation computes is passed on and moves no bytes.
    """
    needed = set(outputs)
    read = set()
    computed = set()
    multiply_adds = 0
    for index in reversed(range(len(graph.equations))):
        equation = graph.equations[index]
        if index in counted or needed.isdisjoint(equation.outputs):
            continue
        counted.add(index)
        multiply_adds += equation.multiply_adds
        needed |= equation.inputs
        read |= equation.inputs
        computed |= equation.outputs
    read -= computed
    moved = read | (computed & set(outputs))
    return Work(multiply_adds, sum(graph.value_bytes[value] for value in moved), read)


def total_work(closed: ClosedJaxpr) -> Work:
    """Work of a whole program, without the equations that no output depends on."""
    graph = graph_of(closed)
    return needed_work(graph, graph.outputs, set())


class _GraphBuilder:
    """Collects values and equations; constants that several functions close over are one value."""

    def __init__(self) -> None:
        self.value_bytes = [0]  # LITERAL has no size
        self.equations: list[Equation] = []
        self._constants: dict[int, int] = {}

    def add_value(self, variable: Var) -> int:
        """Adds a value and returns its index."""
        aval = _array_type(variable)
        self.value_bytes.append(math.prod(aval.shape) * aval.dtype.itemsize)
        return len(self.value_bytes) - 1

    def add_equations(self, closed: ClosedJaxpr, inputs: Sequence[int]) -> list[int]:
        """Adds a program's equations on these inputs; returns the indices of its outputs."""
        jaxpr = closed.jaxpr
        values = dict(zip(jaxpr.invars, inputs, strict=True))
        for variable, constant in zip(jaxpr.constvars, closed.consts, strict=True):
            values[variable] = self._add_constant(variable, constant)
        for equation in jaxpr.eqns:
            outputs = self._add_equation(equation, _value_indices(equation.invars, values))
            values |= zip(equation.outvars, outputs, strict=True)
        return _value_indices(jaxpr.outvars, values)

    def _add_constant(self, variable: Var, constant: object) -> int:
        if id(constant) not in self._constants:
            self._constants[id(constant)] = self.add_value(variable)
        return self._constants[id(constant)]

    def _add_equation(self, equation: JaxprEqn, inputs: Sequence[int]) -> list[int]:
        called = _called_function(equation)
        if called is not None:
            return self.add_equations(called, inputs)
        outputs = [self.add_value(variable) for variable in equation.outvars]
        self.equations.append(Equation(_multiply_adds(equation), frozenset(inputs), frozenset(outputs)))
        return outputs


def _value_indices(atoms: Sequence[Var | Literal], values: dict[Var, int]) -> list[int]:
    return [LITERAL if isinstance(atom, Literal) else values[atom] for atom in atoms]


def _called_function(equation: JaxprEqn) -> ClosedJaxpr | None:
    """The function that an equation merely calls (jit, checkpoint, custom derivatives); None for other equations."""
    inner = list(_inner_programs(equation))
    if len(inner) != 1 or equation.primitive is scan_p:
        return None
    called = inner[0].jaxpr
    same_inputs = _shapes(equation.invars) == _shapes(called.invars)
    same_outputs = _shapes(equation.outvars) == _shapes(called.outvars)
    return inner[0] if same_inputs and same_outputs else None


def _inner_programs(equation: JaxprEqn) -> Iterator[ClosedJaxpr]:
    for param in equation.params.values():
        for value in param if isinstance(param, tuple | list) else (param,):
            if isinstance(value, ClosedJaxpr):
                yield value
            elif isinstance(value, Jaxpr) and not value.constvars:
                yield ClosedJaxpr(value, ())


def _multiply_adds(equation: JaxprEqn) -> int:
    if equation.primitive is dot_general_p:
        return _matrix_product_multiply_adds(equation)
    if equation.primitive is correlate_p:
        return _correlation_multiply_adds(equation)
    if equation.primitive is grouped_correlate_p:
        return _grouped_multiply_adds(equation)
    if equation.primitive is conv_general_dilated_p:
        return _convolution_multiply_adds(equation)
    inner = [total_work(closed).multiply_adds for closed in _inner_programs(equation)]
    if equation.primitive is cond_p:
        return max(inner)
    if equation.primitive is scan_p:
        return equation.params["length"] * sum(inner)
    if any(inner):
        raise ValueError(
            f"function_or_net: cannot count multiply-adds inside `{equation.primitive}` (unknown trip count); "
            "use lax.scan or lax.fori_loop with static bounds"
        )
    return 0


def _matrix_product_multiply_adds(equation: JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = _shape(equation.invars[0])
    out = _shape(equation.outvars[0])
    return math.prod(out) * math.prod(left[axis] for axis in contracted)


def _correlation_multiply_adds(equation: JaxprEqn) -> int:
    images, *_, channels = _shape(equation.invars[0])
    *window, _, kernels = _shape(equation.invars[1])
    out = _shape(equation.outvars[0])
    output_size = out[2:] if equation.params["channels_first"] else out[1:3]
    return images * kernels * channels * _taps(output_size, window, **_spacing(equation))


def _grouped_multiply_adds(equation: JaxprEqn) -> int:
    images, *_, groups, channels = _shape(equation.invars[0])
    *window, _, _, kernels = _shape(equation.invars[1])
    output_size = _shape(equation.outvars[0])[1:3]
    return images * groups * kernels * channels * _taps(output_size, window, **_spacing(equation))


def _spacing(equation: JaxprEqn) -> Spacing:
    return spacing_of(cast(Spacing, equation.params))


def _convolution_multiply_adds(equation: JaxprEqn) -> int:
    params = equation.params
    _, (feature_axis, channel_axis, *window_axes), (batch_axis, _, *output_axes) = params["dimension_numbers"]
    kernel = _shape(equation.invars[1])
    out = _shape(equation.outvars[0])
    taps = _taps(
        [out[axis] for axis in output_axes],
        [kernel[axis] for axis in window_axes],
        stride=params["window_strides"],
        dilation=params["rhs_dilation"],
        lhs_dilation=params["lhs_dilation"],
        padding=params["padding"],
    )
    return out[batch_axis] * kernel[feature_axis] * kernel[channel_axis] * taps


def _taps(
    output_size: Sequence[int],
    window: Sequence[int],
    *,
    stride: Sequence[int],
    dilation: Sequence[int],
    lhs_dilation: Sequence[int],
    padding: Sequence[tuple[int, int]],
) -> int:
    """How many pixels the windows at all positions cover: padding counts, zeros between dilated pixels do not."""
    taps = 1
    for axis in range(len(window)):
        starts = stride[axis] * np.arange(output_size[axis]) - padding[axis][0]
        offsets = dilation[axis] * np.arange(window[axis])
        positions = starts[:, None] + offsets[None, :]
        taps *= int((positions % lhs_dilation[axis] == 0).sum())
    return taps


def _array_type(atom: Var | Literal) -> ShapedArray:
    return cast(ShapedArray, atom.aval)  # JAX declares a base class without a shape


def _shape(atom: Var | Literal) -> tuple[int, ...]:
    return _array_type(atom).shape


def _shapes(atoms: Sequence[Var | Literal]) -> list[tuple[int, ...]]:
    return [_shape(atom) for atom in atoms]
