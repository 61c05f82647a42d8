"""Figures of numbers: their values, labels and scales."""

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from cnn_jax import figures

BARS = {"the X": {"X": 1.0, "O": 0.5}, "the O": {"X": 0.5, "O": 1.0}}


def texts(axes):
    return [text.get_text() for text in axes.texts]


def bars(axes):
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def test_curves_have_names():
    (axes,) = figures.curves([1, 2], {"a": [1, 2], "b": [2, 3]}, xlabel="x", ylabel="y", title="t").axes
    assert [line.get_label() for line in axes.lines] == ["a", "b"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("x", "y", "t")
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), [2, 3])
    assert axes.get_yscale() == "linear"
    assert figures.curves([1, 2], {"a": [1, 2]}, xlabel="x", ylabel="y", log=True).axes[0].get_yscale() == "log"


def test_power_laws_have_points_a_fit_and_the_slope_of_proportional_growth():
    points = {"a": ([1, 10], [2, 20], ([1, 10], [2.5, 25])), "b": ([1], [5], None)}
    figure = figures.power_laws({"pixels": points, "features": points}, ylabel="ms")
    for axes, xlabel in zip(figure.axes, ("pixels", "features"), strict=True):
        assert (axes.get_xscale(), axes.get_yscale(), axes.get_xlabel()) == ("log", "log", xlabel)
        legend = axes.get_legend()
        assert legend is not None
        assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "proportional"]
        drawn = [tuple(np.asarray(line.get_ydata())) for line in axes.lines]
        assert drawn == [(2, 20), (2.5, 25), (5,), (2, 20)]


def test_bars_have_their_heights():
    (axes,) = figures.bars(BARS, ylabel="votes").axes
    assert [bar.get_height() for bar in bars(axes)] == [1.0, 0.5, 0.5, 1.0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["the X", "the O"]


def test_bars_may_be_more_than_the_colors():
    groups = {"a": {str(i): 1.0 for i in range(8)}}
    assert len(figures.bars(groups, ylabel="y").axes[0].patches) == 8


def test_bars_of_nothing_are_refused():
    with pytest.raises(ValueError, match="groups"):
        figures.bars({}, ylabel="y")


def test_class_scores_have_their_lengths_and_one_best_class():
    (axes,) = figures.class_scores({"X": -1.0, "O": 2.0}).axes
    assert [bar.get_width() for bar in bars(axes)] == [-1.0, 2.0]
    assert axes.get_title() == "O"
    assert axes.patches[0].get_facecolor() != axes.patches[1].get_facecolor()
    with pytest.raises(ValueError, match=r"scores: .*none"):
        figures.class_scores({})


def test_confusion_shows_counts_and_fractions():
    (axes,) = figures.confusion(np.array([[3, 1], [0, 0]]), ["X", "O"]).axes
    assert texts(axes) == ["3", "1", "0", "0"]
    np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), [[0.75, 0.25], [0, 0]])


@pytest.mark.parametrize(("count", "inches", "step"), [(41, 18.45, 1), (100, 20, 1), (101, 20, 2), (500, 20, 5)])
def test_confusion_of_many_classes(count, inches, step):
    figure = figures.confusion(np.eye(count, dtype=int), [f"class {i}" for i in range(count)])
    assert figure.get_figheight() == pytest.approx(inches)
    (axes,) = figure.axes
    assert texts(axes) == []
    for axis in (axes.xaxis, axes.yaxis):
        names = [label.get_text() for label in axis.get_ticklabels()]
        assert names == [f"class {position}" for position in axis.get_ticklocs()]
        assert names == [f"class {i}" for i in range(0, count, step)]
