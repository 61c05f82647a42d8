"""Options of layers: their one form, their text and their pickles."""

import functools
import pickle

import jax
import numpy as np
import pytest

from cnn_jax._layer_options import check_window, from_pickle, text_of, to_pickle


def test_windows_strides_and_pads_have_one_form():
    assert check_window("window", 2, (1, 1), "SAME") == check_window("window", [2, 2], 1, "SAME")
    assert check_window("window", 2, 1, [[1, 0], [0, 1]]) == ((2, 2), (1, 1), ((1, 0), (0, 1)))
    with pytest.raises(ValueError, match=r"kernel_size: .*0"):
        check_window("kernel_size", 0, 1, "VALID")


@pytest.mark.parametrize(
    "value", [jax.nn.relu, jax.numpy.tanh, jax.nn.gelu, abs, np.tanh, dict, 3, "relu", (1, 2), None]
)
def test_values_survive_pickling(value):
    assert from_pickle(pickle.loads(pickle.dumps(to_pickle(value)))) == value


def test_only_objects_that_are_found_by_their_name_are_named():
    @jax.jit
    def local(x):
        return x

    assert to_pickle(local) is local
    partial = functools.partial(max, 1)
    assert to_pickle(partial) is partial
    assert from_pickle("jax.nn:relu") == "jax.nn:relu"  # text of a user, not a name


def test_text_is_short():
    assert [text_of(value) for value in ((3, 3), (3, 1), ((1, 1), (0, 0)), True, jax.nn.relu, None)] == [
        "3",
        "(3, 1)",
        "((1, 1), (0, 0))",
        "True",
        "relu",
        "None",
    ]
