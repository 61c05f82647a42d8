"""Features found in ranges of angles and scales, beside the truth and the exhaustive search."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

import cnn_jax as cnn
from tests.helpers.oracles import noise

ALL_ANGLES = (-math.pi, math.pi)
SIZE = (120, 150)


def texture(seed, height, width, *channels):
    """A picture with detail of all sizes."""
    total = 0
    for octave in (4, 8, 16):
        coarse = jnp.asarray(noise(seed + octave, height // octave + 2, width // octave + 2, *channels))
        total += math.sqrt(octave) * np.asarray(jax.image.resize(coarse, (height, width, *channels), "cubic"))
    return total.astype(np.float32)


SCENE = texture(0, 240, 240)
TEMPLATE = SCENE[104:136, 100:140]  # 32 x 40, center (119.5, 119.5)


def view(y, x, angle, scale=1.0, scene=SCENE):
    """An image of SIZE in which the scene's point (119.5, 119.5) has this pose."""
    rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]) / scale
    offset: Any = np.array([119.5, 119.5]) - rotation @ [y, x]
    planes = scene.reshape(*scene.shape[:2], -1)
    turned = [
        ndimage.affine_transform(planes[..., c], rotation, offset, SIZE, order=3, mode="nearest")
        for c in range(planes.shape[2])
    ]
    return np.stack(turned, -1).reshape(*SIZE, *scene.shape[2:]).astype(np.float32)


@functools.cache
def compiled(**options):
    return jax.jit(functools.partial(cnn.find, **options))


find_turned = compiled(angle_range=ALL_ANGLES, top_k=2)


def check_pose(matches, y, x, angle, scale=1.0, pixels=0.05, degrees=0.1, number=0):
    assert matches.valid[number]
    np.testing.assert_allclose(matches.center[number], [y, x], atol=pixels)
    assert abs(math.degrees(math.remainder(float(matches.angle[number]) - angle, 2 * math.pi))) < degrees
    assert float(matches.scale[number]) == pytest.approx(scale, rel=0.003)


POSES = [(52.3, 70.8, 0.4), (60.0, 81.5, -2.9), (47.9, 63.2, 1.7), (66.6, 90.1, math.pi)]


@pytest.mark.parametrize(("y", "x", "angle"), POSES)
def test_any_angle_is_found_to_hundredths_of_a_pixel_and_of_a_degree(y, x, angle):
    matches = find_turned(view(y, x, angle), TEMPLATE)
    check_pose(matches, y, x, angle)
    assert matches.score[0] > 0.99
    assert int(matches.found) == 1


def test_light_and_noise_do_not_matter():
    y, x, angle = POSES[0]
    image = 0.3 * view(y, x, angle) + 100 + 0.3 * noise(9, *SIZE)
    check_pose(find_turned(image, TEMPLATE), y, x, angle, pixels=0.3, degrees=1)


def test_bytes_are_searched_as_they_are():
    y, x, angle = POSES[1]
    image = view(y, x, angle)
    low, high = image.min(), image.max()
    levels = np.round((image - low) / (high - low) * 255).astype(np.uint8)
    check_pose(find_turned(levels, TEMPLATE), y, x, angle)


@pytest.mark.parametrize("scale", [0.83, pytest.param(1.2, marks=pytest.mark.slow)])
def test_scales_are_found_with_the_angle(scale):
    find = compiled(angle_range=ALL_ANGLES, scale_range=(0.75, 1.3), top_k=1)
    check_pose(find(view(55.3, 70.1, 2.2, scale), TEMPLATE), 55.3, 70.1, 2.2, scale)


@pytest.mark.slow
def test_a_range_of_scales_beside_a_list_of_angles():
    find = compiled(scale_range=(0.75, 1.3), angles=(0.0, 0.5), top_k=1)
    check_pose(find(view(55.3, 70.1, 0.5, 1.1), TEMPLATE), 55.3, 70.1, 0.5, 1.1)


def test_a_range_of_angles_has_ends():
    y, x, angle = POSES[0]
    find = compiled(angle_range=(-0.2, 0.39), top_k=1, min_score=0.5)
    matches = find(view(y, x, angle), TEMPLATE)
    assert float(matches.angle[0]) == pytest.approx(0.39, abs=1e-5)


