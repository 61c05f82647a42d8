import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn_jax._padding import NO_PADDING, explicit_padding
from tests.helpers import oracles

NAMES = ("image", "window")
axes = st.tuples(st.integers(1, 12), st.integers(1, 5), st.integers(1, 4))


def padding(kind, size, window, stride):
    return explicit_padding(kind, (size, size), (window, window), (stride, stride), names=NAMES)[0]


def windows(size, window, stride, pad):
    return (size + sum(pad) - window) // stride + 1


def test_valid_adds_nothing():
    assert explicit_padding("VALID", (5, 6), (2, 3), (1, 2), names=NAMES) == NO_PADDING


@given(axes)
def test_same_gives_a_window_for_every_stride_and_adds_the_odd_pixel_after(axis):
    size, window, stride = axis
    low, high = padding("SAME", size, window, stride)
    assert 0 <= high - low <= 1
    assert windows(size, window, stride, (low, high)) == math.ceil(size / stride)


@given(axes)
def test_ceil_starts_at_the_first_pixel_and_keeps_the_last_partial_window(axis):
    size, window, stride = axis
    low, high = padding("CEIL", size, window, stride)
    starts = list(oracles.starts(size, window, stride, "CEIL"))
    assert (low, starts[0]) == (0, 0)
    assert windows(size, window, stride, (low, high)) == len(starts)
    assert high == max(0, starts[-1] + window - size)


def test_explicit_pads_are_taken_as_given():
    pads = [[1, 2], (0, 3)]
    assert explicit_padding(pads, (5, 5), (3, 3), (1, 1), names=NAMES) == ((1, 2), (0, 3))


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ("FULL", ValueError, "padding: expected 'VALID', 'SAME', 'CEIL' or .*, got 'FULL'"),
        (1, TypeError, "padding: expected 'VALID'.*, got 1"),
        (None, TypeError, "padding: expected 'VALID'.*, got None"),
        (((1, 1),), ValueError, r"padding: expected 'VALID'.*, got \(\(1, 1\),\)"),
        (((1, 1), (-1, 0)), ValueError, "padding: .*none negative, got"),
        (((1, 1), (0.5, 0)), TypeError, "padding: expected 'VALID'"),
    ],
)
def test_a_wrong_padding_is_named(wrong, error, message):
    with pytest.raises(error, match=message):
        explicit_padding(wrong, (5, 5), (3, 3), (1, 1), names=NAMES)


def test_a_window_larger_than_the_padded_image_is_named_as_the_caller_does():
    message = r"feature: expected at most the size of the padded picture \(5, 6\), got \(3, 7\) \(padding=\(\(0, 0\)"
    with pytest.raises(ValueError, match=message):
        explicit_padding(((0, 0), (1, 0)), (5, 5), (3, 7), (1, 1), names=("picture", "feature"))
