"""experiments.find, run as a user runs it."""

import json

import numpy as np
import pyarrow.parquet as parquet
import pytest

from cnn_jax.data import image_io
from experiments import find
from experiments._lib import find_parquet
from tests.helpers.cli import check_report, png, run, run_each


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder with two pictures of one size, a larger one, a broken one and no picture; and a template."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    template = rng.integers(0, 256, (9, 12), np.uint8)
    png(folder / "template.png", template)
    png(folder / "flat.png", np.full_like(template, 100))
    (folder / "shots").mkdir()
    for name, size, (y, x) in [("a", (60, 70), (5, 40)), ("b", (60, 70), (50, 58)), ("c", (64, 80), (30, 0))]:
        image = rng.integers(0, 256, size, np.uint8)
        image[y : y + 9, x : x + 12] = template
        png(folder / f"shots/{name}.png", image)
    (folder / "shots/broken.png").write_bytes((folder / "shots/a.png").read_bytes()[:200])
    (folder / "shots/notes.txt").write_text("no picture")
    return folder


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
    assert (np.ptp(picture[..., :3], axis=-1).max(), np.ptp(found[..., :3], axis=-1).max() > 1) == (0, True)
    texts = check_report(tmp_path / "runs/find", figures=2)
    assert len(texts["tr"]) == 1 + 40
    assert texts["pre"][-1] == "python -m experiments.find"


def test_a_folder_is_searched_whole_though_one_file_is_broken(pictures, tmp_path):
    scales = "--scales", 1, 5000  # a scale that fits nowhere is no error
    options = "--template", "template.png", *scales, "--out", tmp_path
    out, err = run(pictures, "experiments.find", "shots", *options, code=2)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    places = {name[-5]: [(round(m["y"]), round(m["x"])) for m in found] for name, found in metrics["found"].items()}
    assert places == {"a": [(5, 40)], "b": [(50, 58)], "c": [(30, 0)]}
    assert list(metrics["unread"]) == ["shots/broken.png"]
    assert err.splitlines()[-1] == "error: 1 of 4 pictures could not be searched"
    assert out.count("1 found") == 3
    drawn = sorted(path.name[5:] for path in tmp_path.glob("*.png"))
    assert drawn == ["a.png", "b.png", "c.png"]
    texts = check_report(tmp_path, figures=3)
    assert any("shots/broken.png: not a picture" in text for text in texts["th"])


def test_json_masks_and_colours(pictures, tmp_path):
    rng = np.random.default_rng(1)
    template = rng.integers(0, 256, (8, 10, 3), np.uint8)
    image = rng.integers(0, 256, (40, 50, 3), np.uint8)
    image[20:28, 30:40] = template
    image[20:23, 30:33] = 0
    png(tmp_path / "image.png", image)
    clear = np.dstack([template, np.full((8, 10), 255, np.uint8)])
    clear[:3, :3, 3] = 0
    png(tmp_path / "clear.png", clear)
    png(tmp_path / "solid.png", template)
    png(tmp_path / "mask.png", clear[..., 3])
    for extra in (["--template", "clear.png"], ["--template", "solid.png", "--mask", "mask.png"]):
        found = json.loads(run(tmp_path, "experiments.find", "image.png", *extra, "--json")[0])["image.png"]
        assert [(m["y"], m["x"], m["score"]) for m in found] == [
            (pytest.approx(20, abs=0.2), pytest.approx(30, abs=0.2), 1)
        ]


def test_templates_of_one_name_are_told_apart_and_what_is_clear_is_white(pictures, tmp_path):
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (40, 50), np.uint8)
    image[25:31, 40:46] = 255
    seen = np.dstack([image] * 3 + [np.full_like(image, 255)])
    seen[25:31, 40:46] = 0, 0, 0, 0
    png(tmp_path / "image.png", seen)
    for name, (y, x) in {"one": (5, 8), "two": (22, 37)}.items():
        (tmp_path / name).mkdir()
        png(tmp_path / name / "t.png", image[y : y + 12, x : x + 12])
    out, _ = run(tmp_path, "experiments.find", "image.png", "--template", "one/t.png", "two/t.png", "--json")
    found = {m["template"]: (round(m["y"]), round(m["x"]), m["score"]) for m in json.loads(out)["image.png"]}
    assert found == {"one/t.png": (5, 8, 1), "two/t.png": (22, 37, 1)}


