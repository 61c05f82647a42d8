"""Scores of templates in several poses. See also test_pose_maxima."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax as cnn
from cnn_jax._pose_scores import Bank, Scoring, pose_scores, rank_of
from cnn_jax._poses import plan_poses
from tests.helpers.oracles import noise, pose_maps

SIZE = (15, 18)


def scores_of(image, templates, scoring, valid=None, scales=(1.0,), angles=(0.0,)):
    sizes = np.array([template.shape[:2] for template in templates])
    table, canvases = plan_poses(sizes, SIZE, scales, angles)

    @functools.partial(jax.jit, static_argnames="canvas")
    def scores(image, bank, table, valid, canvas):
        return pose_scores(image, valid, bank, table, canvas, scoring)(jnp.arange(canvas.poses.start, canvas.stop))

    bank = Bank(templates, None, jnp.array(sizes))
    maps = [jax.device_get(scores(image, bank, table, valid, canvas)) for canvas in canvases]
    return *(np.concatenate(part) for part in zip(*maps, strict=True)), table


@pytest.mark.parametrize("scales", [(1.0,), (2.0, 1.0), (1.5, 1.0, 0.7)])
def test_every_pose_has_its_scores_and_no_rank_where_its_box_ends_outside(scales):
    image = noise(0, *SIZE)
    templates = noise(1, 2, 4, 5)
    scores, ranks, table = scores_of(image, templates, Scoring(cnn.zncc, "lowest", 1), scales=scales, angles=(0.0, 0.9))
    for k, template in enumerate(templates):
        maps = pose_maps("zncc", image, template, list(zip(table.scale, table.angle, strict=True)))
        fits = ~np.isnan(maps)
        np.testing.assert_array_equal(ranks[:, k] > -np.inf, fits)
        np.testing.assert_allclose(scores[:, k][fits], maps[fits], rtol=0, atol=1e-5)
        np.testing.assert_array_equal(ranks[:, k][fits], -scores[:, k][fits])


def test_a_single_pose_has_the_scores_that_the_function_gives():
    image = noise(0, *SIZE)
    template = noise(1, 1, 4, 5)
    scores, _, _ = scores_of(image, template, Scoring(cnn.zncc, "highest", 1))
    np.testing.assert_allclose(scores[0, 0, 1:-2, 2:-2], cnn.zncc(image, template[0]), rtol=0, atol=1e-6)


def test_nan_has_no_rank():
    image = noise(0, *SIZE)
    image[5, 6] = np.nan
    scores, ranks, _ = scores_of(image, noise(1, 1, 4, 5), Scoring(cnn.zncc, "highest", 1))
    np.testing.assert_array_equal(np.isneginf(ranks[0, 0, 1:-2, 2:-2]), np.isnan(scores[0, 0, 1:-2, 2:-2]))
    assert np.isnan(scores).sum() == 20


def test_parts_that_are_not_visible_enough_have_no_rank():
    image = noise(0, *SIZE)
    valid = np.ones(SIZE, bool)
    valid[:5] = False
    scoring = Scoring(cnn.cosine, "highest", 1, min_visible=0.5)
    scores, ranks, _ = scores_of(image, noise(1, 1, 4, 5), scoring, valid)
    assert np.isneginf(ranks[0, 0, :4]).all()  # rows 3 to 6 are the first of which half are visible
    assert np.isfinite(ranks[0, 0, 4:-2, 2:-2]).all()
    np.testing.assert_allclose(scores[0, 0, 6:-2, 2:-2], cnn.cosine(image, noise(1, 1, 4, 5)[0])[5:], rtol=0, atol=1e-5)


def test_an_undefined_difference_of_visible_parts_has_no_rank():
    image = noise(0, *SIZE)
    image[:9, :9] = 0
    scoring = Scoring(cnn.normalized_squared_difference, "lowest", 1, min_visible=0.9)
    _, ranks, _ = scores_of(image, noise(1, 1, 4, 5), scoring, np.ones(SIZE, bool))
    assert np.isneginf(ranks[0, 0, 1:7, 2:7]).all()
    assert (ranks[0, 0] < -1e-3).all()


def test_ranks_grow_with_the_match():
    scores = jnp.array([-2.0, 1.0])
    assert [rank_of(scores, ranking).tolist() for ranking in ("highest", "lowest", "magnitude")] == [
        [-2, 1],
        [2, -1],
        [2, 1],
    ]
