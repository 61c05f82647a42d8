"""The table of a network."""

import jax
import pytest

import cnn_jax as cnn
from cnn_jax import summary
from cnn_jax.layers import Chain, Dense

NET = Chain(
    cnn.Conv(4, padding="SAME"),
    cnn.BatchNorm(),
    cnn.Residual(cnn.Conv(4, padding="SAME"), cnn.Activation(jax.nn.relu)),
    cnn.MaxPool(),
    cnn.GlobalAvgPool(),
    Dense(1000),
)


def test_a_summary_has_a_line_for_each_layer():
    """BatchNorm's statistics and the sum of the residual block belong to their layers."""
    assert summary(NET, (16, 12, 2)).splitlines() == [
        "stage             output   parameters  multiply-adds  receptive field",
        "conv1             16×12×4          76         13,824              3×3",
        "batch_norm1       16×12×4          16              0              3×3",
        "residual1/conv1   16×12×4         148         27,648              5×5",
        "residual1/relu1   16×12×4           0              0              5×5",
        "residual1         16×12×4           0              0              5×5",
        "max_pool1         8×6×4             0              0              6×6",
        "global_avg_pool1  4                 0              0            16×12",
        "dense1            1000          5,000          4,000            16×12",
        "total                           5,240         45,472",
    ]


def test_the_totals_are_those_of_cost():
    total = cnn.cost(NET, (16, 12, 2))
    assert summary(NET, [16, 12, 2]).split()[-2:] == [f"{total.parameters:,}", f"{total.multiply_adds:,}"]


def test_a_vector_has_no_receptive_field():
    assert summary(Dense(3), (5,)).splitlines()[1:] == [
        "dense  3               18             15",
        "total                  18             15",
    ]


def test_other_arguments_are_refused():
    wrong_net = len
    with pytest.raises(TypeError, match=r"net: expected a Layer, got .*len"):
        summary(wrong_net, (4, 4, 1))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="shape: expected sizes of at least 1"):
        summary(NET, (0, 4, 1))
