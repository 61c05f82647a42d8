"""Levels, angles and scales of a coarse-to-fine search."""

import math

import numpy as np
import pytest

from cnn_jax._range_plan import angle_steps, is_full_turn, plan_ranges

ALL_ANGLES = (-math.pi, math.pi)


def plans(
    template=(80, 120), image=(480, 640), angles=(0.0,), scales=(1.0,), angle_range=None, scale_range=None, **options
):
    return plan_ranges(
        template, image, angles=angles, scales=scales, angle_range=angle_range, scale_range=scale_range, **options
    )


def test_angles_move_the_rim_by_a_pixel_of_the_top_level():
    (plan,) = plans(angle_range=ALL_ANGLES)
    assert plan.pyramid.factors[-1] == 5  # the shorter side has 16 pixels there
    step = plan.angles[1] - plan.angles[0]
    assert 0.9 < step * 24 / 2 <= 1
    np.testing.assert_allclose(len(plan.angles) * step, 2 * math.pi)
    assert plan.freedom == (True, False)


def test_a_part_of_a_turn_has_both_ends():
    steps = angle_steps((-0.5, 0.25), 20)
    assert (steps[0], steps[-1]) == (-0.5, 0.25)
    assert angle_steps((0.3, 0.3), 20) == (0.3,)
    assert not is_full_turn((-0.5, 0.25))
    assert is_full_turn((0, 2 * math.pi))
    assert len(angle_steps((0, 20), 20)) == len(angle_steps((0, 2 * math.pi), 20))


def test_scales_are_compared_at_sizes_of_the_template_that_are_near():
    (plan,) = plans(scale_range=(0.8, 1.25))
    assert (plan.base_scale, plan.size, plan.freedom) == (1, (80, 120), (False, True))
    np.testing.assert_allclose([plan.log_scales[0], plan.log_scales[-1]], np.log([0.8, 1.25]), atol=1e-9)
    wide = plans(template=(40, 60), scale_range=(0.25, 4))
    ends = [
        (plan.base_scale * math.exp(plan.limits.log_scale[0]), plan.base_scale * math.exp(plan.limits.log_scale[1]))
        for plan in wide
    ]
    np.testing.assert_allclose(ends, [(0.25, 0.5), (0.5, 1), (1, 2), (2, 4)])
    assert [plan.size for plan in wide] == [(14, 21), (28, 42), (57, 85), (113, 170)]


def test_scales_at_which_the_template_does_not_fit_are_left_out():
    (plan,) = plans(image=(100, 150), scale_range=(0.8, 1.5))
    assert math.exp(plan.limits.log_scale[1]) * plan.base_scale == pytest.approx(1.25)
    assert plans(image=(70, 110), scale_range=(1, 1.5)) == []
    # At another angle it fits.
    assert len(plans(image=(125, 85), angle_range=ALL_ANGLES)) == 1
    assert plans(image=(125, 85), angle_range=None, scale_range=(1, 1)) == []


def test_lists_beside_a_range_are_compared_as_they_are():
    (plan,) = plans(scales=(0.9, 1.1), angle_range=ALL_ANGLES)
    np.testing.assert_allclose(np.exp(plan.log_scales) * plan.base_scale, [0.9, 1.1])
    assert not plan.freedom.scale
    assert [round(plan.base_scale, 6) for plan in plans(scales=(0.5, 2), angle_range=ALL_ANGLES)] == [0.5, 2]
    (plan,) = plans(angles=(0.0, 1.0), scale_range=(0.8, 1.2))
    assert plan.angles == (0, 1)


def test_levels_are_left_out_on_demand_and_for_small_templates():
    (plan,) = plans(angle_range=ALL_ANGLES, omitted_levels=1)
    assert plan.pyramid.factors == (1, 2, 2.5)
    (plan,) = plans(template=(7, 9), angle_range=ALL_ANGLES)
    assert plan.pyramid.factors == (1,)
