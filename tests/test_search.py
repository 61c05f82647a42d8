"""Peaks against a plain search, and features found where they were put."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax as cnn
from tests.helpers.oracles import noise


def plain_peaks(scores, distance):
    """Every pixel that is the largest around it, larger than one, and the first of equals: highest first."""
    found = []
    for (y, x), height in np.ndenumerate(scores):
        around = scores[max(0, y - distance) : y + distance + 1, max(0, x - distance) : x + distance + 1]
        top, left = max(0, y - distance), max(0, x - distance)
        first = np.unravel_index(np.nanargmax(np.where(np.isnan(around), -np.inf, around)), around.shape)
        if (top + first[0], left + first[1]) == (y, x) and np.nanmin(around) < height and height > -np.inf:
            found.append((-height, y, x))
    return sorted(found)


highest = jax.jit(cnn.peaks, static_argnames=("top_k", "min_distance", "subpixel"))


@pytest.mark.parametrize("distance", [1, 3])
@pytest.mark.parametrize("levels", [3, 1000])
def test_peaks_are_those_of_a_plain_search(distance, levels):
    for seed in range(20):
        scores = np.random.default_rng(seed).integers(0, levels, (13, 17)).astype(np.float32)
        got = highest(scores, top_k=60, min_distance=distance, subpixel=False)
        want = plain_peaks(scores, distance)[:60]
        assert got.valid.sum() == len(want)
        np.testing.assert_array_equal(-got.score[: len(want)], [height for height, _, _ in want])
        places = set(zip(got.y[got.valid].tolist(), got.x[got.valid].tolist(), strict=True))
        assert places == {(y, x) for _, y, x in want}
        np.testing.assert_array_equal(jnp.stack(got[:3])[:, len(want) :], 0)


def test_a_flat_map_has_no_peak_and_a_plateau_one():
    flat = np.full((13, 17), 0.5, np.float32)
    assert not highest(flat, top_k=60, min_distance=1, subpixel=False).valid.any()
    flat[4:6, 7:9] = 1
    got = highest(flat, top_k=60, min_distance=1, subpixel=False)
    assert (int(got.valid.sum()), float(got.y[0]), float(got.x[0]), float(got.score[0])) == (1, 4, 7, 1)


def test_corners_can_be_peaks_and_what_is_not_finite_is_none():
    scores = np.zeros((13, 17), np.float32)
    scores[0, 0], scores[-1, -1], scores[6, 6], scores[6, 12] = 1, 2, np.nan, -np.inf
    got = highest(scores, top_k=60, min_distance=1, subpixel=False)
    assert jnp.stack(got[:3])[:, :2].tolist() == [[12, 0], [16, 0], [2, 1]]
    assert got.score[got.valid].tolist()[:2] == [2, 1]
    assert jnp.isfinite(jnp.stack(got[:3])).all()


def test_fewer_peaks_than_asked_for_and_a_least_height():
    got = cnn.peaks(np.array([[0.0, 3.0, 0.0, 1.0]]), top_k=20, min_score=2)
    assert got.valid.tolist() == [True] + [False] * 19


@pytest.mark.parametrize("tilt", [0.0, 0.3, -0.3])
def test_peaks_between_pixels(tilt):
    y, x = np.indices((9, 11))
    for dy, dx in ((0.0, 0.0), (0.3, -0.2), (-0.4, 0.3)):
        down, right = y - 4 - dy, x - 5 - dx
        got = highest(10 - down**2 - 0.5 * right**2 - tilt * down * right, top_k=1, min_distance=1, subpixel=True)
        np.testing.assert_allclose([got.y[0], got.x[0]], [4 + dy, 5 + dx], atol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-19, 1.0, 1e19, 1e30])
def test_peaks_between_pixels_of_any_height(scale):
    y, x = np.indices((9, 11))
    down, right = y - 4.3, x - 5.2
    scores = (scale * (100 - down**2 - right**2 - 0.5 * down * right)).astype(np.float32)
    got = highest(scores, top_k=1, min_distance=1, subpixel=True)
    np.testing.assert_allclose([got.y[0], got.x[0]], [4.3, 5.2], atol=1e-3)


def test_peaks_at_the_border_move_along_it():
    got = cnn.peaks(np.array([[0.0, 3.0, 2.0], [0.0, 1.0, 0.0]]), top_k=1)
    assert (float(got.y[0]), float(got.x[0])) == (0, 1.25)


OPTIONS = ("score", "scales", "angles", "top_k", "max_overlap", "subpixel")
find = jax.jit(cnn.find, static_argnames=OPTIONS)
IMAGE = noise(0, 40, 50)
TURNS = tuple(i * math.pi / 2 for i in range(4))


@pytest.mark.parametrize("score", [cnn.zncc, cnn.cosine])
def test_pieces_of_an_image_are_found_where_they_were_cut_out(score):
    bank = np.stack([IMAGE[3:10, 40:48], IMAGE[30:37, 0:8], IMAGE[33:40, 42:50]])
    got = find(IMAGE, bank, score=score, top_k=4, min_score=0.9, subpixel=False)
    rows = sorted(zip(*(got[i][:3].tolist() for i in (3, 0, 1)), strict=True))
    assert rows == [(0, 3, 40), (1, 30, 0), (2, 33, 42)]
    assert got.valid.tolist() == [True, True, True, False]
    np.testing.assert_allclose(got.score[:3], 1, atol=1e-5)
    np.testing.assert_array_equal(jnp.stack([got.scale, got.angle, got.height, got.width])[:, :3].T, [[1, 0, 7, 8]] * 3)
    assert got.feature[3] == -1


def test_the_best_match_is_the_best_score():
    feature = noise(1, 5, 6)
    got = find(IMAGE, feature, top_k=1, min_score=-1.0)
    scores = jax.jit(cnn.zncc)(IMAGE, feature)
    assert got.score[0] == pytest.approx(float(scores.max()), abs=1e-6)
    assert round(float(got.y[0])) * scores.shape[1] + round(float(got.x[0])) == scores.argmax()


def test_features_of_different_sizes_colours_and_masks():
    image = noise(2, 30, 31, 3)
    features = [image[2:9, 3:9], image[20:24, 20:29], image[12:19, 1:7]]
    masks = [np.ones_like(features[0], bool), None, np.ones_like(features[2], bool)]
    features[0] = features[0].copy()
    features[0][:3, :3], masks[0][:3, :3] = 9, False
    masks[0] = masks[0][:, :, 0]  # for all channels alike
    got = find(image, features, mask=masks, top_k=3, min_score=0.9, subpixel=False)
    found = sorted(zip(*(got[i].tolist() for i in (3, 0, 1, 6, 7)), strict=True))
    assert found == [(0, 2, 3, 7, 6), (1, 20, 20, 4, 9), (2, 12, 1, 7, 6)]
    assert got.score[got.feature == 0] == pytest.approx(1, abs=1e-5)


def blob(seed):
    """A smooth feature, (15, 18), so that it can be resampled."""
    coarse = jnp.asarray(noise(seed, 5, 6))
    return np.asarray(jax.image.resize(coarse, (15, 18), "cubic"))


@pytest.mark.parametrize("scale", [1.0, 1.5])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_turned_and_scaled_features(scale, turns):
    feature = blob(3)
    shape = (round(15 * scale), round(18 * scale))
    placed = np.rot90(jax.image.resize(jnp.asarray(feature), shape, "linear"), turns)
    image = 0.05 * noise(4, 60, 70)
    image[20 : 20 + placed.shape[0], 31 : 31 + placed.shape[1]] += placed
    got = find(image, feature, scales=(1.0, 1.5), angles=TURNS, top_k=5, min_score=0.8)
    assert got.angle[0] == pytest.approx(turns * math.pi / 2)
    assert got.scale[0] == scale
    assert (got.height[0], got.width[0]) == placed.shape
    np.testing.assert_allclose([got.y[0], got.x[0]], [20, 31], atol=0.25)
    assert got.score[0] > 0.95
    assert got.valid.sum() == 1


def test_any_angle_beside_the_border():
    feature = blob(5)
    matrix = cnn.warping.affine_matrix(angle=0.5)
    wide = jnp.pad(feature, 8)
    image = jnp.asarray(0.02 * noise(6, 50, 60)).at[:31, :34].add(cnn.warping.affine(wide, matrix, fill=0.0))
    got = find(image, feature, angles=(0.0, 0.5, 1.0), top_k=1)
    assert got.angle[0] == 0.5
    np.testing.assert_allclose(got.y[0] + (got.height[0] - 1) / 2, 15, atol=0.25)
    np.testing.assert_allclose(got.x[0] + (got.width[0] - 1) / 2, 16.5, atol=0.25)


def overlap(a, b):
    sides = [min(p + s, q + t) - max(p, q) for p, s, q, t in ((a[0], a[2], b[0], b[2]), (a[1], a[3], b[1], b[3]))]
    common = max(sides[0], 0) * max(sides[1], 0)
    return common / (a[2] * a[3] + b[2] * b[3] - common)


def test_matches_do_not_overlap_more_than_allowed():
    feature = noise(1, 6, 6)
    alone = find(IMAGE, feature, top_k=30, min_score=0.2, max_overlap=0.0, subpixel=False)
    crowd = find(IMAGE, feature, top_k=30, min_score=0.2, max_overlap=0.5, subpixel=False)
    for got, most in ((alone, 0), (crowd, 0.5)):
        boxes = [tuple(float(got[i][n]) for i in (0, 1, 6, 7)) for n in np.flatnonzero(got.valid)]
        assert len(boxes) > 3
        assert max(overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i]) <= most
        assert (jnp.diff(got.score[got.valid]) <= 0).all()
    assert crowd.valid.sum() > alone.valid.sum()


def test_a_peak_that_is_dropped_hides_no_other_beside_it():
    """Of three in a row that overlap by turns, the first and the last stay."""
    feature = np.zeros((9, 9), np.float32)
    feature[4, 4] = 1
    image = np.zeros((20, 40), np.float32)
    image[10, 9], image[10, 13], image[10, 17] = 3, 2, 1
    got = find(image, feature, score=cnn.match, top_k=3, min_score=1e-3, max_overlap=0.1, subpixel=False)
    assert got.x[got.valid].tolist() == [5, 13]


def test_the_second_best_is_found_beside_a_pattern_that_matches_itself_everywhere():
    rng = np.random.default_rng(0)
    y, x = np.indices((60, 60)) // 2 % 2
    board = np.where(y == x, 1, -1).astype(np.float32)
    image = rng.normal(0, 0.1, (150, 220)).astype(np.float32)
    image[10:70, 10:70] += board
    image[70:130, 140:200] += board + rng.normal(0, 0.9, board.shape)
    got = find(image, board, top_k=2, min_score=0.5, subpixel=False)
    assert got.y.tolist() == [10, 70]
    assert got.x.tolist() == [10, 140]


def test_neighbours_that_touch_are_both_found():
    feature = noise(1, 8, 8)
    got = find(np.tile(feature, (1, 6)), feature, top_k=8, max_overlap=0.0, min_score=0.99, subpixel=False)
    assert sorted(got.x[got.valid].tolist()) == [0, 8, 16, 24, 32, 40]


def test_batches_under_jit_and_vmap():
    images = np.stack([IMAGE, IMAGE[::-1], IMAGE[:, ::-1]])
    feature = IMAGE[8:13, 20:26]
    together = jax.vmap(lambda image: find(image, feature, top_k=1, min_score=0.5))(images)
    for i, image in enumerate(images):
        for got, want in zip(together, find(image, feature, top_k=1, min_score=0.5), strict=True):
            np.testing.assert_allclose(got[i], want, atol=1e-4)


def test_a_match_can_be_learned():
    feature = jnp.asarray(noise(1, 5, 6))

    def best(feature):
        return find(IMAGE, feature, top_k=1, min_score=-1.0).score[0]

    gradient = jax.grad(best)(feature)
    assert jnp.isfinite(gradient).all()
    assert best(feature + 0.05 * gradient / jnp.linalg.norm(gradient)) > best(feature)


def test_memory_does_not_grow_with_the_angles():
    def temporary(count):
        run = partial(cnn.find, angles=[0.1 * i for i in range(1, count + 1)])
        program = jax.jit(run).lower(np.zeros((200, 200), np.float32), np.zeros((5, 5), np.float32)).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert temporary(20) < 1.1 * temporary(5)


def test_nothing_there_is_no_match():
    got = find(np.zeros((40, 50), np.float32), noise(0, 5, 6), top_k=1, min_score=0.5)
    assert (got.valid.tolist(), got.feature.tolist()) == ([False], [-1])


def test_features_that_fit_at_some_scales_only():
    image = noise(0, 12, 12)
    got = find(image, image[1:11, 1:11], scales=(1.0, 2.0), angles=(0.0, 0.8), top_k=1, subpixel=False)
    assert (float(got.y[0]), float(got.x[0]), float(got.scale[0])) == (1, 1, 1)


FEATURE = noise(1, 5, 6)
ERRORS = [
    ({"features": noise(0, 41, 6)}, ValueError, "features: expected one that fits into the image"),
    ({"features": []}, ValueError, "features: expected at least one"),
    ({"features": noise(0, 5, 6, 3, 2)}, ValueError, "features: expected shape"),
    ({"image": IMAGE[0]}, ValueError, "image: expected shape"),
    ({"mask": np.ones((5, 5))}, ValueError, "mask: expected the shape of the feature"),
    ({"score": "zncc"}, TypeError, "score: expected a function such as zncc, got 'zncc'"),
    ({"score": partial(cnn.match, stride=2)}, ValueError, "score: expected maps of all positions"),
    ({"features": [FEATURE], "mask": []}, ValueError, "a mask for each"),
    ({"scales": ()}, ValueError, "scales: expected at least one number"),
    ({"scales": (0.0,)}, ValueError, "scales: expected numbers above 0"),
    ({"scales": 2.0}, TypeError, "scales: expected a sequence of Python numbers"),
    ({"angles": (math.inf,)}, ValueError, "angles: expected at least one number, all finite"),
    ({"top_k": 0}, ValueError, "top_k: expected at least 1"),
    ({"top_k": 1.5}, TypeError, "top_k: expected an int"),
    ({"min_score": np.ones(2)}, ValueError, "min_score: expected one number"),
    ({"max_overlap": 1.5}, ValueError, "max_overlap: expected 0 to 1"),
    ({"score": cnn.squared_difference}, ValueError, "score: expected one that grows with the match"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), ERRORS)
def test_find_names_the_wrong_argument(wrong, error, message):
    arguments = {"image": IMAGE, "features": FEATURE} | wrong
    with pytest.raises(error, match=message):
        cnn.find(arguments.pop("image"), arguments.pop("features"), **arguments)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"scores": IMAGE[0]}, ValueError, "scores: expected shape"),
        ({"top_k": 0}, ValueError, "top_k: expected at least 1"),
        ({"min_distance": 0}, ValueError, "min_distance: expected at least 1"),
        ({"scores": "map"}, TypeError, "scores: expected a real array"),
    ],
)
def test_peaks_names_the_wrong_argument(wrong, error, message):
    arguments = {"scores": IMAGE} | wrong
    with pytest.raises(error, match=message):
        cnn.peaks(arguments.pop("scores"), **arguments)


def test_traced_scales_are_refused():
    with pytest.raises(TypeError, match="scales: expected a sequence of Python numbers"):
        jax.jit(lambda scales: cnn.find(IMAGE, FEATURE, scales=scales))(jnp.ones(2))
