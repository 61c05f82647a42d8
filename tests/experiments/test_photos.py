"""experiments._lib.photos: scikit-image's photos, and scenes of several."""

import numpy as np
import pytest

from experiments._lib import photos


def test_every_photo_is_a_gray_picture_and_none_is_contained_in_another():
    pytest.importorskip("skimage")
    loaded = {name: photos.load_photo(name) for name in photos.PHOTOS}
    assert all(photo.ndim == 2 and photo.dtype == np.uint8 and photo.std() > 5 for photo in loaded.values())
    assert len(photos.OTHER_PHOTOS) == 20
    assert not set(photos.OTHER_PHOTOS) & set(photos.TEMPLATE_PHOTOS)
    left, right = (loaded[f"retina, {side}"] for side in ("left", "right"))
    assert left.shape[1] + right.shape[1] == 1411


def test_without_scikit_image_the_error_says_how_to_install_it(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(photos.importlib, "import_module", missing)
    with pytest.raises(ValueError, match=r"skimage: expected an installed scikit-image.*cnn_jax\[bench\]"):
        photos.load_photo("camera")


def test_colors_are_weighted_and_bools_become_black_and_white():
    colors = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    assert photos.to_gray(colors).tolist() == [[76, 150, 29, 255]]
    assert photos.to_gray(np.array([[True, False]])).tolist() == [[255, 0]]


def test_a_cover_is_the_middle_of_a_picture():
    pixels = np.zeros((40, 90), np.uint8)
    pixels[:, 25:65] = 200
    assert (photos.cover(pixels, (20, 20))[:, 3:-3] == 200).all()
    assert (photos.cover(pixels, (20, 45))[:, [0, -1]] == 0).all()
    assert photos.cover(pixels, (33, 77)).shape == (33, 77)


def test_the_cells_of_a_mosaic_fill_it_without_overlap():
    pictures = [np.full((5, 7), value, np.uint8) for value in range(1, 7)]
    scene = photos.mosaic(pictures, (11, 10), (2, 3))
    assert scene.shape == (11, 10)
    assert scene[[0, -1]][:, [0, 5, -1]].tolist() == [[1, 2, 3], [4, 5, 6]]
    for index, value in enumerate(range(1, 7)):
        assert (scene[photos.cell_slices((11, 10), (2, 3), index)] == value).all()
