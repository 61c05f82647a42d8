"""Figures: each one can be saved and shows something."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cnn_jax import figures

NOISE = np.random.default_rng(0).normal(size=(8, 8, 8))
COLOURED = np.stack([np.eye(4), 1 - np.eye(4), np.zeros((4, 4))], axis=-1)
LINES = {"a": [1, 2, 3], "b": [3, 2, 1]}
LAWS = {"pixels": {"a": ([1, 10], [2, 20], ([1, 10], [2.5, 25])), "b": ([1], [5], None)}}
X = np.eye(3, dtype=np.float32) * 2 - 1
BARS = {"the X": {"X": 1.0, "O": 0.5}, "the O": {"X": 0.5, "O": 1.0}}


FIGURES = {
    "tiles": lambda: figures.image_grid([X, -X], ["one", "other"], title="two"),
    "tiles_in_rows": lambda: figures.image_grid(NOISE[:5], columns=2, limit=3.0),
    "tiles_with_numbers": lambda: figures.image_grid([X / 3, NOISE[0]], numbers=True),
    "tiles_in_colour": lambda: figures.image_grid([COLOURED, -COLOURED, X[..., None]]),
    "stages": lambda: figures.stages({"conv1": NOISE[..., :3], "dense1": np.ones(2)}, columns=2),
    "stages_of_nothing": lambda: figures.stages(
        {"zero": np.zeros((4, 4, 1)), "conv1": np.ones((2, 2, 9))}, title="stages"
    ),
    "curves": lambda: figures.curves([1, 2, 3], LINES, xlabel="x", ylabel="y", title="lines"),
    "one_curve": lambda: figures.curves(np.arange(99), {"a": np.sin(np.arange(99))}, xlabel="x", ylabel="y", log=True),
    "panels": lambda: figures.panels({"x": ([1, 2, 3], LINES), "z": ([4, 5, 6], LINES)}, ylabel="y", title="panels"),
    "power_laws": lambda: figures.power_laws(LAWS, ylabel="ms", title="laws"),
    "bars": lambda: figures.bars(BARS, ylabel="votes", title="bars"),
    "votes": lambda: figures.class_scores({"X": 2.5, "O": -1.0, "no letter": 0.0}),
    "over": lambda: figures.overlay(
        NOISE[0] / 3, {"match": NOISE[1, 1:-1, :-1], "part": X}, window=(3, 2), title="over"
    ),
    "confusion": lambda: figures.confusion(np.array([[9, 1], [0, 0]]), "XO", title="letters"),
    "mistakes": lambda: figures.mistakes(NOISE[:3] / 3, [0, 1, 0], [[0, 1], [0, 1], [0.2, 0.3]], "XO"),
}


BASELINE = Path(__file__).parent / "helpers" / "figures"


def picture(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=50)
    return Image.open(file).convert("RGB")


@pytest.mark.parametrize("name", FIGURES)
def test_figures_look_as_they_did(name):
    """As far as one sees from afar: each matplotlib sets text a little differently. `python tests/test_figures.py`
    makes the pictures anew that are compared with."""
    with Image.open(BASELINE / f"{name}.png") as baseline:
        now, then = (np.asarray(image.reduce(8), np.float64) for image in (picture(FIGURES[name]()), baseline))
    assert np.sqrt(np.mean((now - then) ** 2)) < 0.45 * then.std()


@pytest.mark.parametrize("make", FIGURES.values(), ids=FIGURES)
def test_every_figure_is_saved_and_shows_something(tmp_path, make):
    figure = make()
    assert isinstance(figure, Figure)
    figures.save(figure, tmp_path / "new" / "figure.png")
    with Image.open(tmp_path / "new" / "figure.png") as image:
        assert image.format == "PNG"
        grey = np.asarray(image.convert("L"))
    assert min(grey.shape) > 100
    assert np.mean(grey < 200) > 0.002


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_tiles_are_images_on_one_scale():
    figure = figures.image_grid([X, X / 2], ["one", "other"], title="title", limit=2.0)
    assert [axes.get_title() for axes in figure.axes] == ["one", "other"]
    assert figure.get_suptitle() == "title"
    for axes, image in zip(figure.axes, (X, X / 2), strict=True):
        (shown,) = axes.images
        np.testing.assert_array_equal(shown.get_array(), image)
        assert shown.get_clim() == (-2, 2)


def test_numbers_of_small_tiles():
    figure = figures.image_grid([X, X / 3, np.zeros((13, 13))], numbers=True)
    whole, parts, large = figure.axes
    assert texts(whole) == ["1", "-1", "-1", "-1", "1", "-1", "-1", "-1", "1"]
    assert texts(parts)[:2] == ["0.33", "-0.33"]
    assert texts(large) == []
    assert [text.get_color() for text in whole.texts[:2]] == ["black", "white"]  # seen on white and on black
    assert texts(figures.image_grid([X]).axes[0]) == []


def test_tiles_fill_rows():
    figure = figures.image_grid([X] * 5, columns=2)
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 1, 1, 0]


def test_stages_show_up_to_columns_features_of_every_map():
    named = {"conv1": np.ones((4, 4, 3)), "flatten1": np.ones(9), "conv2": 5 * np.ones((2, 2, 1))}
    figure = figures.stages(named, columns=2)
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 0]
    assert [figure.axes[i].get_ylabel() for i in (0, 2)] == ["conv1\n4x4x3\n±1", "conv2\n2x2x1\n±5"]
    assert [figure.axes[i].images[0].get_clim() for i in (0, 2)] == [(-1, 1), (-5, 5)]


def test_curves_bear_names():
    (axes,) = figures.curves([1, 2], {"a": [1, 2], "b": [2, 3]}, xlabel="x", ylabel="y", title="t").axes
    assert [line.get_label() for line in axes.lines] == ["a", "b"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("x", "y", "t")
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), [2, 3])
    assert axes.get_yscale() == "linear"
    assert figures.curves([1, 2], {"a": [1, 2]}, xlabel="x", ylabel="y", log=True).axes[0].get_yscale() == "log"


def test_bars_have_their_heights():
    (axes,) = figures.bars(BARS, ylabel="votes").axes
    assert [bar.get_height() for bar in axes.patches] == [1.0, 0.5, 0.5, 1.0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["the X", "the O"]


def test_votes_have_their_lengths_and_one_winner():
    (axes,) = figures.class_scores({"X": -1.0, "O": 2.0}).axes
    assert [bar.get_width() for bar in axes.patches] == [-1.0, 2.0]
    assert axes.get_title() == "O"
    assert axes.patches[0].get_facecolor() != axes.patches[1].get_facecolor()
    with pytest.raises(ValueError, match=r"scores: .*none"):
        figures.class_scores({})


def test_maps_lie_on_the_middle_of_their_patches():
    scores = np.zeros((6, 4))
    scores[2, 1] = -0.5
    figure = figures.overlay(np.zeros((8, 8)), {"match": scores, "half": np.ones((4, 4))}, window=(3, 5))
    (_, shown), (_, other) = (axes.images for axes in figure.axes[1:3])
    assert list(shown.get_extent()) == [1.5, 5.5, 6.5, 0.5]  # rows 1 to 6 and columns 2 to 5 are whole pixels
    assert other.get_extent() == shown.get_extent()
    scales = [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]
    assert [axes.get_ylim() for axes in scales] == [(-0.5, 0.5), (0, 1)]  # what is nowhere negative has no sign
    scales = [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]
    assert [axes.get_ylim() for axes in scales] == [(-0.5, 0.5), (0, 1)]  # what is nowhere negative has no sign
    colours = shown.get_array()
    assert colours[2, 1, 3] == 1
    assert colours[2, 1, 2] > colours[2, 1, 0]  # purple is negative
    np.testing.assert_array_equal(colours[scores == 0, 3], 0)
    (_, whole) = figures.overlay(np.zeros((8, 6)), {"a": np.ones((4, 3))}).axes[1].images
    assert list(whole.get_extent()) == [-0.5, 5.5, 7.5, -0.5]
    with pytest.raises(ValueError, match=r"maps: .*none"):
        figures.overlay(np.zeros((3, 3)), {})
    with pytest.raises(ValueError, match=r"maps: .* \(3, 3, 2\) of 'a'"):
        figures.overlay(np.zeros((3, 3)), {"a": np.zeros((3, 3, 2))})
    nothing = figures.overlay(np.zeros((3, 3, 1)), {"a": np.full((3, 3, 1), np.nan), "b": X, "c": X, "d": X})
    assert len([axes for axes in nothing.axes if axes.images]) == 5
    with pytest.raises(ValueError, match=r"maps: .* \(3, 3, 2\) of 'a'"):
        figures.overlay(np.zeros((3, 3)), {"a": np.zeros((3, 3, 2))})
    nothing = figures.overlay(np.zeros((3, 3, 1)), {"a": np.full((3, 3, 1), np.nan), "b": X, "c": X, "d": X})
    assert len([axes for axes in nothing.axes if axes.images]) == 5


def test_mistakes_are_shown_the_surest_first():
    labels = np.array([0, 1, 0, 0])
    scores = np.array([[0.1, 0.46, 0.44], [0, 1, 0], [0.15, 0.84, 0.01], [1, 0, 0]])
    figure = figures.mistakes(NOISE[:4], labels, scores, ["cat", "dog", "fox"], most=1)
    assert [axes.get_title() for axes in figure.axes] == ["2: cat\nread dog"]
    assert figure.get_suptitle() == "The 1 surest of 2 mistakes"
    with pytest.raises(ValueError, match=r"scores: .*none"):
        figures.mistakes(NOISE[:1], [1], [[0, 1]], "XO")


def test_confusion_counts_and_shares():
    (axes,) = figures.confusion(np.array([[3, 1], [0, 0]]), ["X", "O"]).axes
    assert texts(axes) == ["3", "1", "0", "0"]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.75, 0.25], [0, 0]])


@pytest.mark.parametrize(("count", "inches", "step"), [(41, 18.45, 1), (100, 20, 1), (101, 20, 2), (500, 20, 5)])
def test_confusion_of_many_classes(count, inches, step):
    figure = figures.confusion(np.eye(count, dtype=int), [f"class {i}" for i in range(count)])
    assert figure.get_figheight() == pytest.approx(inches)
    assert texts(figure.axes[0]) == []
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        names = [label.get_text() for label in axis.get_ticklabels()]
        assert names == [f"class {place}" for place in axis.get_ticklocs()]
        assert names == [f"class {i}" for i in range(0, count, step)]


def test_confusion_of_many_classes_is_saved_small(tmp_path):
    figures.save(figures.confusion(np.eye(500, dtype=int), [f"class {i}" for i in range(500)]), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.width * image.height < 6e6


def test_nothing_to_show_is_refused():
    with pytest.raises(ValueError, match=r"images: .*none"):
        figures.image_grid([])
    with pytest.raises(ValueError, match=r"named: .*none"):
        figures.stages({"dense1": np.ones(2)})


def test_many_bars():
    groups = {"a": {str(i): 1.0 for i in range(8)}}
    assert len(figures.bars(groups, ylabel="y").axes[0].patches) == 8


def test_no_bars():
    with pytest.raises(ValueError, match="groups"):
        figures.bars({}, ylabel="y")


def test_a_failed_save_keeps_the_old_file(tmp_path):
    path = tmp_path / "figure.unknown"
    path.write_text("old")
    with pytest.raises(ValueError, match="unknown"):
        figures.save(figures.image_grid([X]), path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == [path.name]


def test_saving_into_what_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(OSError, match="file"):
        figures.save(figures.image_grid([X]), tmp_path / "file" / "figure.png")


def test_power_laws_have_points_a_fit_and_the_slope_of_what_is_proportional():
    lines = {"a": ([1, 10], [2, 20], ([1, 10], [2.5, 25])), "b": ([1], [5], None)}
    figure = figures.power_laws({"pixels": lines, "features": lines}, ylabel="ms")
    for axes, quantity in zip(figure.axes, ("pixels", "features"), strict=True):
        assert (axes.get_xscale(), axes.get_yscale(), axes.get_xlabel()) == ("log", "log", quantity)
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b", "proportional"]
        drawn = [tuple(line.get_ydata()) for line in axes.lines]
        assert drawn == [(2, 20), (2.5, 25), (5,), (2, 20)]


if __name__ == "__main__":
    for name, make in FIGURES.items():
        picture(make()).save(BASELINE / f"{name}.png")
