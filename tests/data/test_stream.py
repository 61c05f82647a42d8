"""Streams: every image once an epoch, in an order of the seed alone, corrupt ones left out and named."""

import itertools
import sys

import chex
import jax
import numpy as np
import optax
import pytest
from absl import flags

from cnn_jax.data.sources import FolderSource, RecordSource, write_records
from cnn_jax.data.stream import Source, Stream
from cnn_jax.layers import Chain, Dense, Flatten
from cnn_jax.training import fit
from tests.helpers.pictures import CORRUPT, READABLE, SIZE, write_pictures


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return FolderSource(write_pictures(tmp_path_factory.mktemp("pictures") / "all"), size=SIZE)


def first_batches(stream, count, batch_size, start=0):
    batches = stream.batches(batch_size, start)
    read = list(itertools.islice(batches, count))
    batches.close()
    return read


def test_every_epoch_has_every_image_once(source):
    stream = Stream(source)
    assert len(stream) == len(source) == READABLE + CORRUPT
    batches = first_batches(stream, 6, 20)  # two epochs
    for epoch in range(2):
        of_epoch = batches[3 * epoch : 3 * epoch + 3]
        assert [batch.epoch for batch in of_epoch] == [epoch] * 3
        levels = np.concatenate([batch.images[:, 0, 0, 0] for batch in of_epoch])
        assert sorted(levels) == [4 * i for i in range(READABLE)]
    assert not np.array_equal(batches[0].indices, batches[3].indices)


def test_batches_have_images_labels_and_indices_of_the_source(source):
    for batch in first_batches(Stream(source), 2, 20):
        assert (batch.images.shape, batch.images.dtype) == ((20, SIZE, SIZE, 3), np.uint8)
        np.testing.assert_array_equal(batch.labels, batch.images[:, 0, 0, 0] >= 120)
        for image, index in zip(batch.images, batch.indices, strict=True):
            np.testing.assert_array_equal(image, source[int(index)][0])


def test_corrupt_images_are_listed_with_the_reason(source):
    stream = Stream(source)
    first_batches(stream, 4, 20)
    assert {name.rsplit("/")[-1] for name in stream.corrupt} == {f"bad{i}.png" for i in range(CORRUPT)}
    for index in range(len(source)):
        if source.name(index) in stream.corrupt:
            with pytest.raises(ValueError, match=r"bad.\.png") as error:
                source[index]
            assert stream.corrupt[source.name(index)] == str(error.value)


def test_another_seed_is_another_order(source):
    orders = [first_batches(Stream(source, seed=seed), 1, 20)[0].indices.tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def check_continuation(source, positions, workers):
    batches = first_batches(Stream(source, seed=1), 8, 16)
    for i in positions:
        stream = Stream(source, seed=1, workers=workers)
        continued = first_batches(stream, 2, 16, batches[i].position)
        chex.assert_trees_all_equal(continued, batches[i + 1 : i + 3])


def test_a_position_is_where_to_continue(source):
    check_continuation(source, (0, 2, 5), workers=0)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_worker_processes_change_nothing_and_leave_abseils_flags_as_they_were(source, workers):
    parsed = flags.FLAGS.is_parsed()
    present = {name: flags.FLAGS[name].present for name in flags.FLAGS}
    check_continuation(source, (2,), workers)
    assert flags.FLAGS.is_parsed() == parsed
    assert {name: flags.FLAGS[name].present for name in present} == present


def grain_flags_present():
    return {name: flags.FLAGS[name].present for name in flags.FLAGS if name.startswith("grain_")}


def test_abseils_flags_count_as_parsed_only_while_reading_starts(source, monkeypatch):
    import grain  # noqa: F401  # defines its flags

    name = next(iter(grain_flags_present()))
    monkeypatch.setattr(flags.FLAGS[name], "present", 2)  # given twice on the command line
    present = grain_flags_present()
    assert 0 in present.values()
    seen = []

    class Watching(FolderSource):
        def __getitem__(self, index):
            seen.append(all(grain_flags_present().values()))
            return super().__getitem__(index)

    batches = Stream(Watching(source.path, size=SIZE)).batches(8)
    next(batches)
    assert seen[0]
    assert grain_flags_present() == present
    next(batches)
    batches.close()
    assert grain_flags_present() == present


@pytest.mark.parametrize("first_closed", [0, 1])
def test_overlapping_streams_leave_abseils_flags_as_they_were(source, first_closed):
    present = grain_flags_present()
    streams = [Stream(source, seed=seed).batches(8) for seed in range(2)]
    for batches in streams:
        next(batches)
    streams.pop(first_closed).close()
    next(streams[0])
    streams[0].close()
    assert grain_flags_present() == present


def test_processes_share_the_images(source, monkeypatch):
    levels = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for process in range(2):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        stream = Stream(source, max_corrupt_fraction=0.2)
        first_epoch = itertools.takewhile(lambda batch: batch.epoch == 0, stream.batches(1))
        levels.extend(int(batch.images[0, 0, 0, 0]) for batch in first_epoch)
    assert sorted(levels) == [4 * i for i in range(READABLE)]


def test_too_many_corrupt_images_end_the_reading(source):
    stream = Stream(source, max_corrupt_fraction=0.02)
    with pytest.raises(ValueError, match=r"source: 2 of 63 images cannot be read, among them .*/dark/bad"):
        first_batches(stream, 20, 8)


def test_records_are_streamed_as_their_files_are(source, tmp_path):
    def files():
        for index in range(len(source)):
            with open(source.name(index), "rb") as file:
                yield file.read(), int(source.labels[index])

    write_records(tmp_path / "all.array_record", files())
    stream = Stream(RecordSource([tmp_path / "all.array_record"], source.classes, size=SIZE))
    chex.assert_trees_all_equal(first_batches(stream, 3, 20), first_batches(Stream(source), 3, 20))
    names = sorted(name.rsplit("/")[-1] for name in stream.corrupt)
    assert names == [f"all.array_record[{30 + i}]" for i in range(CORRUPT)]


def test_the_fingerprint_tells_streams_apart(source):
    assert Stream(source).fingerprint == Stream(source).fingerprint
    assert Stream(source).fingerprint != Stream(source, seed=1).fingerprint
    assert isinstance(source, Source)


@pytest.mark.parametrize("options", [{"max_corrupt_fraction": 1}, {"workers": -1}, {"seed": -1}])
def test_bad_arguments_are_refused(source, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}: "):
        Stream(source, **options)


def test_fewer_images_than_processes_are_refused(source, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 100)
    monkeypatch.setattr(jax, "process_index", lambda: 99)
    with pytest.raises(ValueError, match="source: expected an image for each of 100 processes, got 63"):
        Stream(source)


def test_missing_grain_is_named_with_its_extra(source, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ImportError, match=r"Stream needs grain: pip install 'cnn_jax\[stream\]'"):
        Stream(source)


def test_a_training_resumes_in_the_stream(source, tmp_path):
    def run(directory, steps):
        net = Chain(Flatten(), Dense(2))
        options = {"optimizer": optax.sgd(1e-6), "batch_size": 16, "save_every": 3, "progress": False}
        stream = Stream(source, seed=2)
        return fit(net, stream, steps=steps, key=jax.random.key(0), checkpoint_dir=directory, **options)

    params, history = run(None, 12)
    assert history["loss"].shape == history["accuracy"].shape == (12,)
    run(tmp_path, 5)
    chex.assert_trees_all_equal(tuple(run(tmp_path, 12)), (params, history))