@pytest.mark.slow
def test_the_exhaustive_search_finds_the_same():
    y, x, angle = POSES[0]
    image = view(y, x, angle)
    oracle = cnn.find(image, TEMPLATE, angles=(0.3, 0.4, 0.5), top_k=1)
    matches = find_turned(image, TEMPLATE)
    np.testing.assert_allclose(matches.center[0], oracle.center[0], atol=0.1)
    assert float(matches.angle[0]) == pytest.approx(float(oracle.angle[0]), abs=0.01)
    np.testing.assert_allclose(matches.corners[0], oracle.corners[0], atol=0.5)


def test_several_copies_and_only_them_are_found():
    image = np.concatenate([view(60.5, 75.2, 0.3), view(60.5, 75.2, -1.3)], axis=1)
    matches = compiled(angle_range=ALL_ANGLES, top_k=4)(image, TEMPLATE)
    assert int(matches.found) == int(matches.valid.sum()) == 2
    found = sorted(
        (round(float(x)), round(float(angle), 2))
        for x, angle in zip(matches.center[:2, 1], matches.angle[:2], strict=True)
    )
    assert found == [(75, 0.3), (225, -1.3)]


def test_nothing_there_is_no_match():
    assert int(find_turned(texture(77, *SIZE), TEMPLATE).found) == 0


@pytest.mark.slow
def test_a_bank_of_features_is_searched_together():
    y, x, angle = POSES[2]
    bank = np.stack([texture(50, 32, 40), TEMPLATE])
    matches = compiled(angle_range=ALL_ANGLES, top_k=2)(view(y, x, angle), bank)
    check_pose(matches, y, x, angle)
    assert matches.feature.tolist() == [1, -1]


@pytest.mark.slow
def test_pixels_without_weight_do_not_matter():
    y, x, angle = POSES[2]
    mask = np.ones(TEMPLATE.shape, bool)
    mask[:14, :18] = False
    spoiled = np.where(mask, TEMPLATE, 40).astype(np.float32)
    matches = compiled(angle_range=ALL_ANGLES, top_k=1)(view(y, x, angle), spoiled, mask=mask)
    check_pose(matches, y, x, angle)


@pytest.mark.slow  # fast: test_pose_refinement
def test_colors():
    scene = texture(3, 240, 240, 3) + np.array([50, 0, -20], np.float32)
    y, x, angle = POSES[0]
    matches = find_turned(view(y, x, angle, scene=scene), scene[104:136, 100:140])
    check_pose(matches, y, x, angle)


@pytest.mark.slow
def test_negatives_are_found_with_either_polarity():
    y, x, angle = POSES[3]
    matches = compiled(angle_range=ALL_ANGLES, top_k=1, polarity="either")(-view(y, x, angle), TEMPLATE)
    check_pose(matches, y, x, angle)
    assert matches.score[0] < -0.99
    assert int(find_turned(-view(y, x, angle), TEMPLATE).found) == 0


@pytest.mark.parametrize(
    ("score", "limit"),
    [
        pytest.param(cnn.cosine, {"min_score": 0.9}, marks=pytest.mark.slow),
        (cnn.squared_difference, {"max_score": 300.0}),
        pytest.param(cnn.normalized_squared_difference, {"max_score": 0.1}, marks=pytest.mark.slow),
        pytest.param(cnn.sharpened_cosine, {"min_score": 0.9}, marks=pytest.mark.slow),
        pytest.param(functools.partial(cnn.zncc, precision=None), {"min_score": 0.9}, marks=pytest.mark.slow),
    ],
    ids=["cosine", "squared_difference", "normalized_squared_difference", "sharpened_cosine", "partial"],
)
def test_other_scores(score, limit):
    y, x, angle = POSES[0]
    image = view(y, x, angle)
    matches = cnn.find(image, TEMPLATE, angle_range=ALL_ANGLES, top_k=1, score=score, **limit)
    check_pose(matches, y, x, angle)


@pytest.mark.slow  # fast: test_top_candidates and test_pose_refinement
def test_features_that_the_border_cuts():
    image = view(60.5, 75.2, 0.3)[54:]  # the center is at row 6.5
    find = compiled(angle_range=ALL_ANGLES, top_k=1, min_visible=0.5)
    check_pose(find(image, TEMPLATE), 6.5, 75.2, 0.3, pixels=0.1, degrees=0.2)
    assert int(find_turned(image, TEMPLATE).found) == 0


