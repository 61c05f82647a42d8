"""experiments.find, run as a user runs it."""

import json
import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from cnn_jax.data import image_io
from experiments import find
from experiments._lib import find_parquet
from experiments._lib.find_pictures import Page
from experiments._lib.find_results import PageMatches
from tests.helpers.cli import check_report, png, run, run_each

TEMPLATE = ("--template", "template.png")
DIFFERENCE = ("--score", "squared_difference", "--max-score", 1)
WRONG = [
    (["shots"], "--template"),
    (["--template", "template.png"], "pictures"),
    (["missing.png", "--template", "missing_too.png"], "missing_too.png: No such file"),
    (["shots/notes.txt", *TEMPLATE], "1 of 1 pictures could not be searched"),
    (["shots", *TEMPLATE, "--mask", "shots/a.png"], "expected the size of template.png (12 x 9 pixels), got (70 x"),
    (["shots", *TEMPLATE, "--mask", "template.png", "template.png"], "--mask: expected one per template (1), got 2"),
    (["shots", *TEMPLATE, "--scales", "0"], "error: --scales: expected numbers above 0"),
    (["shots", *TEMPLATE, "--scales", "0.5:2"], "error: --scales: expected numbers or START:STOP:STEP, got 0.5:2"),
    (["shots", *TEMPLATE, "--max-overlap", "2"], "error: --max-overlap: expected 0 to 1"),
    (["shots", *TEMPLATE, "--min-score", "x"], "error: --min-score: expected a number, got x"),
    (["shots", *TEMPLATE, "--score", "squared_difference"], "error: --max-score: expected a number with --score"),
    (["shots/a.png", *TEMPLATE, "--region", 100, 0, 5, 5], "error: --region: "),
    (["shots/a.png", "--template", "shots/c.png"], "1 of 1 pictures could not be searched"),
    (["shots", "--template", "flat.png"], "flat.png: the template is constant"),
    (["shots", "--template", "clear.png"], "clear.png: the mask excludes every pixel"),
    (["--scales", "2"], "--scales: only allowed together with pictures"),
    (["--min-score", "nan"], "--min-score: expected a number"),
    (["shots", *TEMPLATE, "--distributed", "auto"], "--distributed: only allowed together with --parquet"),
    (["empty", *TEMPLATE], "pictures: no picture file in empty"),
]


def make_shots(folder):
    """A folder with two pictures of one size, a larger one, a broken one and no picture; and templates."""
    rng = np.random.default_rng(0)
    template = rng.integers(0, 256, (9, 12), np.uint8)
    png(folder / "template.png", template)
    png(folder / "flat.png", np.full_like(template, 100))
    png(folder / "clear.png", np.zeros((3, 3, 4), np.uint8))
    (folder / "empty").mkdir()
    (folder / "shots").mkdir()
    for name, size, (y, x) in [("a", (60, 70), (5, 40)), ("b", (60, 70), (50, 58)), ("c", (64, 80), (30, 0))]:
        image = rng.integers(0, 256, size, np.uint8)
        image[y : y + 9, x : x + 12] = template
        png(folder / f"shots/{name}.png", image)
    (folder / "shots/broken.png").write_bytes((folder / "shots/a.png").read_bytes()[:200])
    (folder / "shots/notes.txt").write_text("no picture")


def make_pages(folder):
    """A file of three pages, the second of which is broken; the third is also a picture of two templates."""
    first, third = (np.asarray(Image.open(folder / f"shots/{name}.png")) for name in "ab")
    third = third.copy()
    third[5:14, 40:52] = np.asarray(Image.open(folder / "template.png"))
    png(folder / "two.png", third)
    pages = [Image.fromarray(page) for page in (first, first[::-1], third)]
    pages[0].save(folder / "pages.tif", save_all=True, append_images=pages[1:], compression="tiff_deflate")
    content = (folder / "pages.tif").read_bytes()
    data = zlib.compress(first[::-1].tobytes())[:20]
    assert content.count(data) == 1
    (folder / "pages.tif").write_bytes(content.replace(data, bytes(20)))


def make_colored(folder):
    """A colored picture, and its template: whole with a mask, and with transparent pixels."""
    rng = np.random.default_rng(1)
    template = rng.integers(0, 256, (8, 10, 3), np.uint8)
    image = rng.integers(0, 256, (40, 50, 3), np.uint8)
    image[20:28, 30:40] = template
    image[20:23, 30:33] = 0
    png(folder / "colored.png", image)
    png(folder / "solid.png", template)
    transparent = np.dstack([template, np.full((8, 10), 255, np.uint8)])
    transparent[:3, :3, 3] = 0
    png(folder / "transparent.png", transparent)
    png(folder / "mask.png", transparent[..., 3])


