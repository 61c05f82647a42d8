"""Peaks of a map against a plain search, and to fractions of a pixel."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cnn_jax as cnn
from cnn_jax._peaks import neighborhoods, subpixel_offset, top_local_maxima
from tests.helpers.oracles import noise, seeds

SHAPE = (13, 17)
peaks = jax.jit(cnn.peaks, static_argnames=("top_k", "min_distance", "subpixel"))


def pixel_peaks(scores, *, min_distance=1, min_score=-np.inf):
    """Peaks as NumPy arrays, by one compiled program a distance."""
    return jax.device_get(peaks(scores, top_k=60, min_distance=min_distance, min_score=min_score, subpixel=False))


def plain_peaks(scores, distance):
    """(height, y, x) of every pixel that is the first of the largest around it and larger than one, highest first."""
    side = 2 * distance + 1

    def neighborhoods(fill):
        padded = np.pad(np.where(np.isnan(scores), fill, scores), distance, constant_values=fill)
        return np.lib.stride_tricks.sliding_window_view(padded, (side, side)).reshape(*scores.shape, -1)

    is_first_largest = neighborhoods(-np.inf).argmax(axis=-1) == side**2 // 2
    is_peak = is_first_largest & (neighborhoods(np.inf).min(axis=-1) < scores) & (scores > -np.inf)
    return sorted(((scores[y, x], y, x) for y, x in np.argwhere(is_peak)), key=lambda peak: (-peak[0], *peak[1:]))


@pytest.mark.parametrize("distance", [1, 3])
@given(seed=seeds, levels=st.sampled_from([3, 1000]))
def test_peaks_are_those_of_a_plain_search(distance, seed, levels):
    scores = np.random.default_rng(seed).integers(0, levels, SHAPE).astype(np.float32)
    got = pixel_peaks(scores, min_distance=distance)
    want = plain_peaks(scores, distance)[:60]
    assert got.valid.sum() == len(want)
    np.testing.assert_array_equal(got.score[: len(want)], [height for height, _, _ in want])
    assert set(zip(got.y[got.valid].tolist(), got.x[got.valid].tolist(), strict=True)) == {(y, x) for _, y, x in want}
    np.testing.assert_array_equal(np.stack(got[:3])[:, len(want) :], 0)


def test_a_flat_map_has_no_peak_and_a_plateau_one():
    scores = np.full(SHAPE, 0.5, np.float32)
    assert not pixel_peaks(scores).valid.any()
    scores[4:6, 7:9] = 1
    got = pixel_peaks(scores)
    assert (int(got.valid.sum()), float(got.y[0]), float(got.x[0]), float(got.score[0])) == (1, 4, 7, 1)


@pytest.mark.parametrize("score", [0.9, -np.inf, np.nan])
def test_the_only_pixel_of_a_map_is_a_peak_if_it_is_finite(score):
    got = pixel_peaks(np.full((1, 1), score, np.float32))
    assert got.valid.tolist() == [np.isfinite(score)] + [False] * 59
    assert got.score[0] == (np.float32(score) if np.isfinite(score) else 0)


@pytest.mark.parametrize("shape", [(1, 7), (7, 1)])
def test_a_line_has_a_peak_unless_it_is_constant(shape):
    line = np.full(shape, 0.5, np.float32)
    assert not pixel_peaks(line).valid.any()
    line.flat[3] = 1
    assert pixel_peaks(line).score[:2].tolist() == [1, 0]


def test_neighborhoods_are_the_pixels_around_and_nothing_outside_of_the_map():
    maps = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    got = neighborhoods(jnp.asarray(maps), (jnp.array([1, 0]), jnp.array([1, 0]), jnp.array([2, 3])))
    np.testing.assert_array_equal(got[..., 0], maps[1, :3, 1:4])
    np.testing.assert_array_equal(got[..., 1], [[-np.inf] * 3, [2, 3, -np.inf], [6, 7, -np.inf]])


def test_corners_can_be_peaks_and_pixels_that_are_not_finite_cannot():
    scores = np.zeros(SHAPE, np.float32)
    scores[0, 0], scores[-1, -1], scores[6, 6], scores[6, 12] = 1, 2, np.nan, -np.inf
    got = pixel_peaks(scores)
    assert np.stack(got[:3])[:, :2].tolist() == [[12, 0], [16, 0], [2, 1]]
    assert got.score[got.valid].tolist()[:2] == [2, 1]
    assert np.isfinite(np.stack(got[:3])).all()


def test_a_peak_reaches_the_least_score():
    scores = np.zeros(SHAPE, np.float32)
    scores[3, 1], scores[9, 9] = 3, 1
    assert pixel_peaks(scores, min_score=2.0).valid.tolist() == [True] + [False] * 59
    assert pixel_peaks(scores, min_score=1.0).valid.tolist() == [True] * 2 + [False] * 58


def test_local_maxima_after_the_last_one_have_no_height():
    scores = np.zeros((3, 3), np.float32)
    scores[1, 1] = 1
    index, height = jax.jit(partial(top_local_maxima, distance=(1, 1), count=12))(scores)
    assert (int(index[0]), height.tolist()) == (4, [1] + [-np.inf] * 11)


@pytest.mark.parametrize("tilt", [0.0, 0.3, -0.3])
@pytest.mark.parametrize(("dy", "dx"), [(0.0, 0.0), (0.3, -0.2), (-0.4, 0.3)])
def test_peaks_between_pixels(tilt, dy, dx):
    y, x = np.indices(SHAPE)
    down = y - 4 - dy
    right = x - 5 - dx
    got = peaks(10 - down**2 - 0.5 * right**2 - tilt * down * right, top_k=1, min_distance=1, subpixel=True)
    np.testing.assert_allclose([got.y[0], got.x[0]], [4 + dy, 5 + dx], atol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-19, 1.0, 1e19, 1e30])
def test_peaks_between_pixels_of_any_height(scale):
    y, x = np.indices(SHAPE)
    down = y - 4.3
    right = x - 5.2
    scores = (scale * (100 - down**2 - right**2 - 0.5 * down * right)).astype(np.float32)
    got = peaks(scores, top_k=1, min_distance=1, subpixel=True)
    np.testing.assert_allclose([got.y[0], got.x[0]], [4.3, 5.2], atol=1e-3)


def test_peaks_at_the_border_move_along_it():
    scores = np.zeros(SHAPE)
    scores[0, :3], scores[1, :3] = [0, 3, 2], [0, 1, 0]
    got = peaks(scores, top_k=1, min_distance=1, subpixel=True)
    assert (float(got.y[0]), float(got.x[0])) == (0, 1.25)


def test_offsets_are_at_most_half_a_pixel_and_finite():
    scores = noise(0, *SHAPE)
    scores[5, 5], scores[9, 9] = np.nan, -np.inf
    rows, columns = np.indices(SHAPE).reshape(2, -1)
    offsets = jax.jit(lambda *args: subpixel_offset(neighborhoods(args[0], args[1:])))(scores, rows, columns)
    dy, dx = np.reshape(offsets, (2, *SHAPE))
    assert np.isfinite([dy, dx]).all()
    assert np.abs([dy, dx]).max() <= 0.5
    np.testing.assert_array_equal(dy[[0, -1]], 0)
    np.testing.assert_array_equal(dx[:, [0, -1]], 0)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"scores": np.ones(7)}, ValueError, "scores: expected shape"),
        ({"scores": np.ones((0, 7))}, ValueError, "scores: expected at least one element"),
        ({"scores": "map"}, TypeError, "scores: expected a real array"),
        ({"top_k": 0}, ValueError, "top_k: expected at least 1"),
        ({"min_distance": 0}, ValueError, "min_distance: expected at least 1"),
        ({"min_score": np.ones(2)}, ValueError, "min_score: expected one number"),
        ({"min_score": np.nan}, ValueError, "min_score: expected a number, got nan"),
    ],
)
def test_peaks_names_the_wrong_argument(wrong, error, message):
    arguments = {"scores": np.ones(SHAPE)} | wrong
    with pytest.raises(error, match=message):
        cnn.peaks(arguments.pop("scores"), **arguments)
