"""The history: metrics of steps and of validations; the loss by which checkpoints are compared."""

import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax._history import MetricsReader, loss_to_compare
from cnn_jax.progress import Progress


class Bar(Progress):
    """Records its notes."""

    def __init__(self):
        super().__init__("training", 1, show=False)
        self.notes = []

    def update(self, done, note=""):
        self.notes.append((done, note))


def reader_after(losses, **options):
    bar = Bar()
    reader = MetricsReader(bar, **options)
    for loss in losses:
        reader.add(1, {"loss": jnp.array([loss])})
    reader.read_all()
    return reader, bar


def test_the_newest_metrics_are_shown_with_those_of_the_last_validation():
    reader, bar = reader_after([2.0, 1.0])
    reader.add_validation({"loss": 0.5})
    assert bar.notes[-1] == (2, "loss 1.0000  validation_loss 0.5000")
    assert reader.latest() == {"loss": 1.0, "validation_loss": 0.5}
    reader.add(1, {"loss": jnp.array([0.25])})
    reader.read_all()
    assert bar.notes[-1] == (3, "loss 0.2500  validation_loss 0.5000")
    assert reader.latest() == {"loss": 0.25}


def test_the_history_of_an_earlier_part_continues():
    past = {
        "loss": np.array([3.0, 2.0], np.float32),
        "validation_step": np.array([2], np.int32),
        "validation_loss": np.array([0.5], np.float32),
    }
    reader, _ = reader_after([1.0], step=2, history=past)
    assert not reader.add_validation({"loss": 0.75})
    history = reader.history()
    np.testing.assert_array_equal(history["loss"], [3, 2, 1])
    np.testing.assert_array_equal(history["validation_step"], [2, 3])
    np.testing.assert_array_equal(history["validation_loss"], [0.5, 0.75])
    assert {name: values.dtype for name, values in history.items()} == {
        name: values.dtype for name, values in past.items()
    }


def test_a_history_without_steps_is_empty():
    assert MetricsReader(Bar()).history() == {}


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([1.0, 0.5, 0.75, 0.5], [True, True, False, False]),
        ([np.nan, 1.0, np.nan, 0.5], [False, True, False, True]),
        ([np.inf, 2.0], [False, True]),
    ],
)
def test_the_lowest_validation_loss_so_far_is_noticed(losses, expected):
    reader, _ = reader_after([1.0])
    assert [reader.add_validation({"loss": loss}) for loss in losses] == expected


def test_checkpoints_are_compared_by_the_mean_loss_since_the_last_one():
    history = {"loss": np.array([9.0, 1.0, 3.0])}
    assert loss_to_compare(history, step=3, last_step=1) == 2
    assert loss_to_compare({"loss": np.array([9.0, np.nan])}, step=2, last_step=1) == np.inf


def test_checkpoints_are_compared_by_the_validation_after_the_same_step():
    history = {"loss": np.ones(4), "validation_step": np.array([2, 4]), "validation_loss": np.array([0.25, 0.5])}
    assert loss_to_compare(history, step=4, last_step=2) == 0.5
    assert loss_to_compare(history, step=5, last_step=4) == np.inf
