"""experiments._lib.find_pictures: templates and masks are read, pictures are batched by size."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments._lib import find_pictures
from tests.helpers.cli import png

SMALL = (6, 7)
LARGE = (8, 9)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Four pictures; the second one has another size, the third is broken."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, size in {"a": SMALL, "b": LARGE, "d": SMALL}.items():
        png(folder / f"{name}.png", rng.integers(0, 256, size, np.uint8))
    (folder / "c.png").write_bytes(b"no picture")
    return [folder / f"{name}.png" for name in "abcd"]


def names(batches):
    """The files' names in every batch, without those that cannot be read."""
    return ["".join(page.path.stem for page in batch) for batch in batches if isinstance(batch, dict)]


def test_pictures_of_one_size_are_searched_together(files, monkeypatch):
    monkeypatch.setattr(find_pictures, "MAX_BATCH", 2)
    assert names(find_pictures.batch_by_size(files, 1)) == ["ad", "b"]


def test_many_devices_search_more_pictures_at_a_time(files, monkeypatch):
    monkeypatch.setattr(find_pictures, "MAX_BATCH", 1)
    assert names(find_pictures.batch_by_size(files, 1)) == ["a", "b", "d"]
    assert names(find_pictures.batch_by_size(files, 2)) == ["ad", "b"]


def test_large_pictures_are_searched_singly(files, monkeypatch):
    monkeypatch.setattr(find_pictures, "MAX_BATCH_PIXELS", 1)
    assert names(find_pictures.batch_by_size(files, 1)) == ["a", "b", "d"]


def test_pictures_do_not_wait_forever_for_others_of_their_size(files, monkeypatch):
    monkeypatch.setattr(find_pictures, "MAX_BATCH", 2)
    monkeypatch.setattr(find_pictures, "MAX_WAITING_BYTES", 6 * 7 + 1)
    assert names(find_pictures.batch_by_size(files, 1)) == ["a", "b", "d"]


def test_unreadable_files_are_named(files):
    (unread,) = (batch for batch in find_pictures.batch_by_size(files, 1) if not isinstance(batch, dict))
    assert unread.page == find_pictures.Page(files[2], number=1, total=1)
    assert "not a picture" in unread.reason


def test_files_and_folders_are_listed(files):
    folder = files[0].parent
    (folder / "notes.txt").write_text("no picture")
    assert list(find_pictures.list_pictures([Path("missing.txt"), folder])) == [Path("missing.txt"), *files]


def test_templates_are_compared_in_color_if_one_has_colors(tmp_path):
    gray = png(tmp_path / "gray.png", np.full((3, 4), 100, np.uint8))
    colored = png(tmp_path / "colored.png", np.arange(36, dtype=np.uint8).reshape(3, 4, 3) * 7)
    assert find_pictures.read_templates([gray], [], "match").features[0].shape == (3, 4)
    templates = find_pictures.read_templates([gray, colored], [], "match")
    assert [feature.shape for feature in templates.features] == [(3, 4, 3)] * 2
    assert templates.in_color
    assert templates.masks == [None, None]


def test_masks_and_transparent_pixels_are_combined(tmp_path):
    picture = np.full((2, 2, 4), 255, np.uint8)
    picture[0, 0] = 0
    template = png(tmp_path / "template.png", picture)
    mask = png(tmp_path / "mask.png", np.array([[255, 255], [255, 0]], np.uint8))
    (found,) = find_pictures.read_templates([template], [mask], "match").masks
    np.testing.assert_array_equal(found, [[False, True], [True, False]])


def test_templates_of_one_name_are_named_by_their_paths():
    assert find_pictures.template_names([Path("a/t.png"), Path("b/u.png")]) == ["t.png", "u.png"]
    assert find_pictures.template_names([Path("a/t.png"), Path("b/t.png")]) == ["a/t.png", "b/t.png"]


def test_an_opaque_template_has_no_mask(tmp_path):
    gray = np.eye(5, dtype=np.uint8)
    template = png(tmp_path / "template.png", np.dstack([gray, gray, gray, np.full_like(gray, 255)]))
    assert find_pictures.read_templates([template], [], "zncc").masks == [None]


def test_a_template_of_several_pages_is_the_first(tmp_path, capsys):
    images = [Image.fromarray(np.eye(side, dtype=np.uint8)) for side in (3, 4)]
    images[0].save(tmp_path / "t.tif", save_all=True, append_images=images[1:])
    templates = find_pictures.read_templates([tmp_path / "t.tif"], [], "zncc")
    assert templates.features[0].shape == (3, 3)
    assert "t.tif: the template is the first of 2 pages" in capsys.readouterr().err


def test_every_page_is_read_although_one_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(find_pictures, "MAX_PIXELS", 20)
    images = [Image.new("L", size) for size in ((4, 5), (6, 6), (5, 4))]
    images[0].save(tmp_path / "a.tif", save_all=True, append_images=images[1:])
    first, unread, last = find_pictures.read_pages(tmp_path / "a.tif")
    assert isinstance(first, dict)
    assert isinstance(last, dict)
    assert [page.label for page in (*first, *last)] == [f"{tmp_path}/a.tif, page {number}" for number in (1, 3)]
    assert [picture.shape for picture in (*first.values(), *last.values())] == [(5, 4), (4, 5)]
    assert isinstance(unread, find_pictures.Unread)
    assert unread.page.number == 2
    assert "a.tif, frame 2: not a picture that can be read (6 x 6 pixels are more" in unread.reason


def test_a_template_of_one_color_is_constant_to_zncc():
    orange = np.broadcast_to(np.array([1, 0.2, -1], np.float32), (4, 5, 3))
    count = np.ones((4, 5), bool)
    with pytest.raises(ValueError, match="the template is constant"):
        find_pictures.check_template(Path("orange.png"), orange, count, "zncc")
    find_pictures.check_template(Path("orange.png"), orange, count, "squared_difference")


def test_a_template_without_pixels_that_count_is_refused():
    feature = np.eye(4, dtype=np.float32)
    with pytest.raises(ValueError, match=r"clear\.png: the mask excludes every pixel"):
        find_pictures.check_template(Path("clear.png"), feature, np.zeros((4, 4), bool), "match")
