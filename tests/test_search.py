"""Features found where they were put, at all scales and angles."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax as cnn
from cnn_jax import warping
from tests.helpers.oracles import intersection_over_union, noise

OPTIONS = ("score", "scales", "angles", "top_k", "max_overlap", "per_feature", "subpixel", "polarity", "min_visible")
find = jax.jit(cnn.find, static_argnames=OPTIONS)
IMAGE = noise(0, 40, 50)
TURNS = tuple(i * math.pi / 2 for i in range(4))


@pytest.mark.parametrize("score", [cnn.zncc, pytest.param(cnn.cosine, marks=pytest.mark.slow)])
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


def test_features_of_different_sizes_channels_and_masks():
    image = noise(2, 30, 31, 3)
    features = [image[2:9, 3:9], image[20:24, 20:29], image[12:19, 1:7]]
    masks = [np.ones_like(features[0], bool), None, np.ones_like(features[2], bool)]
    features[0] = features[0].copy()
    features[0][:3, :3], masks[0][:3, :3] = 9, False
    masks[0] = masks[0][:, :, 0]  # for all channels alike
    got = find(image, features, mask=masks, top_k=3, min_score=0.9, subpixel=False)
    rows = sorted(zip(*(got[i].tolist() for i in (3, 0, 1, 6, 7)), strict=True))
    assert rows == [(0, 2, 3, 7, 6), (1, 20, 20, 4, 9), (2, 12, 1, 7, 6)]
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
    matrix = warping.affine_matrix(angle=0.5)
    rotated = warping.affine(jnp.pad(feature, 8), matrix, fill=0.0)
    image = jnp.asarray(0.02 * noise(6, 50, 60)).at[:31, :34].add(rotated)
    got = find(image, feature, angles=(0.0, 0.5, 1.0), top_k=1)
    assert got.angle[0] == 0.5
    np.testing.assert_allclose(got.y[0] + (got.height[0] - 1) / 2, 15, atol=0.25)
    np.testing.assert_allclose(got.x[0] + (got.width[0] - 1) / 2, 16.5, atol=0.25)


def bars(shape, centers, size, angle):
    """An image of light bars (height, width) on noise: their edges are those of turned rectangles."""
    image = 0.05 * noise(7, *shape)
    rows, columns = np.indices(shape)
    for y, x in centers:
        down = np.cos(angle) * (rows - y) + np.sin(angle) * (columns - x)
        right = np.cos(angle) * (columns - x) - np.sin(angle) * (rows - y)
        image[(abs(down) < size[0] / 2) & (abs(right) < size[1] / 2)] += 1
    return image


def test_parallel_bars_whose_upright_boxes_overlap_are_all_found():
    """The features are 26 pixels apart and 20 high. Their upright boxes are 99 pixels high and wide."""
    shift = 26 * math.sqrt(0.5)
    centers = [(70 + shift * i, 70 + shift * i) for i in range(5)]
    image = bars((215, 215), centers, (16, 116), math.pi / 4)
    bar = np.pad(np.ones((16, 116), np.float32), 2)
    got = find(image, bar, angles=(math.pi / 4,))
    assert (got.valid.sum(), got.found) == (5, 5)
    found = got.center[got.valid]
    np.testing.assert_allclose(found[np.argsort(found[:, 0])], centers, atol=0.7)


def test_top_k_cuts_no_match_silently():
    image = np.tile(noise(8, 6, 7), (3, 4))
    got = find(image, image[:6, :7], top_k=5, min_score=0.99, subpixel=False)
    assert got.valid.all()
    assert got.found == 12


@pytest.mark.slow  # fast: test_pose_maxima
def test_features_that_share_a_place_are_found_each_by_itself():
    feature = noise(9, 8, 8)
    image = 0.05 * noise(10, 20, 20)
    image[5:13, 6:14] += feature
    bank = np.stack([feature, feature + 0.1 * noise(11, 8, 8)])
    together = find(image, bank, top_k=3)
    by_itself = find(image, bank, top_k=3, per_feature=True)
    assert (together.feature.tolist(), int(together.found)) == ([0, -1, -1], 1)
    assert (by_itself.feature.tolist(), int(by_itself.found)) == ([0, 1, -1], 2)


@pytest.mark.slow  # fast: test_non_max_suppression
def test_matches_do_not_overlap_more_than_allowed():
    feature = noise(1, 6, 6)
    alone = find(IMAGE, feature, top_k=30, min_score=0.2, max_overlap=0.0, subpixel=False)
    crowd = find(IMAGE, feature, top_k=30, min_score=0.2, max_overlap=0.5, subpixel=False)
    for got, max_overlap in ((alone, 0), (crowd, 0.5)):
        boxes = [tuple(float(got[i][n]) for i in (0, 1, 6, 7)) for n in np.flatnonzero(got.valid)]
        assert len(boxes) > 3
        assert max(intersection_over_union(a, b) for i, a in enumerate(boxes) for b in boxes[:i]) <= max_overlap
        assert (jnp.diff(got.score[got.valid]) <= 0).all()
    assert crowd.valid.sum() > alone.valid.sum()


@pytest.mark.slow  # fast: test_non_max_suppression.test_a_dropped_box_drops_no_other
def test_a_peak_that_is_dropped_hides_no_other_beside_it():
    """Of three in a row, of which neighbors overlap, the first and the last stay."""
    feature = np.zeros((9, 9), np.float32)
    feature[4, 4] = 1
    image = np.zeros((20, 40), np.float32)
    image[10, 9], image[10, 13], image[10, 17] = 3, 2, 1
    got = find(image, feature, score=cnn.match, top_k=3, min_score=1e-3, max_overlap=0.1, subpixel=False)
    assert got.x[got.valid].tolist() == [5, 13]


@pytest.mark.slow
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


@pytest.mark.slow  # fast: test_non_max_suppression.test_boxes_that_touch_do_not_overlap
def test_neighbors_that_touch_are_both_found():
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

    best_score = jax.value_and_grad(lambda feature: find(IMAGE, feature, top_k=1, min_score=-1.0).score[0])
    score, gradient = best_score(feature)
    assert jnp.isfinite(gradient).all()
    better_score, _ = best_score(feature + 0.05 * gradient / jnp.linalg.norm(gradient))
    assert better_score > score


@pytest.mark.slow
def test_memory_does_not_grow_with_the_angles():
    def temporary_bytes(angle_count):
        run = partial(cnn.find, angles=[0.05 * i for i in range(1, angle_count + 1)])
        program = jax.jit(run).lower(np.zeros((200, 200), np.float32), np.zeros((5, 5), np.float32)).compile()
        analysis = program.memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    assert temporary_bytes(208) < 1.1 * temporary_bytes(104)


def test_nothing_there_is_no_match():
    got = find(np.zeros((40, 50), np.float32), noise(0, 5, 6), top_k=1, min_score=0.5)
    assert (got.valid.tolist(), got.feature.tolist()) == ([False], [-1])


@pytest.mark.slow  # fast: test_poses
def test_features_that_fit_at_some_scales_only():
    image = noise(0, 12, 12)
    got = find(image, image[1:11, 1:11], scales=(1.0, 2.0), angles=(0.0, 0.8), top_k=1, subpixel=False)
    assert (float(got.y[0]), float(got.x[0]), float(got.scale[0])) == (1, 1, 1)


def rows_of(matches, *fields):
    """Fields of the valid matches, sorted."""
    return sorted(zip(*(getattr(matches, field)[matches.valid].tolist() for field in fields), strict=True))


def test_a_region_holds_the_centers_of_all_matches():
    image = np.tile(noise(8, 6, 7), (4, 5))
    feature = image[:6, :7]
    everything = cnn.find(image, feature, top_k=30, min_score=0.99, subpixel=False)
    inside = cnn.find(image, feature, top_k=30, min_score=0.99, subpixel=False, region=(2, 9, 13, 9))
    centers = [(y + 2, x + 3) for y, x in rows_of(everything, "y", "x")]
    want = [(y - 2, x - 3) for y, x in centers if 2 <= y < 15 and 9 <= x < 18]
    assert want == [(0, 7), (0, 14), (6, 7), (6, 14), (12, 7), (12, 14)]
    assert rows_of(inside, "y", "x") == want
    mask = np.zeros(image.shape, bool)
    mask[2:15, 9:18] = True
    by_mask = jax.jit(lambda mask: cnn.find(image, feature, top_k=30, min_score=0.99, subpixel=False, region=mask))(
        mask
    )
    assert rows_of(by_mask, "y", "x") == want


@pytest.mark.slow  # fast: test_region
def test_a_slope_at_the_border_of_a_region_is_no_match():
    """The best pixel is outside; its neighbor inside is no local maximum."""
    got = cnn.find(IMAGE, IMAGE[10:16, 20:27], top_k=1, min_score=0.2, region=(13, 23, 5, 5))
    assert rows_of(got, "y", "x") != [(11, 20)]
    got = cnn.find(blob(3), blob(3)[3:10, 4:12], score=cnn.cosine, top_k=3, min_score=0.5, region=(7, 7, 5, 5))
    assert not got.valid.any()


@pytest.mark.slow
def test_photographic_negatives_are_found_if_either_polarity_is():
    feature = noise(9, 7, 8)
    image = 0.05 * noise(10, 40, 50)
    image[3:10, 4:12] += feature
    image[22:29, 31:39] -= feature
    same = find(image, feature, top_k=3, subpixel=False)
    either = find(image, feature, top_k=3, subpixel=False, polarity="either")
    assert rows_of(same, "y", "x") == [(3, 4)]
    assert rows_of(either, "y", "x") == [(3, 4), (22, 31)]
    np.testing.assert_allclose(np.sort(either.score[:2]), [-1, 1], atol=0.01)


@pytest.mark.parametrize("score", [cnn.squared_difference, cnn.normalized_squared_difference])
def test_solid_colors_are_found_by_their_difference(score):
    """zncc cannot see them. An image that is all zero elsewhere has undefined normalized differences, no matches."""
    image = np.zeros((30, 40, 3), np.float32)
    image[4:10, 5:13] = [0.2, 0.4, 0.6]
    image[15:21, 20:28] = [0.6, 0.2, 0.2]
    image[20:26, 2:10] = [0.3, 0.4, 0.6]
    color = np.broadcast_to(np.array([0.2, 0.4, 0.6], np.float32), (6, 8, 3))
    got = cnn.find(image, color, score=score, max_score=1.0, top_k=4, subpixel=False, max_overlap=0.0)
    assert [(y, x) for y, x in zip(got.y[:2].tolist(), got.x[:2].tolist(), strict=True)] == [(4, 5), (20, 2)]
    assert abs(got.score[0]) < 1e-5
    assert (jnp.diff(got.score[got.valid]) >= 0).all()


@pytest.mark.parametrize("angle", [pytest.param(0.0, marks=pytest.mark.slow), 0.5])
def test_objects_that_the_border_cuts_are_found_at_their_true_centers(angle):
    feature = blob(5)
    rotated = warping.affine(jnp.pad(feature, 8), warping.affine_matrix(angle=angle), fill=0.0)
    image = jnp.asarray(0.02 * noise(6, 60, 70)).at[20:51, 22:56].add(rotated)
    cut = np.asarray(image)[32:, 33:]  # the center is at (3, 5.5) of the part
    got = find(cut, feature, angles=(0.0, 0.5), top_k=1, min_visible=0.3)
    np.testing.assert_allclose(got.center[0], [3, 5.5], atol=0.3)
    assert got.angle[0] == angle
    assert got.y[0] < 0
    assert got.score[0] > 0.9
    assert not find(cut, feature, angles=(0.0, 0.5), top_k=1, min_visible=0.9, min_score=0.9).valid[0]


def test_wholly_visible_objects_are_found_alike_whatever_may_be_hidden():
    feature = IMAGE[8:13, 20:26]
    whole = find(IMAGE, feature, top_k=1, min_score=0.95)
    partly = find(IMAGE, feature, top_k=1, min_score=0.95, min_visible=0.5)
    for a, b in zip(whole, partly, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_a_hundred_features_are_found_each_where_it_was_cut_out():
    image = noise(11, 60, 80)
    places = [(6 * i, 8 * j) for i in range(10) for j in range(10)]
    bank = np.stack([image[y : y + 6, x : x + 8] for y, x in places])
    got = find(image, bank, top_k=100, min_score=0.95, subpixel=False)
    assert rows_of(got, "feature", "y", "x") == [(k, y, x) for k, (y, x) in enumerate(places)]
    assert got.found == 100


@pytest.mark.slow  # fast: test_poses
def test_many_scales_find_what_few_find():
    """Few scales have programs without masks, many share one with masks."""
    feature = blob(3)
    few = find(IMAGE, feature, scales=(0.8, 1.0), top_k=3, min_score=0.1)
    many = find(IMAGE, feature, scales=(0.8, 1.0, 1.0001, 0.8001), top_k=3, min_score=0.1)
    np.testing.assert_allclose(few.y, many.y, atol=0.02)
    np.testing.assert_allclose(few.score, many.score, atol=1e-3)


def test_calls_of_the_same_shapes_compile_once(caplog):
    """Angles whose boxes have the same sizes are data."""
    feature = noise(1, 5, 9)
    cnn.find(IMAGE, feature, angles=(0.0, 0.3))
    with jax.log_compiles():
        got = cnn.find(IMAGE[::-1], feature + 1, angles=(0.0, -0.3), min_score=0.4, max_overlap=0.5)
        got.y.block_until_ready()
    assert not [record for record in caplog.records if "_search" in record.getMessage()]


def test_a_score_may_hold_traced_numbers():
    def best_score(p):
        def score(image, feature, *, mask=None):
            return cnn.sharpened_cosine(image, feature, p=p, mask=mask)

        return cnn.find(IMAGE, FEATURE, score=score, top_k=1, min_score=-1.0).score[0]

    value, slope = jax.jit(jax.value_and_grad(best_score))(2.0)
    assert 0 < value < 1
    assert slope < 0


FEATURE = noise(1, 5, 6)
CORNER = np.zeros(IMAGE.shape, bool)
CORNER[:2, :2] = True
ERRORS = [
    ({"features": noise(0, 41, 6)}, ValueError, r"features: expected one that fits .* \(40, 50\) .* got \(41, 6\)"),
    ({"features": []}, ValueError, "features: expected an array, or a list of at least one, got an empty list"),
    ({"features": noise(0, 5, 6, 3, 2)}, ValueError, "features: expected shape"),
    ({"image": IMAGE[0]}, ValueError, "image: expected shape"),
    ({"mask": np.ones((5, 5))}, ValueError, "mask: expected the shape of the feature"),
    ({"score": "zncc"}, TypeError, "score: expected a function such as zncc, got 'zncc'"),
    ({"score": partial(cnn.match, stride=2)}, ValueError, "score: expected maps of all positions"),
    ({"features": [FEATURE], "mask": []}, ValueError, "mask: expected one mask for each feature, 1 in all, got 0"),
    ({"scales": ()}, ValueError, "scales: expected at least one number"),
    ({"scales": (0.0,)}, ValueError, "scales: expected numbers above 0"),
    ({"scales": 2.0}, TypeError, "scales: expected a sequence of Python numbers"),
    ({"angles": (math.inf,)}, ValueError, "angles: expected at least one number, all finite"),
    ({"top_k": 0}, ValueError, "top_k: expected at least 1"),
    ({"top_k": 1.5}, TypeError, "top_k: expected an int"),
    ({"min_score": np.ones(2)}, ValueError, "min_score: expected one number"),
    ({"max_overlap": 1.5}, ValueError, "max_overlap: expected 0 to 1"),
    ({"per_feature": 1}, TypeError, "per_feature: expected True or False, got 1"),
    ({"score": cnn.squared_difference}, ValueError, "max_score: expected a number for a squared difference"),
    ({"max_score": 0.5}, ValueError, "max_score: expected None"),
    ({"polarity": "any"}, ValueError, "polarity: expected one of"),
    ({"region": (0, 0, 41, 5)}, ValueError, "region: expected a part of the image"),
    ({"min_visible": 0}, ValueError, "min_visible: expected a number above 0"),
    ({"image": "photo.png"}, TypeError, "image: expected an array, got 'photo.png'; find takes arrays"),
    (
        {"features": noise(0, 5, 6, 3)},
        ValueError,
        r"features: .* got shape \(5, 6, 3\) for an image of shape \(40, 50\)",
    ),
    ({"features": np.full((5, 6), np.nan)}, ValueError, "features: expected finite pixels"),
    ({"region": (0, 0, 1, 1)}, ValueError, r"has its center in the region, got \(5, 6\)"),
    ({"region": CORNER}, ValueError, r"has its center in the region, got \(5, 6\)"),
    ({"features": noise(0, 20, 22), "angle_range": (-1.0, 1.0), "region": (0, 0, 2, 2)}, ValueError, "in the region"),
    ({"features": noise(0, 20, 22), "scale_range": (0.5, 1.0), "region": CORNER}, ValueError, "in the region"),
    ({"angle_range": (-180, 180)}, ValueError, "angle_range: expected radians, at most 2 pi apart"),
    ({"angles": (0, 90)}, ValueError, "angles: expected radians"),
    ({"scales": (0.01,), "angle_range": (-1, 1)}, ValueError, "scales: expected scales at which a feature keeps 4"),
    ({"min_score": math.nan}, ValueError, "min_score: expected a number"),
    ({"min_score": 50}, ValueError, "min_score: expected a number of at most 1, got 50"),
    ({"score": jnp.sum}, TypeError, "score: expected a function such as zncc, called as"),
    ({"score": lambda image, feature, mask: jnp.sum(image)}, ValueError, r"score: .*positions.*, got shape \(\)"),
    ({"score": cnn.is_defined}, ValueError, r"score: expected maps of all positions, .* of bools"),
    ({"score": lambda image, feature, mask: (image,), "scale_range": (0.9, 1.0)}, ValueError, r"score: .* got tuple"),
    ({"mask": np.zeros((5, 6), bool)}, ValueError, "mask: expected a weight above 0"),
    ({"image": np.ma.masked_array(IMAGE)}, TypeError, "image: expected a plain array, got a MaskedArray"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), ERRORS)
def test_find_names_the_wrong_argument(wrong, error, message):
    arguments = {"image": IMAGE, "features": FEATURE} | wrong
    with pytest.raises(error, match=message):
        cnn.find(arguments.pop("image"), arguments.pop("features"), **arguments)


def test_traced_scales_are_refused():
    with pytest.raises(TypeError, match="scales: expected a sequence of Python numbers"):
        jax.jit(lambda scales: cnn.find(IMAGE, FEATURE, scales=scales))(jnp.ones(2))


def test_a_patch_with_nan_is_no_match_of_a_difference():
    image = noise(12, 120, 140)
    image[10, 10] = np.nan
    template = noise(13, 40, 48)
    got = cnn.find(image, template, angles=(0.7, math.pi), score=cnn.squared_difference, max_score=1.0, top_k=1)
    assert got.found == 0
