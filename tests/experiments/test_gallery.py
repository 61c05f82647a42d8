"""The gallery copies the scripts' pictures. `test_readme` compares its list with the READMEs."""

import socket

import numpy as np
from PIL import Image

from experiments import gallery


def test_a_copied_picture_keeps_its_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "source.png")
    gallery.copy_optimized(tmp_path / "source.png", tmp_path / "target.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "target.png")), pixels)


def test_a_free_port_can_be_bound():
    with socket.socket() as server:
        server.bind(("127.0.0.1", gallery.free_port()))


def test_no_picture_has_two_sources():
    assert not {*gallery.PICTURES} & {*gallery.SCREENSHOTS}