def make_same_names(folder):
    """A picture with a transparent square, and two templates of the same name; one has the square in white."""
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (40, 50), np.uint8)
    image[25:31, 40:46] = 255
    with_alpha = np.dstack([image] * 3 + [np.full_like(image, 255)])
    with_alpha[25:31, 40:46] = 0
    png(folder / "square.png", with_alpha)
    png(folder / "white.png", np.full((6, 6), 255, np.uint8))
    for name, (y, x) in {"one": (5, 8), "two": (22, 37)}.items():
        (folder / name).mkdir()
        png(folder / name / "t.png", image[y : y + 12, x : x + 12])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    make_shots(folder)
    make_pages(folder)
    make_colored(folder)
    make_same_names(folder)
    return folder


@pytest.fixture(scope="module")
def answers(pictures):
    """What the script answers to several command lines, by name."""
    scales = ("--scales", 1, 5000)  # a scale that fits nowhere is not an error
    lines = {
        "folder": (["shots", *TEMPLATE, *scales, "--out", "searched"], 2),
        "transparent": (["colored.png", "--template", "transparent.png", "--json"], 0),
        "mask": (["colored.png", "--template", "solid.png", "--mask", "mask.png", "--json"], 0),
        "solid": (["colored.png", "--template", "transparent.png", "--json", "--tile", 256], 0),
        "pages": (["pages.tif", *TEMPLATE, "--out", "paged"], 2),
        "best": (["two.png", *TEMPLATE, "--top-k", 1], 0),
        "one color": (["square.png", "--template", "white.png", *DIFFERENCE, "--json"], 0),
        "outside": (["square.png", "--template", "one/t.png", "--region", 0, 0, 3, 3, "--out", "wrong"], 2),
        "same names": (["square.png", "--template", "one/t.png", "two/t.png", "--json"], 0),
    }
    lines |= {f"wrong {i}": ([*words, "--out", "wrong"], 2) for i, (words, _) in enumerate(WRONG)}
    commands = [("experiments.find", *words) for words, _ in lines.values()]
    found = run_each(pictures, commands, code=[code for _, code in lines.values()])
    return dict(zip(lines, found, strict=True))


def test_a_folder_is_searched_although_one_file_is_broken(pictures, answers):
    out, err = answers["folder"]
    metrics = json.loads((pictures / "searched/metrics.json").read_text())
    positions = {name[-5]: [(round(m["y"]), round(m["x"])) for m in found] for name, found in metrics["found"].items()}
    assert positions == {"a": [(5, 40)], "b": [(50, 58)], "c": [(30, 0)]}
    assert list(metrics["unread"]) == ["shots/broken.png"]
    assert err.splitlines()[-1] == "error: 1 of 4 pictures could not be searched"
    assert out.count("1 found") == 3
    copies = sorted(path.name[5:] for path in (pictures / "searched").glob("*.png"))
    assert copies == ["a.png", "b.png", "c.png"]
    texts = check_report(pictures / "searched", figures=3)
    assert any("shots/broken.png: not a picture" in text for text in texts["th"])


@pytest.mark.parametrize("name", ["transparent", "mask"])
def test_masked_pixels_do_not_count(name, answers):
    (match,) = json.loads(answers[name][0])["colored.png"]
    assert (match["y"], match["x"]) == (pytest.approx(20, abs=0.2), pytest.approx(30, abs=0.2))
    assert match["score"] == 1


def test_compiling_is_announced_on_stderr_once_for_every_size(answers):
    out, err = answers["transparent"]
    assert err == "compiling for a picture of 50x40 pixels ...\n"
    assert "compiling" not in out
    sizes = ["a picture of 80x64 pixels", "2 pictures of 70x60 pixels"]
    assert answers["folder"][1].count("compiling for") == len(sizes)


def test_templates_of_one_name_are_told_apart_and_transparent_pixels_are_white(answers):
    matches = json.loads(answers["same names"][0])["square.png"]
    found = {m["template"]: (round(m["y"]), round(m["x"]), m["score"]) for m in matches}
    assert found == {"one/t.png": (5, 8, 1), "two/t.png": (22, 37, 1)}


@pytest.mark.parametrize("i", range(len(WRONG)))
def test_errors_are_one_line(i, answers):
    last = answers[f"wrong {i}"][1].splitlines()[-1]
    assert last.startswith("error: ")
    assert WRONG[i][1] in last


def test_a_template_larger_than_the_picture_is_named_with_both_sizes(answers):
    (i,) = (i for i, (words, _) in enumerate(WRONG) if "shots/c.png" in words)
    expected = "shots/a.png (70 x 60 pixels): smaller than the template c.png (80 x 64 pixels)"
    assert answers[f"wrong {i}"][1].splitlines()[-2] == expected


def test_a_region_that_no_template_reaches_is_named(answers):
    size = "square.png (50 x 40 pixels)"
    assert f"{size}: no template fits with its center in --region" in answers["outside"][1]