def test_pictures_do_not_wait_for_others_of_their_size_for_ever(pictures, monkeypatch):
    shots = pictures / "shots"
    files, unread = [shots / "a.png", shots / "c.png", shots / "b.png"], {}  # the second has a size of its own
    monkeypatch.setattr(find, "MOST", 2)
    assert [list(batch) for batch in find.batches(files, (), unread, 1)] == [[files[0], files[2]], [files[1]]]
    monkeypatch.setattr(find, "WAITING", 60 * 70 + 1)
    assert [list(batch) for batch in find.batches(files, (), unread, 1)] == [[files[0]], [files[1]], [files[2]]]
    assert not unread


WRONG = [
    (["shots"], "--template"),
    (["--template", "template.png"], "pictures"),
    (["missing.png", "--template", "missing_too.png"], "missing_too.png: No such file"),
    (["shots/notes.txt", "--template", "template.png"], "1 of 1 pictures could not be searched"),
    (["shots", "--template", "template.png", "--mask", "shots/a.png"], "expected the size of template.png"),
    (["shots", "--template", "template.png", "--scales", "0"], "scales: expected numbers above 0"),
    (["shots", "--template", "template.png", "--max-overlap", "2"], "max_overlap: expected 0 to 1"),
    (["shots/a.png", "--template", "shots/c.png"], "1 of 1 pictures could not be searched"),
    (["shots", "--template", "flat.png"], "flat.png: all its pixels are alike"),
    (["--scales", "2"], "--scales: the demonstration has its own"),
    (["--min-score", "nan"], "--min-score: expected a number"),
]


def test_what_cannot_be_done_is_said_in_one_line(pictures, tmp_path):
    lines = [("experiments.find", *arguments, "--out", tmp_path / "out") for arguments, _ in WRONG]
    for (arguments, complaint), (_, err) in zip(WRONG, run_each(pictures, lines, code=2), strict=True):
        assert complaint in err.splitlines()[-1], arguments
        assert err.splitlines()[-1].startswith("error: "), arguments


def test_many_pictures_into_parts_that_a_restart_continues(pictures, tmp_path):
    options = "--template", "template.png", "--parquet", "--devices", 2, "--out", tmp_path
    out, _ = run(pictures, "experiments.find", "shots/a.png", "shots/broken.png", *options)
    assert out.startswith("1 pictures searched, 1 could not be, 1 matches; ")
    check_report(tmp_path, figures=0)
    (first,) = (tmp_path / "matches").iterdir()
    out, err = run(pictures, "experiments.find", "shots", *options)
    assert out.startswith("2 pictures searched, 0 could not be, 2 matches; ")
    assert "going on after 2 pictures" in err
    rows = {row["picture"]: row for row in parquet.read_table(tmp_path / "matches").to_pylist()}
    places = {name: [(round(m["y"]), round(m["x"])) for m in row["matches"]] for name, row in rows.items()}
    found = {"shots/a.png": [(5, 40)], "shots/b.png": [(50, 58)], "shots/c.png": [(30, 0)], "shots/broken.png": []}
    assert places == found
    assert "not a picture" in rows["shots/broken.png"]["unread"]

    first.write_bytes(first.read_bytes()[:-20])  # its pictures are searched anew
    out, err = run(pictures, "experiments.find", "shots", *options)
    assert out.startswith("1 pictures searched, 1 could not be, 1 matches; ")
    assert "left out and searched anew" in err
    part = max((tmp_path / "matches").glob("*.parquet"), key=lambda path: path.stat().st_mtime)
    data = part.read_bytes()
    place = data.index(b"template.png")  # among the matches
    part.write_bytes(data[:place] + b"T" + data[place + 1 :])
    assert not find_parquet.searched(tmp_path / "matches", "{}", True) & {"shots/a.png", "shots/broken.png"}
    assert part.with_suffix(".damaged").exists()
    _, err = run(pictures, "experiments.find", "shots", *options, "--min-score", "0.5", code=2)
    assert "holds a search with min_score 0.7, this one has 0.5" in err
