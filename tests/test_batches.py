"""Sources of batches: which examples each step gets, and what is refused."""

import contextlib
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax._batches import ArrayBatches, BatchSource, SampledBatches, StreamBatches, open_source
from cnn_jax._sharding import Placement
from tests.helpers.streams import CountingStream

pytestmark = pytest.mark.usefixtures("compile_cache")

KEY = jax.random.key(0)
IMAGES = np.arange(8 * 4, dtype=np.float32).reshape(8, 2, 2)
LABELS = np.arange(8, dtype=np.int32)


def array_batches(data=(IMAGES, LABELS), batch_size=2, augment=None):
    return ArrayBatches(data, batch_size, KEY, augment, Placement())


def load_steps(source, steps):
    """The images and labels of the first steps, stacked."""
    load = jax.jit(source.load)
    data_state = source.initial_data_state
    batches = []
    for step in range(steps):
        images, labels, data_state = load(source.next_arrays(), data_state, jnp.int32(step))
        batches.append((images, labels))
    images, labels = zip(*jax.device_get(batches), strict=True)
    return np.stack(images), np.stack(labels)


def test_every_epoch_has_every_image_once_in_a_new_order():
    images, labels = load_steps(array_batches(), 12)
    epochs = labels.reshape(3, 8)
    np.testing.assert_array_equal(np.sort(epochs), [range(8)] * 3)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    np.testing.assert_array_equal(images[..., 0], IMAGES[labels])


def test_the_last_partial_batch_of_an_epoch_is_left_out():
    _, labels = load_steps(array_batches(batch_size=3), 6)
    for epoch in labels.reshape(3, 6):
        assert len(set(epoch)) == 6


def test_images_get_a_channel_axis_if_they_have_none():
    assert array_shapes(IMAGES) == (2, 2, 2, 1)
    assert array_shapes(np.zeros((8, 2, 2, 3), np.uint8)) == (2, 2, 2, 3)


def array_shapes(images):
    source = array_batches((images, LABELS))
    loaded = jax.eval_shape(source.load, source.example_arrays, source.initial_data_state, jnp.int32(0))
    return loaded[0].shape


def test_augment_receives_the_stored_batch_its_indices_and_the_epoch():
    def augment(key, batch):
        assert (batch.images.dtype, batch.labels.dtype) == (np.uint8, np.int32)
        epochs = jnp.broadcast_to(batch.epoch, batch.indices.shape)
        return batch.images.astype(jnp.float32), jnp.stack([batch.indices, epochs, batch.labels], -1)

    images = np.broadcast_to(np.arange(8, dtype=np.uint8)[:, None, None], (8, 2, 2))
    augmented, labels = load_steps(array_batches((images, 10 * LABELS), augment=augment), 8)
    indices, epochs, stored_labels = np.moveaxis(labels, -1, 0)
    np.testing.assert_array_equal(epochs[:, 0], [0] * 4 + [1] * 4)
    np.testing.assert_array_equal(stored_labels, 10 * indices)
    np.testing.assert_array_equal(augmented[:, :, 0, 0, 0], indices)
    np.testing.assert_array_equal(np.sort(indices.reshape(2, 8)), [range(8)] * 2)


def test_augment_has_a_new_key_in_every_step():
    def augment(key, batch):
        return batch.images, jax.random.normal(key, (len(batch.images),))

    _, labels = load_steps(array_batches(augment=augment), 8)
    assert len(np.unique(labels)) == 16


def test_sampled_batches_are_new_in_every_step():
    def sample(key):
        return jnp.zeros((1, 1)), jax.random.uniform(key)

    images, labels = load_steps(SampledBatches(sample, 2, KEY, Placement()), 5)
    assert images.shape == (5, 2, 1, 1, 1)
    assert len(np.unique(labels)) == 10


def test_a_stream_gives_one_batch_for_each_call_and_counts_its_position():
    source = StreamBatches(CountingStream(), 4, KEY, None, Placement())
    assert (source.position, source.max_steps_per_call) == (0, 1)
    images, labels = load_steps(source, 3)
    np.testing.assert_array_equal(labels, np.arange(12).reshape(3, 4))
    np.testing.assert_array_equal(images[..., 0, 0, 0], labels)
    assert source.position == 12


