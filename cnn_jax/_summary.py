"""Summary of a network: a table of its layers."""

from collections.abc import Mapping, Sequence

from ._validation import as_positive_shape
from .costs import Cost, cost
from .layers import Layer
from .receptive_field import receptive_field

HEADER = ("stage", "output", "parameters", "multiply-adds", "receptive field")


def summary(net: Layer, shape: Sequence[int]) -> str:
    """A table of a network: for each layer its output, parameters, multiply-adds and receptive field, and their totals.

    Args:
      net: the network.
      shape: the shape of its input, such as (H, W, C).

    Returns:
      Text with one line a layer, in the order of computation. Inner layers have paths as names: "residual1/conv1". What
      a layer computes besides its inner layers counts for the layer itself.

    Raises:
      TypeError: `net` is not a layer; the shape is not ints; an output is not one array of floats.
      ValueError: the network does not accept the shape.

    Notes:
      Parameters and multiply-adds are those of `cost`. The receptive field is that of the center output, as
      `receptive_field` measures it: it ends at the image's border. A vector as input has none.

      Cost: as `receptive_field`, a compilation of the network and a few dozen evaluations.

    Example:
      >>> from cnn_jax.layers import Chain, Conv, Dense, Flatten, MaxPool
      >>> net = Chain(Conv(8, padding="SAME"), MaxPool(), Conv(16), Flatten(), Dense(10))
      >>> print(summary(net, (28, 28, 1)))
      stage        output    parameters  multiply-adds  receptive field
      conv1        28×28×8           80         56,448              3×3
      max_pool1    14×14×8            0              0              4×4
      conv2        12×12×16       1,168        165,888              8×8
      flatten1     2304               0              0            28×28
      dense1       10            23,050         23,040            28×28
      total                      24,298        245,376
    """
    if not isinstance(net, Layer):
        raise TypeError(f"net: expected a Layer, got {net!r}")
    shape = as_positive_shape(shape)
    total = cost(net, shape)
    fields = receptive_field(net, shape) if len(shape) in (2, 3) else {}
    rows: list[tuple[str, ...]] = [HEADER]
    for name, layer in _costs_of_layers(total.stages).items():
        field = _sizes(fields.get(name, ()))
        rows.append((name, _sizes(layer.shape), f"{layer.parameters:,}", f"{layer.multiply_adds:,}", field))
    rows.append(("total", "", f"{total.parameters:,}", f"{total.multiply_adds:,}", ""))
    return _table(rows)


def _costs_of_layers(stages: Mapping[str, Cost]) -> dict[str, Cost]:
    """The costs of layers, which `Chain` numbers, each with its other stages, such as a BatchNorm's mean."""
    layers = {}
    for name, stage in stages.items():
        layer = name
        while "/" in layer and not layer[-1].isdigit():
            layer = layer.rpartition("/")[0]
        before = layers.get(layer, Cost(0, 0, 0, (), {}))
        layers[layer] = stage._replace(
            parameters=before.parameters + stage.parameters, multiply_adds=before.multiply_adds + stage.multiply_adds
        )
    return layers


def _sizes(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as lines of aligned columns, the first two to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