def test_every_page_is_searched_although_one_is_broken(pictures, answers):
    out, err = answers["pages"]
    metrics = json.loads((pictures / "paged/metrics.json").read_text())
    (records,) = metrics["found"].values()
    positions = [(m["page"], round(m["y"]), round(m["x"])) for m in records]
    assert sorted(positions) == [(1, 5, 40), (3, 5, 40), (3, 50, 58)]
    assert metrics["counts"] == {"pages.tif": 3}
    assert list(metrics["unread"]) == ["pages.tif, page 2"]
    assert "pages.tif, page 1: 1 found\n" in out
    assert "pages.tif, page 3: 2 found\n" in out
    assert err.splitlines()[-1] == "error: 1 of 1 pictures could not be searched"
    copies = {path.name[5:] for path in (pictures / "paged").glob("*.png")}
    assert copies == {"pages_page_1.png", "pages_page_3.png"}


def test_matches_have_centers_and_corners(answers):
    (match,) = json.loads(answers["solid"][0])["colored.png"]
    assert match["center"] == pytest.approx([23.5, 34.5], abs=0.2)
    top_left, top_right, bottom_right, bottom_left = match["corners"]
    assert top_left == pytest.approx([19.5, 29.5], abs=0.2)
    assert bottom_right == pytest.approx([27.5, 39.5], abs=0.2)
    assert (top_right[0], bottom_left[1]) == (top_left[0], top_left[1])


def test_the_differences_find_templates_of_one_color(answers):
    out, _ = answers["one color"]
    (match,) = json.loads(out)["square.png"]
    assert (round(match["y"]), round(match["x"]), match["score"]) == (25, 40, 0)


def test_it_is_said_that_only_the_best_are_shown(answers):
    assert "two.png: 2 found, the best 1 shown\n" in answers["best"][0]


def test_only_the_first_pages_are_reported(tmp_path):
    record = {
        "template": "t.png",
        "y": 1.0,
        "x": 2.0,
        "height": 3,
        "width": 4,
        "scale": 1.0,
        "angle": 0.0,
        "score": 1.0,
        "center": [2.0, 3.5],
    }
    matches = {f"{i}.png": PageMatches([record], 1) for i in range(8)}
    unread = {Page(Path("x.png"), number=1, total=1): "x.png: not a picture"}
    blocks = find.page_results(find.Find(out=tmp_path), matches, unread)
    assert blocks[0] == "0.png: 1 found"
    assert blocks[-2] == f"These are the first 6 of 8 pictures; 2 more are in {tmp_path}."
    assert blocks[-1] == [["pictures that could not be searched"], ["x.png: not a picture"]]
    assert len(blocks) == 2 * 6 + 2


@pytest.mark.slow
def test_the_demonstration_reaches_its_bar(tmp_path):
    out, _ = run(tmp_path, "experiments.find")
    metrics = json.loads((tmp_path / "runs/find/metrics.json").read_text())
    assert metrics["placed"] == 40
    assert metrics["right"] >= 39
    assert metrics["false"] == 0
    assert metrics["error_pixels"]["largest"] <= 0.25
    assert all(match["score"] >= 0.7 for match in metrics["found"]["demonstration"])
    assert f"{metrics['right']} of 40 found" in out
    picture, found = (image_io.read_color(tmp_path / f"runs/find/{name}.png") for name in ("picture", "found"))
    assert picture.shape == found.shape
    assert np.ptp(picture[..., :3], axis=-1).max() == 0
    assert np.ptp(found[..., :3], axis=-1).max() > 1
    texts = check_report(tmp_path / "runs/find", figures=2)
    assert len(texts["tr"]) == 1 + 40
    assert texts["pre"][-1] == "python -m experiments.find"


@pytest.mark.slow
def test_many_pictures_are_searched_into_parts_and_a_restart_continues(pictures, tmp_path):
    options = *TEMPLATE, "--parquet", "--devices", 2, "--out", tmp_path
    out, _ = run(pictures, "experiments.find", "shots/a.png", "shots/broken.png", *options)
    assert out.startswith("1 pictures searched, 1 unreadable, 1 matches; ")
    check_report(tmp_path, figures=0)
    (first,) = (tmp_path / "matches").iterdir()
    out, err = run(pictures, "experiments.find", "shots", *options)
    assert out.startswith("2 pictures searched, 0 unreadable, 2 matches; ")
    assert "resuming after 2 pictures" in err
    rows = {row["picture"]: row for row in parquet.read_table(tmp_path / "matches").to_pylist()}
    positions = {name: [(round(m["y"]), round(m["x"])) for m in row["matches"]] for name, row in rows.items()}
    expected = {"shots/a.png": [(5, 40)], "shots/b.png": [(50, 58)], "shots/c.png": [(30, 0)], "shots/broken.png": []}
    assert positions == expected
    assert "not a picture" in rows["shots/broken.png"]["unread"]

    first.write_bytes(first.read_bytes()[:-20])
    out, err = run(pictures, "experiments.find", "shots", *options)
    assert out.startswith("1 pictures searched, 1 unreadable, 1 matches; ")
    assert "damaged, will be searched again" in err
    _, err = run(pictures, "experiments.find", "shots", *options, "--min-score", "0.5", code=2)
    assert "holds a search with min_score=0.7, this one has min_score=0.5" in err
    assert find_parquet.read_searched(tmp_path / "matches", "{}", resume=False) == set()
