import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax._padding import NO_PADDING
from cnn_jax._reduce_windows import MAX_PARTS, add, best_division, reduce_windows
from tests.helpers import oracles
from tests.helpers.oracles import noise, whole


@pytest.mark.parametrize("window", [(1, 1), (2, 3), (5, 7), (16, 17), (31, 33)])
def test_sums_of_any_window_equal_the_reference(window):
    image = whole(0, 34, 33, 2)
    got = jax.jit(lambda image: reduce_windows(image, window, (1, 3), NO_PADDING, 0, add))(image)
    np.testing.assert_array_equal(got, oracles.pool(image, np.sum, window=window, stride=(1, 3)))


def test_an_operation_sees_its_operands_in_reading_order_with_their_counts():
    counts = []

    def first(a, b, count_a, count_b):
        counts.append(count_a + count_b)
        return a

    def last(a, b, count_a, count_b):
        return b

    image = jnp.arange(6.0 * 7).reshape(6, 7)
    corner = reduce_windows(image, (3, 5), (1, 1), NO_PADDING, 0, first)
    np.testing.assert_array_equal(corner, image[:4, :3])
    np.testing.assert_array_equal(reduce_windows(image, (3, 5), (1, 1), NO_PADDING, 0, last), image[2:, 4:])
    assert counts == [2, 4, 5, 10, 15]  # columns in pairs, then rows of five


@pytest.mark.parametrize("window", [(3, 5), (16, 19)])
def test_counts_weight_what_is_merged(window):
    """Means and sums of squared deviations, merged pair by pair."""

    def merge(a, b, count_a, count_b):
        step = b[0] - a[0]
        share = count_b / (count_a + count_b)
        return a[0] + step * share, a[1] + b[1] + step**2 * count_a * share

    image = noise(0, 20, 21)
    start = image, jnp.zeros_like(image)
    mean, spread = jax.jit(lambda start: reduce_windows(start, window, (1, 1), NO_PADDING, 0, merge))(start)
    options = {"window": window, "stride": 1}
    np.testing.assert_allclose(mean, oracles.pool(image, np.mean, **options), atol=1e-6)
    size = window[0] * window[1]
    np.testing.assert_allclose(spread, size * oracles.pool(image, np.var, **options), rtol=1e-5)


def test_padded_pixels_hold_the_initial_value():
    image = jnp.ones((2, 2))
    got = reduce_windows(image, (2, 2), (1, 1), ((1, 0), (0, 1)), 5, add)
    np.testing.assert_array_equal(got, [[12, 16], [4, 12]])


def test_operations_grow_with_the_logarithm_of_the_window():
    calls = []

    def count(a, b, *_):
        calls.append(1)
        return a + b

    reduce_windows(jnp.zeros((1, 1024)), (1, 1024), (1, 1), NO_PADDING, 0, count)
    assert len(calls) <= 20


def test_divisions_are_the_best_of_all():
    """Beside a search through all sequences of parts: passes count most, then operations."""

    def costs(length):
        if length <= MAX_PARTS:
            yield 1, length - 1
        for parts in range(2, MAX_PARTS + 1):
            part = length // parts
            if part > 1:
                added = parts - 1 + length - parts * part
                yield from ((passes + 1, operations + added) for passes, operations in costs(part))

    for length in range(1, 200):
        assert best_division(length)[:2] == min(costs(length))
