"""experiments._lib.find_poses: the truth is exact, and degradations are what they are called."""

import math

import numpy as np
import pytest
from scipy import ndimage

from experiments._lib import find_poses, photos
from experiments._lib.find_poses import Pose, SceneSize

SIZE = SceneSize((90, 110), (24, 31), scale_range=(0.7, 1.4))


@pytest.fixture(scope="module")
def cases():
    pytest.importorskip("skimage")
    return list(find_poses.pose_cases(SIZE, 2, 0))


def test_a_quarter_turn_is_counterclockwise():
    scene = np.random.default_rng(0).integers(0, 256, (21, 21)).astype(np.uint8)
    center = np.array([10.0, 10.0])
    turned = find_poses.turn_scene(scene, scene, center, Pose(10.0, 10.0, math.pi / 2))
    assert np.abs(turned.astype(int) - np.rot90(scene)).max() <= 1


def test_what_lies_outside_of_the_scene_is_another_picture():
    scene = np.zeros((40, 40), np.uint8)
    background = np.random.default_rng(0).integers(1, 256, (40, 40)).astype(np.uint8)
    turned = find_poses.turn_scene(scene, background, np.array([0.0, 0.0]), Pose(0.0, 20.0, 0.0))
    assert (turned[:, :20] == background[:, :20]).all()
    assert (turned[:, 20:] == 0).all()


def patch(case, pose):
    """The template's pixels, sampled from the search image at a pose."""
    offsets = np.indices(case.template.shape) - np.reshape(np.array(case.template.shape) - 1, (2, 1, 1)) / 2
    matrix = pose.scale * np.array(
        [[math.cos(pose.angle), -math.sin(pose.angle)], [math.sin(pose.angle), math.cos(pose.angle)]]
    )
    places = np.tensordot(matrix, offsets, 1) + np.reshape([pose.y, pose.x], (2, 1, 1))
    return ndimage.map_coordinates(case.image.astype(float), places, order=3)


def difference(case, **moves):
    pose = case.truth._replace(**{name: getattr(case.truth, name) + move for name, move in moves.items()})
    return np.square(patch(case, pose) - case.template).mean()


def test_the_template_is_at_the_true_pose(cases):
    assert [case.photo for case in cases] == [name for name in photos.TEMPLATE_PHOTOS for _ in range(2)]
    for case in cases:
        assert case.template.shape == SIZE.template
        at_truth = difference(case)
        for name, move in {"y": 0.1, "x": 0.1, "angle": math.radians(0.5), "scale": 0.01}.items():
            lower, higher = difference(case, **{name: -move}), difference(case, **{name: move})
            assert at_truth < min(lower, higher), (case.photo, name)


def test_cases_differ_and_are_the_same_each_time(cases):
    again = list(find_poses.pose_cases(SIZE, 1, 0))
    assert again[0].truth == cases[0].truth
    assert (again[0].image == cases[0].image).all()
    assert len({case.truth for case in cases}) == len(cases)


def test_templates_lie_wholly_inside(cases):
    for case in cases:
        assert find_poses.shows_template(case.truth, SIZE)
    assert find_poses.shows_template(Pose(45.0, 55.0, 0.3), SIZE)
    assert not find_poses.shows_template(Pose(10.0, 55.0, 0.0), SIZE)
    assert not find_poses.shows_template(Pose(45.0, 100.0, 0.0), SIZE)


def test_a_template_that_never_fits_is_refused():
    pytest.importorskip("skimage")
    with pytest.raises(ValueError, match="size: expected a template that fits"):
        next(find_poses.pose_cases(SceneSize((30, 30), (30, 30)), 1, 0))


def test_degradations_do_what_they_are_called():
    image = np.full((200, 200), 100, np.uint8)
    image[:, 100:] = 150
    degraded = {name: find_poses.degrade(image, name, np.random.default_rng(0)) for name in find_poses.DEGRADATIONS}
    assert all(picture.dtype == np.uint8 for picture in degraded.values())
    assert (degraded["clean"] == image).all()
    assert set(np.unique(degraded["light"])) == {100, 130}
    assert degraded["noise"][:, :100].std() == pytest.approx(25, rel=0.03)
    step = np.diff(degraded["blur"][0].astype(float))
    places = np.arange(len(step))
    center = (step * places).sum() / step.sum()
    assert math.sqrt((step * (places - center) ** 2).sum() / step.sum()) == pytest.approx(1.5, rel=0.05)
    assert degraded["all"][:, :80].mean() == pytest.approx(100, abs=1)
    assert degraded["all"][:, 120:].mean() == pytest.approx(130, abs=1)


def test_errors_of_angles_wrap_around():
    error = find_poses.pose_error(Pose(3.0, 4.0, 3.14, 1.01), Pose(0.0, 0.0, -3.14, 1.0))
    assert error == pytest.approx((5, math.degrees(2 * math.pi - 6.28), 0.01))
    assert not error.is_right
    assert find_poses.PoseError(1.9, 1.9, 0.029).is_right
    assert not find_poses.PoseError(0, 0, 0.031).is_right


def test_the_photo_of_a_scene_is_in_its_middle_cell():
    pytest.importorskip("skimage")
    size = SceneSize((60, 80), (10, 10), (3, 4))
    cell = photos.cell_slices(size.image, size.cells, find_poses.middle_cell(size))
    scene = find_poses.make_scene("coffee", size)
    assert (scene[cell] == photos.cover(photos.load_photo("coffee"), scene[cell].shape)).all()


def test_scenes_without_a_template_begin_with_each_other_photo():
    pytest.importorskip("skimage")
    size = SceneSize((30, 40), (5, 5), (1, 2))
    first, second = (find_poses.absent_scene(size, number) for number in (0, 1 + len(photos.OTHER_PHOTOS)))
    assert (second[:, :20] == photos.cover(photos.load_photo(photos.OTHER_PHOTOS[1]), (30, 20))).all()
    assert (first[:, 20:] == second[:, :20]).all()


def test_a_pasted_template_is_alone_on_another_photo(cases):
    pasted = list(find_poses.pose_cases(SIZE, 2, 0, scene_kind="pasted"))
    for number, (turned, case) in enumerate(zip(cases, pasted, strict=True)):
        assert (case.scene, case.truth) == ("pasted", turned.truth)
        np.testing.assert_array_equal(case.template, turned.template)
        rows, columns = np.indices(SIZE.image)
        offsets = np.stack([rows - case.truth.y, columns - case.truth.x], -1) @ find_poses.rotation(case.truth.angle)
        outside = (np.abs(offsets) - case.truth.scale * np.array(SIZE.template) / 2).max(axis=-1)
        background = find_poses.absent_scene(SIZE, number)
        assert (case.image == turned.image)[outside <= -0.5].all()
        assert (case.image == background)[outside >= 0.5].all()
        edge = np.abs(outside) < 0.5
        low, high = np.minimum(turned.image, background), np.maximum(turned.image, background)
        assert ((case.image >= low) & (case.image <= high))[edge].all()


def test_an_upright_pasted_template_covers_half_of_the_pixels_that_its_edge_halves():
    white = np.full((9, 9), 200, np.uint8)
    pasted = find_poses.paste_template(white, np.zeros_like(white), (4, 3), Pose(4.0, 4.0, 0.0))
    assert pasted[:, 4].tolist() == [0, 0, 100, 200, 200, 200, 100, 0, 0]
    assert pasted[4].tolist() == [0, 0, 0, 200, 200, 200, 0, 0, 0]
