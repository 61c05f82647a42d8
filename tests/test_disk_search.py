"""Candidates under a disk beside the zero-mean normalized cross-correlation of turned disks, pixel by pixel."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax._disk_search import disk_candidates
from tests.helpers.oracles import noise

ANGLES = tuple((2 * math.pi * np.arange(20) / 20).tolist())


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
    run = jax.jit(disk_candidates, static_argnums=(2, 3, 4, 5), static_argnames="is_signed")
    poses, ranks = run(
        jnp.asarray(image, jnp.float32), jnp.asarray(template), (5.5, 5.5), ANGLES, 0.0, 6, is_signed=True
    )
    is_there = np.isfinite(ranks)
    assert is_there.sum() >= 6
    for y, x, angle, rank in np.stack([poses.y, poses.x, poses.angle, ranks], -1)[is_there]:
        want = zncc_under_disk(image, template, float(angle), 5, round(float(y)), round(float(x)))
        assert rank == pytest.approx(want, abs=1e-3)


def test_the_best_of_all_angles_and_places_comes_first_of_its_map():
    image = smooth(2, 20, 20)
    template = smooth(3, 12, 12)
    run = jax.jit(disk_candidates, static_argnums=(2, 3, 4, 5), static_argnames="is_signed")
    poses, ranks = run(jnp.asarray(image), jnp.asarray(template), (5.5, 5.5), ANGLES, 0.0, 6, is_signed=True)
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
    run = jax.jit(disk_candidates, static_argnums=(2, 3, 4, 5), static_argnames="is_signed")
    arguments = jnp.asarray(image), jnp.asarray(template), (5.5, 5.5), ANGLES, 0.0, 6
    assert run(*arguments, is_signed=False)[1].max() > 0.9
    assert run(*arguments, is_signed=True)[1].max() < 0.9


def test_flat_patches_and_templates_are_no_candidates():
    run = jax.jit(disk_candidates, static_argnums=(2, 3, 4, 5), static_argnames="is_signed")
    flat = jnp.full((12, 12, 1), 7.0)
    _, ranks = run(jnp.asarray(smooth(5, 20, 20)), flat, (5.5, 5.5), ANGLES, 0.0, 6, is_signed=True)
    assert not (ranks > 1e-6).any()