def test_a_stream_continues_at_a_position():
    for read_before in (0, 2):
        source = StreamBatches(CountingStream(), 4, KEY, None, Placement())
        for _ in range(read_before):
            source.next_arrays()
        source.seek(20)
        assert source.position == 20
        np.testing.assert_array_equal(load_steps(source, 1)[1], [[20, 21, 22, 23]])


def test_a_stream_that_starts_at_the_beginning_loses_no_batch():
    source = StreamBatches(CountingStream(), 4, KEY, None, Placement())
    source.seek(0)
    np.testing.assert_array_equal(load_steps(source, 1)[1], [[0, 1, 2, 3]])


def test_augment_receives_a_streams_indices_and_epoch():
    def augment(key, batch):
        return batch.images, jnp.stack([batch.indices, jnp.broadcast_to(batch.epoch, batch.indices.shape)], -1)

    _, labels = load_steps(StreamBatches(CountingStream(), 5, KEY, augment, Placement()), 3)
    np.testing.assert_array_equal(labels[..., 0].ravel(), [*range(10), *range(5)])
    np.testing.assert_array_equal(labels[..., 1], [[0] * 5, [0] * 5, [1] * 5])


def test_a_stream_is_closed_with_its_source():
    stream = CountingStream()
    with contextlib.suppress(KeyError), open_source(stream, 4, KEY, None, Placement()):
        raise KeyError
    assert stream.closed == 1


def test_labels_are_known_where_they_are_learned_unchanged():
    np.testing.assert_array_equal(array_batches().labels, LABELS)
    assert array_batches(augment=lambda key, batch: batch[:2]).labels is None


def test_other_data_have_another_fingerprint():
    fingerprints = [
        array_batches().fingerprint,
        array_batches((IMAGES + 1, LABELS)).fingerprint,
        array_batches((IMAGES, LABELS + 1)).fingerprint,
        StreamBatches(CountingStream(), 2, KEY, None, Placement()).fingerprint,
    ]
    assert array_batches().fingerprint == fingerprints[0]
    assert len({json.dumps(fingerprint) for fingerprint in fingerprints}) == 4


def test_the_kind_of_data_decides_on_the_source():
    for data, kind in (
        ((IMAGES, LABELS), ArrayBatches),
        (lambda key: (jnp.zeros((2, 2)), 0), SampledBatches),
        (CountingStream(), StreamBatches),
    ):
        with open_source(data, 2, KEY, None, Placement()) as source:
            assert isinstance(source, kind)


def test_what_is_read_is_placed_where_training_is():
    devices = jax.devices()
    placement = Placement()
    for source in (array_batches(), StreamBatches(CountingStream(), 2, KEY, None, placement)):
        chex.assert_tree_is_on_device(jax.tree.leaves(source.next_arrays())[:2], device=devices[0])


@pytest.mark.parametrize(
    ("data", "batch_size", "augment", "error", "message"),
    [
        ((IMAGES, LABELS[:-1]), 2, None, ValueError, r"data: expected as many labels as images \(8\), got 7"),
        ((IMAGES, LABELS), 9, None, ValueError, r"batch_size: expected at most the number of images \(8\), got 9"),
        (None, 2, None, TypeError, "data: .*None"),
        ((IMAGES, LABELS, LABELS), 2, None, TypeError, "data: .*tuple"),
        (("text", LABELS), 2, None, TypeError, "data: "),
        (lambda key: None, 2, lambda key, batch: batch[:2], TypeError, "augment: .*data is a function"),
    ],
)
def test_bad_data_are_refused(data, batch_size, augment, error, message):
    with pytest.raises(error, match=message), open_source(data, batch_size, KEY, augment, Placement()):
        pass


@pytest.mark.parametrize("shape", [(8, 2), (8, 1, 1, 2, 2)])
def test_images_of_another_rank_are_refused(shape):
    with pytest.raises(ValueError, match=r"data: expected images \(H, W\) or \(H, W, C\)"):
        array_shapes(np.zeros(shape))


def test_a_source_without_its_methods_cannot_be_made():
    class Unfinished(BatchSource):
        def next_arrays(self):
            return ()

    with pytest.raises(TypeError, match="example_arrays"):
        Unfinished()  # pyright: ignore[reportAbstractUsage]