@pytest.mark.slow
def test_centers_lie_in_the_region():
    image = np.concatenate([view(60.5, 75.2, 0.3), view(60.5, 75.2, -1.3)], axis=1)
    matches = compiled(angle_range=ALL_ANGLES, top_k=3, region=(40, 180, 50, 80))(image, TEMPLATE)
    check_pose(matches, 60.5, 225.2, -1.3)
    assert int(matches.found) == 1
    mask = np.zeros(image.shape, bool)
    mask[50:70, 60:90] = True
    matches = compiled(angle_range=ALL_ANGLES, top_k=3)(image, TEMPLATE, region=mask)
    check_pose(matches, 60.5, 75.2, 0.3)
    assert int(matches.found) == 1


@pytest.mark.slow
def test_a_pixel_that_is_not_finite_spoils_only_the_matches_that_hold_it():
    image = np.concatenate([view(60.5, 75.2, 0.3), view(60.5, 75.2, -1.3)], axis=1)
    image[62, 226] = np.nan
    image[5, 5] = np.inf
    matches = compiled(angle_range=ALL_ANGLES, top_k=3)(image, TEMPLATE)
    check_pose(matches, 60.5, 75.2, 0.3)
    assert int(matches.found) == 1


@pytest.mark.slow
def test_images_and_templates_in_batches():
    images = np.stack([view(*pose) for pose in POSES[:2]])
    together = jax.jit(jax.vmap(functools.partial(cnn.find, features=TEMPLATE, angle_range=ALL_ANGLES, top_k=2)))(
        images
    )
    for i, pose in enumerate(POSES[:2]):
        check_pose(cnn.Matches(*(field[i] for field in together)), *pose)


def test_poses_and_scores_have_gradients():
    y, x, angle = POSES[0]
    image = view(y, x, angle) + 0.05 * noise(3, *SIZE)

    def shifted(move):
        rows, columns = jnp.meshgrid(jnp.arange(1.0 * SIZE[0]) - move, jnp.arange(1.0 * SIZE[1]), indexing="ij")
        return cnn.find(
            jax.scipy.ndimage.map_coordinates(jnp.asarray(image), [rows, columns], order=1, mode="nearest"),
            TEMPLATE,
            angle_range=ALL_ANGLES,
            top_k=1,
        ).center[0]

    moved, tangent = jax.jvp(shifted, (0.3,), (1.0,))
    np.testing.assert_allclose(moved, [y + 0.3, x], atol=0.1)
    np.testing.assert_allclose(tangent, [1, 0], atol=0.15)


ERRORS = [
    ({"angle_range": (1.0,)}, "angle_range: expected .least, largest., got"),
    ({"angle_range": (1.0, 0.0)}, "angle_range: expected .least, largest., got"),
    ({"angle_range": (0.0, math.inf)}, "angle_range: expected at least one number, all finite"),
    ({"scale_range": (0.0, 1.0)}, "scale_range: expected numbers above 0"),
    ({"scale_range": (0.5, 1.0), "scales": (1.0, 2.0)}, "scales: expected no list together with scale_range"),
    ({"angle_range": ALL_ANGLES, "angles": (1.0,)}, "angles: expected no list together with angle_range"),
    ({"scale_range": (9.0, 10.0)}, "features: expected one that fits into the image"),
]


@pytest.mark.parametrize(("wrong", "message"), ERRORS)
def test_wrong_ranges_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        cnn.find(np.zeros(SIZE, np.float32), TEMPLATE, **wrong)


def test_a_copy_on_another_background_scores_as_high():
    """The filter of the pyramid mixes the border of a copy with what is around it."""
    shown = ndimage.map_coordinates(np.pad(TEMPLATE, 40, constant_values=9), np.indices(SIZE) - 3.0, mode="nearest")
    matches = find_turned(shown.astype(np.float32), TEMPLATE)
    check_pose(matches, 58.5, 62.5, 0)
    assert matches.score[0] > 0.98


def test_a_faint_object_beside_a_bright_one():
    y, x, angle = POSES[0]
    image = view(y, x, angle)
    image[100:115, 130:145] += 5000
    check_pose(find_turned(image, TEMPLATE), y, x, angle)


@pytest.mark.slow
def test_nan_that_is_masked_out_is_not_compared():
    y, x, angle = POSES[2]
    mask = np.ones(TEMPLATE.shape, bool)
    mask[:14, :18] = False
    spoiled = np.where(mask, TEMPLATE, np.nan).astype(np.float32)
    check_pose(cnn.find(view(y, x, angle), spoiled, mask=mask, angle_range=ALL_ANGLES, top_k=1), y, x, angle)


