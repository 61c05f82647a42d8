"""experiments._lib.find_search: pictures are searched in stacks, and devices share them."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

import cnn_jax
from experiments._lib.find_pictures import Templates
from experiments._lib.find_search import make_search, search_pictures
from tests.helpers.cli import png

RNG = np.random.default_rng(0)
TEMPLATE = RNG.integers(0, 256, (4, 5), np.uint8)
TEMPLATES = Templates(["t"], [TEMPLATE / np.float32(127.5) - 1], [None])
OPTIONS = {"score": cnn_jax.zncc, "scales": (1.0,), "angles": (0.0,), "top_k": 2, "min_score": 0.9}


def make_picture(y, x):
    picture = RNG.integers(0, 256, (14, 15), np.uint8)
    picture[y : y + 4, x : x + 5] = TEMPLATE
    return picture


@pytest.fixture(scope="module")
def search():
    """Shares pictures among the devices of a mesh, of which there is one here."""
    return make_search(TEMPLATES, Mesh(np.array(jax.devices()[:1]), ("batch",)), **OPTIONS)


def position(matches):
    """The row and the column of the best match."""
    return round(matches[0]["y"]), round(matches[0]["x"])


def test_every_file_has_matches_or_a_reason(search, tmp_path):
    files = [png(tmp_path / f"{y}.png", make_picture(y, 3)) for y in (1, 7)]
    files.append(png(tmp_path / "small.png", TEMPLATE[:2]))
    files.append(tmp_path / "missing.png")
    found = dict(search_pictures(files, search, TEMPLATES, devices=1))
    assert found.keys() == set(files)
    assert [position(found[file]) for file in files[:2]] == [(1, 3), (7, 3)]
    assert str(found[files[2]]).startswith(f"{files[2]}: ")
    assert found[files[3]] == f"{files[3]}: No such file or directory"


def test_invalid_options_are_refused_before_the_search():
    with pytest.raises(ValueError, match="top_k: expected at least 1"):
        make_search(TEMPLATES, None, **(OPTIONS | {"top_k": 0}))
