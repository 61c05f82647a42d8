"""Streams: every picture once an epoch, in an order of the seed alone, corrupt ones left out and named."""

import io
import itertools

import jax
import numpy as np
import optax
import pytest
from PIL import Image

from cnn_jax.data import stream
from cnn_jax.data.stream import Folder, Records, Stream
from cnn_jax.layers import Chain, Dense, Flatten
from cnn_jax.training import fit
from tests.helpers.cli import png

SIZE, GOOD, CORRUPT = 4, 60, 3


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Pictures of two classes, each of a grey level of its own, and some files that are none."""
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("dark", "light"):
        (folder / name).mkdir()
    for i in range(GOOD):
        png(folder / ("light" if i >= 30 else "dark") / f"{i:02d}.png", np.full((SIZE, SIZE), 4 * i, np.uint8))
    for i in range(CORRUPT):
        (folder / "dark" / f"bad{i}.png").write_bytes(b"no picture")
    return folder


def test_every_picture_once_an_epoch(pictures):
    source = Folder(pictures, size=SIZE)
    assert source.classes == ("dark", "light")
    read = Stream(source)
    assert len(read) == len(source) == GOOD + CORRUPT
    pieces = list(itertools.islice(read.batches(20), 6))  # two epochs
    for epoch in range(2):
        own = pieces[3 * epoch : 3 * epoch + 3]
        assert [piece.epoch for piece in own] == [epoch] * 3
        assert sorted(np.concatenate([piece.images[:, 0, 0, 0] for piece in own])) == [4 * i for i in range(GOOD)]
    assert not np.array_equal(pieces[0].indices, pieces[3].indices)
    for piece in pieces:
        np.testing.assert_array_equal(piece.labels, piece.images[:, 0, 0, 0] >= 120)
        assert (piece.images.shape, piece.images.dtype) == ((20, SIZE, SIZE, 3), np.uint8)
    assert {name.rsplit("/")[-1] for name in read.corrupt} == {f"bad{i}.png" for i in range(CORRUPT)}
    assert all("not a picture that can be read" in why for why in read.corrupt.values())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_position_is_where_one_goes_on(pictures, workers):
    source = Folder(pictures, size=SIZE)
    pieces = list(itertools.islice(Stream(source, seed=1).batches(16), 8))
    for i in (0, 2, 5) if not workers else (2,):
        rest = Stream(source, seed=1, workers=workers).batches(16, pieces[i].position)
        for piece, expected in zip(itertools.islice(rest, 2), pieces[i + 1 :], strict=False):
            jax.tree.map(np.testing.assert_array_equal, piece, expected)
        rest.close()


def test_processes_share_the_pictures(pictures, monkeypatch):
    source, seen = Folder(pictures, size=SIZE), []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for process in range(2):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        read = Stream(source, max_corrupt_fraction=0.2)
        for piece in read.batches(1):
            if piece.epoch:
                break
            seen.append(int(piece.images[0, 0, 0, 0]))
    assert sorted(seen) == [4 * i for i in range(GOOD)]


def test_too_many_corrupt_pictures_end_the_reading(pictures):
    with pytest.raises(ValueError, match=r"2 of 63 pictures cannot be read, among them .*/dark/bad"):
        list(itertools.islice(Stream(Folder(pictures, size=SIZE), max_corrupt_fraction=0.02).batches(8), 20))


def test_records_are_read_as_files_are(pictures, tmp_path):
    source = Folder(pictures, size=SIZE)

    def files():
        for i in range(len(source)):
            with open(source.name(i), "rb") as file:
                yield file.read(), int(source.labels[i])

    assert stream.write_records(tmp_path / "all.array_record", files()) == GOOD + CORRUPT
    read = Stream(Records([tmp_path / "all.array_record"], source.classes, size=SIZE))
    expected = Stream(source).batches(20)
    for piece, other in zip(itertools.islice(read.batches(20), 3), expected, strict=False):
        jax.tree.map(np.testing.assert_array_equal, piece, other)
    assert sorted(name.rsplit("/")[-1] for name in read.corrupt) == [
        f"all.array_record[{30 + i}]" for i in range(CORRUPT)
    ]


def test_records_of_another_kind(tmp_path):
    buffer = io.BytesIO()
    Image.new("L", (5, 5)).save(buffer, "PNG")
    stream.write_records(tmp_path / "a.array_record", iter([(buffer.getvalue(), 7), (buffer.getvalue(), 0)]))
    source = Records([tmp_path / "a.array_record"], ("only",), size=SIZE)
    with pytest.raises(ValueError, match=r"a\.array_record\[0\]: a label from 0 to 0 was expected, got 7"):
        source[0]
    assert source[1][0].shape == (SIZE, SIZE, 3)
    (tmp_path / "other").write_bytes(b"no records at all")
    with pytest.raises(ValueError, match="not ArrayRecord files"):
        Records([tmp_path / "other"], ("only",))
    with pytest.raises(FileNotFoundError):
        Records([tmp_path / "none"], ("only",))


def test_what_cannot_be_is_refused(pictures, tmp_path):
    with pytest.raises(ValueError, match="expected a folder of pictures for every class, got none"):
        Folder(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="got no picture in empty"):
        Folder(tmp_path)
    source = Folder(pictures)
    for options in ({"max_corrupt_fraction": 1}, {"workers": -1}, {"seed": -1}):
        with pytest.raises(ValueError, match=next(iter(options))):
            Stream(source, **options)


def test_a_training_goes_on_in_the_stream(pictures, tmp_path):
    def run(folder, steps):
        read = Stream(Folder(pictures, size=SIZE), seed=2)
        net = Chain(Flatten(), Dense(2))
        options = {"optimizer": optax.sgd(1e-6), "batch_size": 16, "save_every": 3, "progress": False}
        return fit(net, read, steps=steps, key=jax.random.key(0), checkpoint_dir=folder, **options)

    params, history = run(None, 12)
    assert history["loss"].shape == history["accuracy"].shape == (12,)
    run(tmp_path, 5)
    jax.tree.map(np.testing.assert_array_equal, run(tmp_path, 12), (params, history))
