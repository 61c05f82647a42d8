"""Loaders: what makes two of them equal, and how an epoch continues in the middle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax._batch_loaders import UNKNOWN, ArrayLoader, SampleLoader, StreamLoader, with_channels
from cnn_jax._contents import Contents

KEYS = tuple(jax.random.split(jax.random.key(0)))
ARRAYS = (jnp.zeros((6, 2, 2)), jnp.arange(6), KEYS)


def test_an_epoch_continues_in_the_order_that_it_began_with():
    load = jax.jit(ArrayLoader(2, Contents(None)))
    order = jnp.full(6, UNKNOWN, int)
    seen = []
    for step in range(6):
        _, labels, continued = load(ARRAYS, order, jnp.int32(step))
        _, restarted_labels, restarted = load(ARRAYS, jnp.full(6, UNKNOWN, int), jnp.int32(step))
        np.testing.assert_array_equal(labels, restarted_labels)
        np.testing.assert_array_equal(continued, restarted)
        order = continued
        seen.append(labels)
    np.testing.assert_array_equal(np.sort(np.reshape(seen, (2, 6))), [range(6)] * 2)


def test_loaders_are_equal_if_their_options_are():
    def sample(key):
        return jnp.zeros((2, 2)), 0

    def make_loaders():
        no_augment = Contents(None)
        arrays = [ArrayLoader(2, no_augment), ArrayLoader(3, no_augment)]
        return [*arrays, SampleLoader(Contents(sample), 2), StreamLoader(no_augment)]

    loaders = make_loaders()
    again = make_loaders()
    assert loaders == again
    assert len({*loaders, *again}) == 4


@pytest.mark.parametrize("shape", [(5,), (5, 2), (5, 1, 2, 2, 1)])
def test_images_of_another_rank_are_refused_by_the_name_of_their_argument(shape):
    with pytest.raises(ValueError, match=r"pictures: expected images \(H, W\) or \(H, W, C\), got shape"):
        with_channels("pictures", np.zeros(shape))
