"""Local maxima of the best poses, against an exhaustive search in NumPy."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax as cnn
from cnn_jax import _pose_maxima
from cnn_jax._pose_maxima import Candidates, pose_candidates, top_candidates
from cnn_jax._pose_scores import Bank, Scoring
from cnn_jax._poses import plan_poses
from tests.helpers.oracles import local_maxima, noise, pose_maps

SIZE = (26, 31)
ANGLES = (0.0, 0.6, math.pi / 2, 4.0)
SCALES = (0.7, 1.0, 1.6)
COUNT = 250
RANKS = {"highest": lambda maps: maps, "lowest": lambda maps: -maps, "magnitude": np.abs}


def candidates_of(image, templates, sizes, scoring, masks=None, scales=SCALES, angles=ANGLES):
    """The candidates as NumPy arrays, and (scale, angle) of every pose."""
    table, canvases = plan_poses(np.array(sizes), image.shape[:2], scales, angles)

    @jax.jit
    def search(image, bank, table):
        return pose_candidates(image, bank, table, canvases, scoring)

    found = search(image, Bank(templates, masks, jnp.array(sizes)), table)
    return jax.device_get(found), list(zip(table.scale.tolist(), table.angle.tolist(), strict=True))


def assert_candidates_of_best_poses(found, k, maps, ranking):
    """Candidates of template k are the local maxima of the best pose's rank in maps (P, H, W)."""
    ranks = np.where(np.isnan(maps), -np.inf, RANKS[ranking](maps))
    best = ranks.max(axis=0)
    is_there = found.rank[k] > -np.inf
    places = list(zip(found.row[k][is_there].tolist(), found.column[k][is_there].tolist(), strict=True))
    assert len(places) < COUNT
    assert set(places) == local_maxima(best)
    assert len(set(places)) == len(places)
    rows, columns = np.transpose(places)
    np.testing.assert_allclose(
        found.rank[k][is_there], best[rows, columns], rtol=0, atol=1e-5 * np.ptp(best[best > -1e9])
    )
    pose = found.pose[k][is_there]
    np.testing.assert_array_equal(pose, ranks.argmax(axis=0)[rows, columns])
    np.testing.assert_allclose(found.score[k][is_there], maps[pose, rows, columns], rtol=0, atol=1e-4)


@pytest.mark.parametrize("chunk_elements", [pytest.param(1, marks=pytest.mark.slow), 5 * SIZE[0] * SIZE[1]])
def test_candidates_are_the_local_maxima_of_the_best_pose(monkeypatch, chunk_elements):
    """One or five maps at a time: the size of chunks, of which some are not full, changes nothing."""
    monkeypatch.setattr(_pose_maxima, "CHUNK_ELEMENTS", chunk_elements)
    image = noise(0, *SIZE)
    templates = noise(1, 3, 7, 9)
    found, poses = candidates_of(image, templates, [(7, 9)] * 3, Scoring(cnn.zncc, "highest", COUNT))
    for k in range(3):
        maps = pose_maps("zncc", image, templates[k], poses)
        assert_candidates_of_best_poses(found, k, maps, "highest")


@pytest.mark.parametrize(
    ("name", "ranking"), [("zncc", "magnitude"), ("squared_difference", "lowest"), ("cosine", "highest")]
)
def test_templates_of_several_sizes_with_masks_and_channels(name, ranking):
    image = noise(2, *SIZE, 2)
    sizes = [(7, 6), (5, 9)]
    templates = np.zeros((2, 7, 9, 2), np.float32)
    masks = np.zeros((2, 7, 9, 2), bool)
    for k, (height, width) in enumerate(sizes):
        templates[k, :height, :width] = noise(3 + k, height, width, 2)
        masks[k, :height, :width] = True
        masks[k, :3, : 2 + k] = False
    scoring = Scoring(getattr(cnn, name), ranking, COUNT)
    found, poses = candidates_of(image, templates, sizes, scoring, masks, scales=(1.0, 1.4), angles=(0.0, 0.8))
    for k, (height, width) in enumerate(sizes):
        part = np.s_[k, :height, :width]
        maps = pose_maps(name, image, templates[part], poses, masks[part])
        assert_candidates_of_best_poses(found, k, maps, ranking)


def test_offsets_are_those_of_the_map_of_the_best_pose():
    image = noise(5, *SIZE)
    template = noise(6, 1, 5, 6)
    scoring = Scoring(cnn.zncc, "highest", 40)
    found, poses = candidates_of(image, template, [(5, 6)], scoring, scales=(1.0,), angles=(0.0, 1.0))
    maps = pose_maps("zncc", image, template[0], poses)
    assert set(found.pose[0]) == {0, 1}
    peaks = jax.jit(lambda scores: cnn.peaks(scores, top_k=1))
    for n in range(12):
        pose, row, column = (int(field[0, n]) for field in (found.pose, found.row, found.column))
        alone = np.full(SIZE, -1, np.float32)
        around = np.s_[row - 1 : row + 2, column - 1 : column + 2]
        alone[around] = maps[pose][around]
        if np.isfinite(alone).all() and alone.max() == alone[row, column]:
            peak = peaks(alone)
            np.testing.assert_allclose(
                [found.dy[0, n] + row, found.dx[0, n] + column], [peak.y[0], peak.x[0]], atol=1e-3
            )


def test_several_poses_of_one_place_are_kept_if_maps_are_of_few_poses():
    image = noise(7, *SIZE)
    template = noise(8, 1, 5, 6)
    scoring = Scoring(cnn.zncc, "highest", 3 * COUNT, 2)
    found, poses = candidates_of(image, template, [(5, 6)], scoring, scales=(1.0,), angles=(0.0, 0.5, 1.0, 1.5, 2.0))
    maps = np.nan_to_num(pose_maps("zncc", image, template[0], poses), nan=-np.inf)
    is_there = found.rank[0] > -np.inf
    got = sorted(zip(found.row[0][is_there], found.column[0][is_there], found.pose[0][is_there] // 2, strict=True))
    want = [(y, x, i) for i in range(3) for y, x in local_maxima(maps[2 * i : 2 * i + 2].max(axis=0))]
    assert got == sorted(want)


def test_the_best_candidates_are_first():
    rank = jnp.array([[0.1, 0.3, -jnp.inf, 0.2]])
    rest = [jnp.arange(4)[None]] * 6
    top = top_candidates(Candidates(rank, *rest), 3)
    assert top.pose.tolist() == [[1, 3, 0]]


def test_a_score_that_skips_positions_is_refused():
    skipping = functools.partial(cnn.match, stride=2)
    with pytest.raises(ValueError, match="score: expected maps of all positions"):
        candidates_of(noise(0, 9, 9), noise(1, 1, 2, 2), [(2, 2)], Scoring(skipping, "highest", 9), scales=(1.0,))


def test_memory_does_not_grow_with_features_or_poses():
    def temporary_bytes(count, angles):
        image = jax.ShapeDtypeStruct((200, 200), jnp.float32)
        table, canvases = plan_poses(np.full((count, 2), 5), (200, 200), [1.0], angles)
        scoring = Scoring(cnn.match, "highest", 64)
        bank = Bank(jnp.zeros((count, 5, 5), jnp.float32), None, jnp.full((count, 2), 5))
        search = jax.jit(lambda image, bank, table: pose_candidates(image, bank, table, canvases, scoring))
        analysis = search.lower(image, bank, table).compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    few = temporary_bytes(50, [0.0])
    assert temporary_bytes(500, [0.0]) < 1.2 * few
    assert temporary_bytes(50, [0.1 * i for i in range(1, 20)]) < 2 * few