@pytest.mark.slow
def test_a_pixel_that_is_not_finite_hides_no_template_without_levels():
    image = view(*POSES[0])
    small = image[40:56, 60:76].copy()
    image[5, 5] = np.nan
    check_pose(cnn.find(image, small, angle_range=ALL_ANGLES, top_k=1), 47.5, 67.5, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "angle_range"), [((19, 67), (-0.08, 0.11)), ((66, 25), (-0.2, 0.03)), ((55, 58), (-0.13, 0.04))]
)
def test_templates_nearly_as_large_as_the_image(shape, angle_range):
    image = SCENE[: shape[0] + 1, : shape[1]]
    matches = cnn.find(image, image[: shape[0]], angle_range=angle_range, top_k=1)
    check_pose(matches, (shape[0] - 1) / 2, (shape[1] - 1) / 2, 0)


def test_angles_lie_in_the_range_of_a_whole_turn():
    find = compiled(angle_range=ALL_ANGLES, top_k=1)
    for y, x, angle in POSES:
        assert -math.pi - 1e-5 <= float(find(view(y, x, angle), TEMPLATE).angle[0]) <= math.pi + 1e-5


@pytest.mark.slow
def test_copies_outside_of_a_mask_do_not_hide_the_one_inside():
    image = np.tile(view(60.5, 75.2, 0.3), (4, 5))
    mask = np.zeros(image.shape, bool)
    mask[240:360, 300:450] = True
    matches = compiled(angle_range=ALL_ANGLES, top_k=1)(image, TEMPLATE, region=mask)
    check_pose(matches, 300.5, 375.2, 0.3)


@pytest.mark.parametrize("unit", [1e-20, 1e7, -1e20])
def test_the_units_of_image_and_template_do_not_matter(unit):
    y, x, angle = POSES[0]
    find = compiled(angle_range=ALL_ANGLES, top_k=1, polarity="either")
    check_pose(find(view(y, x, angle), np.float32(unit) * TEMPLATE), y, x, angle)
    check_pose(find(np.float32(unit) * view(y, x, angle), TEMPLATE), y, x, angle)


@pytest.mark.slow
def test_a_template_with_texture_in_its_corners_only_is_found():
    corners = np.zeros((32, 32), np.float32)
    corners[:5, :5] = corners[-5:, -5:] = 1
    corners[:5, -5:] = -1
    image = np.pad(corners, 40) + 0.02 * noise(0, 112, 112)
    matches = cnn.find(image.astype(np.float32), corners, angle_range=ALL_ANGLES, top_k=1)
    np.testing.assert_allclose(matches.center[0], [55.5, 55.5], atol=0.1)
    assert abs(float(matches.angle[0])) < 0.01


def rows_are_alike(image, feature, *, mask=None):
    """A score that depends on how pixels are arranged: the zero-mean correlation of differences along columns."""
    mask = None if mask is None else mask[1:] * mask[:-1]
    return cnn.zncc(jnp.diff(image, axis=0), jnp.diff(feature, axis=0), mask=mask)


@pytest.mark.slow
def test_scores_of_users_see_patches_as_images():
    y, x = 60.0, 75.0
    find = compiled(angle_range=(-0.05, 0.05), top_k=1, score=rows_are_alike, min_score=0.9)
    matches = find(view(y, x, 0.0), TEMPLATE)
    np.testing.assert_allclose(matches.center[0], [y, x], atol=0.5)


@pytest.mark.slow
def test_a_perfect_match_has_gradients():
    image = jnp.asarray(np.pad(SCENE[100:160, 90:160], 0))

    @jax.jit
    @jax.value_and_grad
    def column(shift):
        moved = image - shift * jnp.asarray(np.gradient(np.asarray(image), axis=1))
        options = {"score": cnn.squared_difference, "max_score": math.inf}
        return cnn.find(moved, TEMPLATE, angle_range=(-0.1, 0.1), top_k=1, **options).center[0, 1]

    x, slope = column(0.0)
    assert float(x) == pytest.approx(29.5, abs=1e-3)
    assert float(slope) == pytest.approx(1, abs=0.1)


@pytest.mark.slow
def test_a_region_changes_nothing_about_the_match_in_it():
    y, x, angle = POSES[0]
    image = view(y, x, angle)
    whole = find_turned(image, TEMPLATE)
    part = compiled(angle_range=ALL_ANGLES, top_k=2, region=(42, 61, 20, 20))(image, TEMPLATE)
    np.testing.assert_allclose(part.center[0], whole.center[0], atol=0.01)
    assert float(part.score[0]) == pytest.approx(float(whole.score[0]), abs=1e-3)
