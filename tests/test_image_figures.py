"""Figures of images: what they show, where and on which scale."""

import numpy as np
import pytest

from cnn_jax import figures

NOISE = np.random.default_rng(0).normal(size=(8, 8, 8))
X = np.eye(3, dtype=np.float32) * 2 - 1


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_an_image_grid_has_one_scale():
    figure = figures.image_grid([X, X / 2], ["one", "other"], title="title", limit=2.0)
    assert [axes.get_title() for axes in figure.axes] == ["one", "other"]
    assert figure.get_suptitle() == "title"
    for axes, image in zip(figure.axes, (X, X / 2), strict=True):
        (shown,) = axes.images
        np.testing.assert_array_equal(shown.get_array(), image)
        assert shown.get_clim() == (-2, 2)


def test_numbers_are_written_into_small_images():
    figure = figures.image_grid([X, X / 3, np.zeros((13, 13))], numbers=True)
    whole, fractions, large = figure.axes
    assert texts(whole) == ["1", "-1", "-1", "-1", "1", "-1", "-1", "-1", "1"]
    assert texts(fractions)[:2] == ["0.33", "-0.33"]
    assert texts(large) == []
    assert [text.get_color() for text in whole.texts[:2]] == ["black", "white"]  # on white and on black
    assert texts(figures.image_grid([X]).axes[0]) == []


def test_numbers_are_not_written_into_color_images():
    assert texts(figures.image_grid([np.zeros((3, 3, 3))], numbers=True).axes[0]) == []


def test_an_image_grid_fills_rows():
    figure = figures.image_grid([X] * 5, columns=2)
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 1, 1, 0]


def test_stages_show_up_to_columns_features_of_every_map():
    activations = {"conv1": np.ones((4, 4, 3)), "flatten1": np.ones(9), "conv2": 5 * np.ones((2, 2, 1))}
    figure = figures.stages(activations, columns=2)
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 0]
    assert [figure.axes[i].get_ylabel() for i in (0, 2)] == ["conv1\n4x4x3\n±1", "conv2\n2x2x1\n±5"]
    assert [figure.axes[i].images[0].get_clim() for i in (0, 2)] == [(-1, 1), (-5, 5)]


def test_map_values_are_drawn_in_the_center_of_their_patches():
    scores = np.zeros((6, 4))
    scores[2, 1] = -0.5
    figure = figures.overlay(np.zeros((8, 8)), {"match": scores, "half": np.ones((4, 4))}, window=(3, 5))
    (_, match), (_, half) = (axes.images for axes in figure.axes[1:3])
    assert list(match.get_extent()) == [1.5, 5.5, 6.5, 0.5]  # rows 1 to 6 and columns 2 to 5 are whole pixels
    assert half.get_extent() == match.get_extent()
    color_scales = [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]
    assert [axes.get_ylim() for axes in color_scales] == [(-0.5, 0.5), (0, 1)]  # from 0 where no value is negative
    colors = np.asarray(match.get_array())
    assert colors[2, 1, 3] == 1
    assert colors[2, 1, 2] > colors[2, 1, 0]  # purple is negative
    np.testing.assert_array_equal(colors[scores == 0, 3], 0)


def test_maps_without_a_window_cover_the_image():
    (_, shown) = figures.overlay(np.zeros((8, 6)), {"a": np.ones((4, 3))}).axes[1].images
    assert list(shown.get_extent()) == [-0.5, 5.5, 7.5, -0.5]


def test_overlays_of_nothing_and_of_nan():
    figure = figures.overlay(np.zeros((3, 3, 1)), {"a": np.full((3, 3, 1), np.nan), "b": X, "c": X, "d": X})
    assert len([axes for axes in figure.axes if axes.images]) == 5


def test_overlay_names_what_is_wrong():
    with pytest.raises(ValueError, match=r"maps: .*none"):
        figures.overlay(np.zeros((3, 3)), {})
    with pytest.raises(ValueError, match=r"maps: .* \(3, 3, 2\) for 'a'"):
        figures.overlay(np.zeros((3, 3)), {"a": np.zeros((3, 3, 2))})


def test_mistakes_are_shown_the_most_confident_first():
    labels = np.array([0, 1, 0, 0])
    logits = np.array([[0.1, 0.46, 0.44], [0, 1, 0], [0.15, 0.84, 0.01], [1, 0, 0]])
    figure = figures.mistakes(NOISE[:4], labels, logits, ["cat", "dog", "fox"], max_images=1)
    assert [axes.get_title() for axes in figure.axes] == ["2: cat\nread dog"]
    assert figure.get_suptitle() == "The 1 surest of 2 mistakes"
    by_index = {0: NOISE[0], 2: NOISE[2]}
    assert len(figures.mistakes(by_index, labels, logits, ["cat", "dog", "fox"]).axes) == 2
    with pytest.raises(ValueError, match=r"logits: .*none"):
        figures.mistakes(NOISE[:1], [1], [[0, 1]], "XO")


def test_figures_of_nothing_are_refused():
    with pytest.raises(ValueError, match=r"images: .*none"):
        figures.image_grid([])
    with pytest.raises(ValueError, match=r"titles: expected 2 \(one per image\), got 1"):
        figures.image_grid([X, X], ["one"])
    with pytest.raises(ValueError, match=r"activations: .*none"):
        figures.stages({"dense1": np.ones(2)})
