"""experiments._lib.find_search: pictures are searched in stacks, and devices share them."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from experiments._lib import find_options
from experiments._lib.find_pictures import Templates
from experiments._lib.find_search import as_pixels, make_search, search_pictures
from tests.helpers.cli import png

RNG = np.random.default_rng(0)
TEMPLATE = RNG.integers(0, 256, (4, 5), np.uint8)
TEMPLATES = Templates(["t"], [TEMPLATE / np.float32(127.5) - 1], [None])
ARGUMENTS = find_options.find_arguments(find_options.Find(min_score=0.9, top_k=2))


def make_picture(y, x):
    picture = RNG.integers(0, 256, (14, 15), np.uint8)
    picture[y : y + 4, x : x + 5] = TEMPLATE
    return picture


@pytest.fixture(scope="module")
def search():
    """Shares pictures among the devices of a mesh, of which there is one here."""
    return make_search(TEMPLATES, Mesh(np.array(jax.devices()[:1]), ("batch",)), **ARGUMENTS)


def position(matches):
    """The row and the column of the best match."""
    return round(matches.records[0]["y"]), round(matches.records[0]["x"])


def test_every_page_has_matches_or_a_reason(search, tmp_path):
    files = [png(tmp_path / f"{y}.png", make_picture(y, 3)) for y in (1, 7)]
    files.append(png(tmp_path / "small.png", TEMPLATE[:2]))
    files.append(tmp_path / "missing.png")
    pages = list(search_pictures(files, search, TEMPLATES, devices=1, scales=(1.0,)))
    found = {page.path: result for page, _, result in pages}
    assert found.keys() == set(files)
    assert [position(found[file]) for file in files[:2]] == [(1, 3), (7, 3)]
    expected = f"{files[2]} (5 x 2 pixels): smaller than the template t (5 x 4 pixels)"
    assert found[files[2]] == expected
    assert found[files[3]] == f"{files[3]}: No such file or directory"
    pictures = {page.path: picture for page, picture, _ in pages if picture is not None}
    assert pictures.keys() == set(files[:2])
    np.testing.assert_array_equal(pictures[files[0]][1:5, 3:8], TEMPLATE)


def test_invalid_options_are_refused_by_their_names(tmp_path):
    search = make_search(TEMPLATES, **find_options.find_arguments(find_options.Find(top_k=0)))
    files = [png(tmp_path / "a.png", make_picture(1, 3))]
    with pytest.raises(ValueError, match=r"^--top-k: expected at least 1"):
        list(search_pictures(files, search, TEMPLATES, devices=1, scales=(1.0,)))


def test_bytes_and_floats_are_compared_in_gray_and_in_color():
    color = RNG.integers(0, 256, (3, 4, 3), np.uint8)
    gray = color @ np.array([0.299, 0.587, 0.114]) / 127.5 - 1
    np.testing.assert_allclose(as_pixels(color, in_color=False), gray, atol=1e-5)
    np.testing.assert_allclose(as_pixels(color, in_color=True), color / 127.5 - 1, atol=1e-6)
    repeated = np.repeat(gray[..., None], 3, axis=-1)
    np.testing.assert_allclose(as_pixels(gray.astype(np.float32), in_color=True), repeated, atol=1e-6)
    np.testing.assert_allclose(as_pixels(gray.astype(np.float32), in_color=False), gray, atol=1e-6)
