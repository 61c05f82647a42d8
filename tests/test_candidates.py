"""Candidates of `find`: templates grouped by shape, and matches after suppression. See also test_search."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax as cnn
from cnn_jax import _candidates
from cnn_jax._candidates import MatchOptions, _candidate_count, make_groups
from cnn_jax._matches import Matches
from cnn_jax._pose_scores import Ranking
from cnn_jax._search_inputs import as_stacks
from tests.helpers.oracles import noise

SMALL, LARGE = np.zeros((2, 3), np.float32), np.ones((4, 3), np.float32)


def groups_of(features, masks=None):
    return make_groups(as_stacks(features, masks, (20, 20)), (20, 20), [1.0], [0.0])


def test_features_of_one_shape_form_a_group_that_keeps_their_indices():
    groups, canvases = groups_of([SMALL, LARGE, SMALL + 1])
    assert [
        (group.features.indices.tolist(), group.features.templates.shape, group.features.masks) for group in groups
    ] == [
        ([1], (4, 3), None),
        ([0, 2], (2, 2, 3), None),
    ]
    assert [canvas.is_identity for (canvas,) in canvases] == [True, True]


def test_features_of_many_similar_shapes_share_arrays():
    features = [noise(side, side, 9) for side in (2, 3, 4, 18)]
    groups, _ = groups_of(features)
    assert [(group.features.indices.tolist(), group.features.templates.shape) for group in groups] == [
        ([3], (18, 9)),
        ([2, 1, 0], (3, 4, 9)),
    ]
    np.testing.assert_array_equal(groups[1].features.templates[2], np.pad(features[0], ((0, 2), (0, 0))))
    assert groups[1].sizes.tolist() == [[4, 9], [3, 9], [2, 9]]


def test_features_are_grouped_by_dtype_and_kind_of_mask():
    mask = np.ones((2, 3), bool)
    features = [noise(0, 2, 3), noise(1, 2, 3), noise(2, 2, 3).astype(np.float16)]
    groups, _ = groups_of(features, [None, mask, None])
    assert [group.features.indices.tolist() for group in groups] == [[0], [1], [2]]
    assert [group.features.masks is None for group in groups] == [True, False, True]


def test_features_that_fit_nowhere_are_in_no_group():
    groups, _ = groups_of([SMALL, np.zeros((21, 3), np.float32)])
    assert [group.features.indices.tolist() for group in groups] == [[0]]
    assert groups_of(np.zeros((21, 3), np.float32)) == ((), ())


def suppress_overlaps(candidates, least_rank, max_overlap, top_k, ranking: Ranking = "highest", per_feature=False):
    options = MatchOptions(cnn.zncc, ranking, top_k, subpixel=True, per_feature=per_feature, min_visible=1.0)
    suppress = jax.jit(_candidates.suppress_overlaps, static_argnames="options")
    return suppress(candidates, least_rank, max_overlap, options=options)


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


def test_the_rank_decides_and_the_score_is_returned():
    scores = [candidates([0.0, 9.0], [-0.9, 0.6])]
    by_magnitude = suppress_overlaps(scores, jnp.array(0.5), 0.25, top_k=2, ranking="magnitude")
    np.testing.assert_array_equal(by_magnitude.score, np.array([-0.9, 0.6], np.float32))
    lowest = suppress_overlaps(
        [candidates([0.0, 9.0, 18.0], [2.0, 0.0, 3.0])], jnp.array(-2.5), 0.25, top_k=3, ranking="lowest"
    )
    np.testing.assert_array_equal(lowest.score, [0, 2, 0])
    assert lowest.valid.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("features", "top_k", "count"),
    [(1, 10, 4096), (8, 10, 4096), (64, 10, 512), (1000, 8, 256), (1000, 1000, 262), (1, 1000, 32_000)],
)
def test_the_candidates_of_all_features_are_bounded(features, top_k, count):
    assert _candidate_count(features, top_k) == count
