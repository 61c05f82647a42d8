"""Features in groups that are searched coarse to fine."""

import math

import numpy as np

from cnn_jax._range_groups import Ranges, make_range_groups
from cnn_jax._search_inputs import as_stacks
from tests.helpers.oracles import noise

ALL_ANGLES = Ranges((1.0,), (0.0,), None, (-math.pi, math.pi))


def groups(features, mask=None, image=(200, 300), ranges=ALL_ANGLES):
    return make_range_groups(as_stacks(features, mask, image), image, ranges)


def test_features_of_one_shape_are_one_group():
    found, plans = groups([noise(0, 40, 40), noise(1, 20, 30), noise(2, 40, 40)])
    assert [group.indices.tolist() for group in found] == [[0, 2], [1]]
    assert [group.templates.shape for group in found] == [(2, 40, 40), (20, 30)]
    assert [plan.template_size for (plan,) in plans] == [(40, 40), (20, 30)]


def test_features_that_fit_nowhere_are_left_out():
    found, _ = groups([noise(0, 40, 40), noise(1, 400, 30)])
    assert [group.indices.tolist() for group in found] == [[0]]


def test_plans_follow_the_texture_of_the_features():
    board = np.indices((64, 64)).sum(axis=0) % 2 * 1.0
    plain, checkered = (groups(feature)[1][0][0].pyramid for feature in (noise(0, 64, 64), board))
    assert plain.factors == (1, 2, 4)
    assert checkered.factors == (1,)


def test_lists_have_no_range():
    assert Ranges((1.0,), (0.0,), None, None).are_lists
    assert not ALL_ANGLES.are_lists
