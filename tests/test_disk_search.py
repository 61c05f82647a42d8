"""Candidates under a disk beside the zero-mean normalized cross-correlation of turned disks, pixel by pixel."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import _disk_search
from cnn_jax._disk_search import DiskSearch, disk_candidates
from tests.helpers.oracles import noise

ANGLES = tuple((2 * math.pi * np.arange(20) / 20).tolist())
SEARCH = DiskSearch(
    center=(5.5, 5.5), angles=ANGLES, log_scales=(0.0,), candidates=6, is_signed=True, tolerance=math.inf
)


@functools.partial(jax.jit, static_argnames="search")
def run(image, template, allowed=None, search=SEARCH):
    return disk_candidates(image, template, allowed, search)


def smooth(seed, height, width, channels=1):
    coarse = jnp.asarray(noise(seed, height // 4, width // 4, channels))
    return np.asarray(jax.image.resize(coarse, (height, width, channels), "cubic"))


def turned_disk(template, angle, radius):
    """Pixels of a template under a disk, turned by an angle: rows of (pixels, channels)."""
    center = [(side - 1) / 2 for side in template.shape[:2]]
    values = []
    offsets = []
    for down in range(-radius, radius + 1):
        for right in range(-radius, radius + 1):
            if down**2 + right**2 <= (radius + 0.5) ** 2:
                y = center[0] + math.cos(angle) * down + math.sin(angle) * right
                x = center[1] + math.cos(angle) * right - math.sin(angle) * down
                i, j = min(int(y), template.shape[0] - 2), min(int(x), template.shape[1] - 2)
                dy, dx = y - i, x - j
                upper = template[i, j] * (1 - dx) + template[i, j + 1] * dx
                lower = template[i + 1, j] * (1 - dx) + template[i + 1, j + 1] * dx
                values.append(upper * (1 - dy) + lower * dy)
                offsets.append((down, right))
    return np.array(values, np.float64), offsets


def zncc_under_disk(image, template, angle, radius, y, x):
    feature, offsets = turned_disk(template, angle, radius)
    patch = np.array([image[y + down, x + right] for down, right in offsets], np.float64)
    patch -= patch.mean(axis=0)
    feature -= feature.mean(axis=0)
    return (patch * feature).sum() / math.sqrt((patch**2).sum() * (feature**2).sum())


@pytest.mark.parametrize("channels", [1, 3])
def test_scores_are_those_of_every_turned_disk(channels):
    image = smooth(0, 24, 28, channels) + np.linspace(0, 50, channels)
    template = smooth(1, 12, 12, channels)
    poses, ranks = run(jnp.asarray(image, jnp.float32), jnp.asarray(template))
    is_there = np.isfinite(ranks)
    assert is_there.sum() >= 6
    for y, x, angle, rank in np.stack([poses.y, poses.x, poses.angle, ranks], -1)[is_there]:
        want = zncc_under_disk(image, template, float(angle), 5, round(float(y)), round(float(x)))
        assert rank == pytest.approx(want, abs=1e-3)


def test_the_best_of_all_angles_and_places_comes_first_of_its_map():
    image = smooth(2, 20, 20)
    template = smooth(3, 12, 12)
    poses, ranks = run(jnp.asarray(image), jnp.asarray(template))
    scores = {
        (y, x, angle): zncc_under_disk(image, template, angle, 5, y, x)
        for angle in ANGLES
        for y in range(5, 15)
        for x in range(5, 15)
    }
    best = max(scores, key=lambda pose: scores[pose])
    first = int(np.argmax(ranks))
    got = (int(poses.y[first]), int(poses.x[first]), float(poses.angle[first]))
    np.testing.assert_allclose(got, best, atol=1e-6)


def test_a_negative_is_a_candidate_unless_signs_matter():
    template = smooth(4, 12, 12)
    image = np.zeros((30, 30, 1), np.float32)
    image[9:21, 9:21] = -template
    arrays = jnp.asarray(image), jnp.asarray(template)
    assert run(*arrays, search=SEARCH._replace(is_signed=False))[1].max() > 0.9
    assert run(*arrays)[1].max() < 0.9


def test_flat_templates_are_no_candidates():
    flat = jnp.full((12, 12, 1), 7.0)
    _, ranks = run(jnp.asarray(smooth(5, 20, 20)), flat)
    assert not (ranks > 0).any()


def test_flat_patches_are_no_candidates():
    _, ranks = run(jnp.full((20, 20, 1), 7.0), jnp.asarray(smooth(3, 12, 12)))
    assert not (ranks > 0).any()


def test_each_scale_has_the_largest_disk_inside_of_it():
    image = smooth(6, 40, 40)
    inside = SEARCH._replace(tolerance=-1.0)
    search = inside._replace(log_scales=(math.log(0.7), 0.0, math.log(1.5)))
    assert search.radii == [3, 5, 8]
    poses, ranks = run(jnp.asarray(image), jnp.asarray(smooth(7, 12, 12)), search=search)
    scales = np.exp(np.asarray(poses.log_scale).reshape(3, -1))
    np.testing.assert_allclose(scales, np.broadcast_to([[0.7], [1.0], [1.5]], scales.shape), rtol=1e-6)
    is_there = np.isfinite(ranks).reshape(3, -1)
    assert is_there.any(axis=1).all()
    for radius, y, there in zip(search.radii, np.asarray(poses.y).reshape(3, -1), is_there, strict=True):
        assert (y[there] > radius).all()
    same, _ = run(jnp.asarray(image), jnp.asarray(smooth(7, 12, 12)), search=inside)
    middle = slice(len(poses.y) // 3, 2 * len(poses.y) // 3)
    np.testing.assert_array_equal(np.asarray(poses.y)[middle], same.y)


def test_candidates_lie_inside_and_where_they_may():
    image = jnp.asarray(smooth(8, 30, 30))
    template = jnp.asarray(smooth(9, 12, 12))
    allowed = np.zeros((30, 30), bool)
    allowed[:, :12] = True
    poses, ranks = run(image, template, jnp.asarray(allowed), SEARCH._replace(candidates=40))
    is_there = np.isfinite(ranks)
    assert is_there.any()
    assert (np.asarray(poses.x)[is_there] < 12).all()
    poses, ranks = run(image, template, search=SEARCH._replace(candidates=40, tolerance=-4.0))
    is_there = np.isfinite(ranks)
    assert (np.abs(np.asarray(poses.y)[is_there] - 14.5) <= 5).all()


def test_chunks_of_angles_give_the_same(monkeypatch):
    arrays = jnp.asarray(smooth(10, 24, 24)), jnp.asarray(smooth(11, 12, 12))
    whole = run(*arrays)
    monkeypatch.setattr(_disk_search, "CHUNK_ELEMENTS", 1)
    parts = jax.jit(lambda image, template: disk_candidates(image, template, None, SEARCH))(*arrays)
    np.testing.assert_allclose(np.sort(parts[1]), np.sort(whole[1]), rtol=1e-5)
