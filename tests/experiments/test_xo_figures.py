"""The figures of experiments.xo that need no trained network; `test_xo.py` has them all drawn."""

import jax
import numpy as np
import pytest

from cnn_jax import nets
from experiments._lib import xo_compare, xo_figures


def test_letters_are_drawn_under_every_distortion(tmp_path):
    letters = xo_figures.draw_letters(tmp_path, seed=0)
    assert letters.shape == (6 * 8, 28, 28, 1)
    assert (tmp_path / "letters.png").exists()
    clean = letters[:8]
    np.testing.assert_array_equal(clean[0], clean[2])  # X's and O's by turns
    assert np.any(clean[0] != clean[1])
    assert np.any(letters[-8] != letters[-6])


def test_accuracy_is_drawn_by_strength(tmp_path):
    by_strength = {"strength": [0.0, 1.0]} | {name: [1.0, 0.5] for name in xo_compare.CLASSIFIERS}
    xo_figures.draw_strengths(tmp_path, by_strength)
    assert (tmp_path / "strength.png").exists()


@pytest.mark.slow
def test_a_network_that_nothing_activates_has_no_patches(tmp_path):
    (tmp_path / "patches.png").touch()
    net = nets.xo_net(features=(2, 3))
    params = jax.tree.map(np.zeros_like, net.init(jax.random.key(0), (28, 28, 1)))
    xo_figures.draw_patches(net, params, np.zeros((8, 28, 28, 1), np.float32), tmp_path)
    assert not (tmp_path / "patches.png").exists()
