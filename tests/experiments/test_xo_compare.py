"""The three classifiers of X and O, and their accuracy on the same letters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import nets
from cnn_jax.data import xo
from experiments._lib import xo_compare

BATCH_SIZE = 6
NET = nets.xo_net(features=(2, 3))


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda key: NET.init(key, (28, 28, 1)))(jax.random.key(0))


@pytest.fixture(scope="module")
def exemplars():
    return jax.jit(xo_compare.draw_exemplars)(jax.random.key(0))


@pytest.fixture(scope="module")
def is_correct(params, exemplars):
    return xo_compare.make_is_correct(NET, params, exemplars, BATCH_SIZE)


def test_classifiers_without_training_know_clean_letters(is_correct):
    accuracies = xo_compare.accuracies(is_correct, jax.random.key(1), xo.CLEAN, 10, BATCH_SIZE)
    assert list(accuracies) == list(xo_compare.CLASSIFIERS)
    assert accuracies["whole image"] == 1
    assert accuracies["hand-made features"] == 1
    assert accuracies["trained network"] < 1  # this one is not trained


def test_accuracies_are_those_of_as_many_letters_as_asked_for():
    def is_correct(key, strengths):
        return jnp.array([[True, True, False], [True, False, False], [False, False, False]])

    accuracies = xo_compare.accuracies(is_correct, jax.random.key(0), xo.CLEAN, 5, 3)
    assert list(accuracies.values()) == pytest.approx([4 / 5, 2 / 5, 0])


def test_hand_made_features_are_17_pieces_of_the_clean_letters(exemplars):
    features, labels = xo_compare.cut_features(np.asarray(exemplars))
    assert features.shape == (17, 9, 9)
    assert np.all(features.mean((1, 2)) > -0.7)
    assert set(labels) == {0, 1}


def test_hand_made_features_match_the_letter_that_they_are_cut_from(exemplars):
    features, labels = xo_compare.cut_features(np.asarray(exemplars))
    match_features = jax.jit(lambda image: xo_compare.match_features(image, jnp.asarray(features), labels))
    for label, exemplar in enumerate(exemplars):
        scores = match_features(exemplar)
        assert scores[label] > 0.9
        assert scores[label] > scores[1 - label] + 0.1


def test_every_distortion_and_every_strength_is_measured(monkeypatch, params):
    measured = []

    def accuracies(is_correct, key, strengths, count, batch_size):
        measured.append((dict(strengths), count, batch_size))
        return dict.fromkeys(xo_compare.CLASSIFIERS, sum(strengths.values()))

    monkeypatch.setattr(xo_compare, "accuracies", accuracies)
    monkeypatch.setattr(xo_compare, "draw_exemplars", lambda key: None)
    monkeypatch.setattr(xo_compare, "make_is_correct", lambda *args: None)
    comparison = xo_compare.compare(NET, params, 12, jax.random.key(0))
    assert list(comparison.by_distortion) == ["clean", "shifted", "shrunken", "rotated", "deformed", "all"]
    assert [row["whole image"] for row in comparison.by_distortion.values()] == [0, 1, 1, 1, 1, 9]
    assert comparison.by_strength["strength"] == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]
    assert comparison.by_strength["trained network"] == [
        9 * strength for strength in comparison.by_strength["strength"]
    ]
    assert [count for _, count, _ in measured] == [12] * 6 + [3] * 9
    assert {batch_size for _, _, batch_size in measured} == {12}


def test_the_table_has_a_row_for_each_distortion():
    table = xo_compare.table({"clean": dict(zip(xo_compare.CLASSIFIERS, (0.5, 0.25, 1.0), strict=True))})
    assert table == [["letters", *xo_compare.CLASSIFIERS], ["clean", "50.00 %", "25.00 %", "100.00 %"]]


def test_omniglot_is_classified_and_drawn(monkeypatch, params, exemplars, tmp_path):
    drawings = np.where(np.asarray(exemplars) > 0, 0, 255).astype(np.uint8)
    monkeypatch.setattr(xo_compare.omniglot, "load_xo", lambda data_dir: (drawings, np.array([0, 1])))
    monkeypatch.setattr(xo_compare.predict, "BATCH_SIZE", 2)
    result = xo_compare.evaluate_omniglot(NET, params, None, tmp_path)
    assert result["of"] == 2
    assert 0 <= result["right"] <= 2
    assert result["line"] == f"Omniglot's X's and O's: {result['right']} of 2 correct"
    assert (tmp_path / "omniglot.png").exists()


def test_without_omniglot_the_reason_is_told_and_an_old_figure_goes(params, tmp_path):
    (tmp_path / "omniglot.png").touch()
    result = xo_compare.evaluate_omniglot(NET, params, tmp_path / "missing", tmp_path)
    assert list(result) == ["line"]
    assert result["line"].startswith("Omniglot's X's and O's: not available (")
    assert not (tmp_path / "omniglot.png").exists()
