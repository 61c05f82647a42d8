"""What is computed for a letter, by a small network that is not trained."""

import jax
import numpy as np
import pytest

from cnn_jax import nets
from experiments._lib import draw_inspect, tta
from experiments._lib.xo_compare import TTA_VIEWS

NET = nets.xo_net(features=(2, 3))


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda key: NET.init(key, (28, 28, 1)))(jax.random.key(0))


@pytest.fixture(scope="module")
def letter():
    return np.random.default_rng(0).uniform(-1, 1, (28, 28)).astype(np.float32)


@pytest.fixture(scope="module")
def inspection(params, letter):
    return draw_inspect.make_inspect(NET, params)(letter)


def test_probabilities_are_those_of_test_time_augmentation(inspection, params, letter):
    tta_log_probs = jax.jit(lambda pixels: tta.tta_log_probs(NET, params, pixels, TTA_VIEWS))
    log_probs = tta_log_probs(letter[None, ..., None])[0]
    np.testing.assert_allclose(inspection.probabilities, jax.nn.softmax(log_probs), rtol=1e-4)
    assert inspection.probabilities.sum() == pytest.approx(1)


def test_votes_and_stages_are_those_of_the_letter_as_drawn(inspection, params, letter):
    votes = jax.jit(NET.apply)(params, letter[..., None])
    np.testing.assert_allclose(inspection.votes, votes, rtol=1e-4, atol=1e-6)
    assert [stage for stage in inspection.stages if stage.startswith("conv")] == ["conv1", "conv2"]
    assert inspection.stages["conv1"].shape == (28, 28, 2)


def test_a_square_around_every_second_pixel_is_covered(inspection, params, letter):
    predicted = int(np.argmax(inspection.probabilities))
    covered = letter.copy()
    covered[8:13, 4:9] = -1  # black, around row 10 and column 6
    votes = jax.jit(NET.apply)(params, covered[..., None])
    assert inspection.vote_falls.shape == (14, 14)
    fall = inspection.votes[predicted] - votes[predicted]
    assert inspection.vote_falls[5, 3] == pytest.approx(float(fall), abs=1e-5)


def test_results_are_numpy_arrays(inspection):
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(inspection))
