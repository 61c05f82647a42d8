"""experiments._lib.find_parquet: complete parts, restarts, damaged parts, and other searches."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

from experiments._lib import find_parquet
from experiments._lib.find_pictures import Page
from experiments._lib.find_results import PageMatches

OPTIONS = {"min_score": 0.7}
MATCH = {"template": "t.png", "page": 1, "y": 1.5, "x": 2.0, "height": 3, "width": 4, "scale": 1.0, "angle": 0.0}
MATCH |= {"score": 0.9, "center": [2.5, 3.5], "corners": [[1.0, 1.5], [1.0, 5.5], [4.0, 5.5], [4.0, 1.5]]}


def search(files):
    """Pretends to search: one match in every picture, but for those that are broken."""
    for file in files:
        page = Page(file, number=1, total=1)
        yield page, None, "not a picture" if "broken" in file.name else PageMatches([MATCH], 3)


def search_into(folder, *names, options=OPTIONS, resume=True):
    return find_parquet.search_into_parts([Path(name) for name in names], folder, options, search, resume=resume)


def read_rows(folder):
    return {row["picture"]: row for row in parquet.read_table(folder).to_pylist()}


def test_every_picture_is_a_row(tmp_path):
    counts = search_into(tmp_path, "a.png", "broken.png")
    assert {name: counts[name] for name in ("searched", "unread", "matches", "before")} == {
        "searched": 1,
        "unread": 1,
        "matches": 1,
        "before": 0,
    }
    rows = read_rows(tmp_path)
    assert rows["a.png"] == {"picture": "a.png", "pages": 1, "unread": None, "found": 3, "matches": [MATCH]}
    expected = {"picture": "broken.png", "pages": 1, "unread": "not a picture", "found": 0, "matches": []}
    assert rows["broken.png"] == expected


def test_the_pages_of_a_file_are_one_row():
    """Pages come in any order, between those of other files; the last one may be missing after an interruption."""
    first, second, third = (Page(Path("a.tif"), number, total=3) for number in (1, 2, 3))
    other = Page(Path("b.tif"), number=1, total=2)
    results = {third: PageMatches([MATCH | {"page": 3}], 1), other: PageMatches([MATCH], 1), second: "page 2: damaged"}
    results[first] = PageMatches([MATCH], 4)
    (row,) = find_parquet.file_rows((page, None, result) for page, result in results.items())
    assert (row["picture"], row["pages"], row["found"], row["unread"]) == ("a.tif", 3, 5, "page 2: damaged")
    assert row["matches"] == [MATCH, MATCH | {"page": 3}]


def test_a_restart_searches_what_is_missing(tmp_path, capsys):
    search_into(tmp_path, "a.png", "broken.png")
    counts = search_into(tmp_path, "a.png", "b.png", "broken.png")
    assert (counts["searched"], counts["before"]) == (1, 2)
    assert "resuming after 2 pictures" in capsys.readouterr().err
    assert set(read_rows(tmp_path)) == {"a.png", "b.png", "broken.png"}


def test_parts_are_written_while_the_search_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(find_parquet, "MAX_ROWS_PER_PART", 2)
    search_into(tmp_path, *(f"{i}.png" for i in range(5)))
    assert len(list(tmp_path.iterdir())) == 3
    monkeypatch.setattr(find_parquet, "MAX_ROWS_PER_PART", 1000)
    monkeypatch.setattr(find_parquet, "MAX_SECONDS_PER_PART", -1.0)
    search_into(tmp_path, "5.png", "6.png")
    assert len(list(tmp_path.iterdir())) == 5
    assert len(read_rows(tmp_path)) == 7


def test_processes_share_the_files(tmp_path, monkeypatch):
    monkeypatch.setattr(find_parquet.runner, "barrier", lambda name: None)
    monkeypatch.setattr(find_parquet.jax, "process_count", lambda: 2)
    for index in (0, 1):
        monkeypatch.setattr(find_parquet.jax, "process_index", lambda index=index: index)
        search_into(tmp_path, "a.png", "b.png", "c.png")
        assert len(read_rows(tmp_path)) == 2 + index


def test_a_cut_part_is_set_aside_and_searched_again(tmp_path, capsys):
    search_into(tmp_path, "a.png")
    (part,) = tmp_path.iterdir()
    part.write_bytes(part.read_bytes()[:-20])
    assert search_into(tmp_path, "a.png")["searched"] == 1
    assert "damaged, will be searched again" in capsys.readouterr().err
    assert part.with_suffix(".damaged").exists()


def test_a_changed_byte_is_noticed(tmp_path):
    search_into(tmp_path, "a.png")
    (part,) = tmp_path.iterdir()
    data = part.read_bytes()
    offset = data.index(b"t.png")  # among the matches
    part.write_bytes(data[:offset] + b"T" + data[offset + 1 :])
    assert find_parquet.read_searched(tmp_path, json.dumps(OPTIONS), resume=True) == set()
    assert part.with_suffix(".damaged").exists()


def test_parts_of_another_search_are_refused(tmp_path):
    search_into(tmp_path, "a.png")
    expected = (
        r"holds a search with min_score=0\.7, this one has min_score=0\.5; choose another --out, or pass --no-resume"
    )
    with pytest.raises(ValueError, match=expected):
        search_into(tmp_path, "a.png", options={"min_score": 0.5})
    counts = search_into(tmp_path, "b.png", options={"min_score": 0.5}, resume=False)
    assert counts["before"] == 0
    assert set(read_rows(tmp_path)) == {"b.png"}


def test_fingerprints_tell_templates_apart():
    ones = np.ones((2, 3), np.float32)
    arrays = [[ones], [ones.T], [ones, None], [None, ones], [2 * ones]]
    assert len({find_parquet.fingerprint(group) for group in arrays}) == len(arrays)
    assert find_parquet.fingerprint([ones]) == find_parquet.fingerprint([ones.copy()])
