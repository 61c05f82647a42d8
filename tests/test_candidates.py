"""Candidates of `find`: templates grouped by shape, and matches after suppression. See also test_search."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import _candidates
from cnn_jax._candidates import group_by_shape
from cnn_jax._matches import Matches

suppress_overlaps = jax.jit(_candidates.suppress_overlaps, static_argnames=("top_k", "per_feature"))
SMALL, LARGE = np.zeros((2, 3), np.float32), np.ones((4, 3), np.float32)


def test_features_of_one_shape_form_a_group_that_keeps_their_indices():
    groups = group_by_shape([SMALL, LARGE, SMALL + 1], None, 2)
    assert [(group.indices, group.templates.shape, group.masks) for group in groups] == [
        ([0, 2], (2, 2, 3), None),
        ([1], (1, 4, 3), None),
    ]


def test_one_feature_and_a_bank_are_taken_alike():
    (single,) = group_by_shape(SMALL, None, 2)
    (bank,) = group_by_shape(np.stack([SMALL, SMALL]), None, 2)
    assert (single.indices, bank.indices) == ([0], [0, 1])


def test_each_feature_needs_a_mask():
    with pytest.raises(ValueError, match="one mask per feature, got 2 features and 1 masks"):
        group_by_shape([SMALL, LARGE], [np.ones((2, 3), bool)], 2)


def candidates(y, score, feature=0):
    ones = jnp.ones(len(y))
    sides = dict.fromkeys(("height", "width", "template_height", "template_width"), 4 * ones)
    whole = {"feature": jnp.full(len(y), feature, jnp.int32), "found": jnp.zeros(len(y), jnp.int32)}
    return Matches(
        y=jnp.array(y), x=0 * ones, score=jnp.array(score), scale=ones, angle=0 * ones, valid=ones > 0, **sides, **whole
    )


def test_the_best_of_overlapping_candidates_stays():
    matches = suppress_overlaps(
        [candidates([0.0, 1.0], [0.8, 0.9]), candidates([9.0], [0.7])], jnp.array(0.5), 0.25, top_k=3
    )
    assert matches.valid.tolist() == [True, True, False]
    assert matches.y.tolist() == [1, 9, 0]
    assert matches.feature.tolist() == [0, 0, -1]
    assert matches.found == 2


def test_matches_that_do_not_fit_into_top_k_are_counted():
    matches = suppress_overlaps([candidates([0.0, 4.0, 8.0, 9.0], [0.8, 0.9, 0.7, 0.6])], jnp.array(0.5), 0.25, top_k=1)
    assert matches.y.tolist() == [4]
    assert (matches.found.shape, matches.found.dtype, int(matches.found)) == ((), jnp.int32, 3)


def test_features_can_be_suppressed_each_by_itself():
    both = [candidates([0.0, 1.0], [0.8, 0.9]), candidates([1.0], [0.7], feature=1)]
    assert suppress_overlaps(both, jnp.array(0.5), 0.25, top_k=3).feature.tolist() == [0, -1, -1]
    by_itself = suppress_overlaps(both, jnp.array(0.5), 0.25, top_k=3, per_feature=True)
    assert by_itself.feature.tolist() == [0, 1, -1]
    assert by_itself.found == 2


def test_candidates_below_the_least_score_are_no_matches():
    matches = suppress_overlaps([candidates([0.0, 9.0], [0.8, 0.4])], jnp.array(0.5), 0.25, top_k=2)
    assert matches.valid.tolist() == [True, False]
