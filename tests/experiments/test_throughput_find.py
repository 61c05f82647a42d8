"""Cases for find: all methods find the same."""

import numpy as np
import pytest

from experiments._lib import find_poses, throughput_find
from experiments._lib.find_poses import Pose, SceneSize
from experiments._lib.throughput_find import BankCase, FindCase

CASE = FindCase(SceneSize((48, 64), (16, 20)))


def test_cases_are_named_by_their_sizes():
    assert str(CASE) == "1x48x64, 16x20"
    assert str(FindCase(SceneSize((9, 8), (3, 2), scale_range=(0.5, 2.0)))) == "1x9x8, 3x2, scaled 0.5 to 2"
    assert str(BankCase((9, 8), 4, (3, 2))) == "1x9x8, 4x3x2"


def fixed_search(monkeypatch, pose):
    search = find_poses.Search(lambda image, template: pose, 0.0)
    monkeypatch.setattr(throughput_find, "find_search", lambda size, modules: search)


def test_searches_are_right_if_they_find_the_pose(monkeypatch):
    cv2 = pytest.importorskip("cv2")
    fixed_search(monkeypatch, None)
    benchmark = throughput_find.find_benchmark("find", CASE, {"opencv": cv2}, 2)
    assert benchmark.ours().tolist() == [0]
    assert {name: call().tolist() for name, call in benchmark.baselines.items()} == {
        "opencv pyramid": [1],
        "opencv loop": [1],
    }
    assert benchmark.methods.keys() == {"72 angles"}
    assert benchmark.cost.multiply_adds == 72 * 33 * 45 * 16 * 20


@pytest.mark.slow
def test_a_list_of_angles_finds_the_pose(monkeypatch):
    fixed_search(monkeypatch, None)
    call = throughput_find.find_benchmark("find", CASE, {}, 2).methods["72 angles"]
    assert call is not None
    assert call().tolist() == [1]


def test_exhaustive_searches_of_large_images_are_left_out(monkeypatch):
    fixed_search(monkeypatch, None)
    for size in (SceneSize((700, 700), (9, 9)), CASE.size._replace(scale_range=(0.8, 1.2))):
        benchmark = throughput_find.find_benchmark("find", FindCase(size), {}, 2)
        assert benchmark.methods == {"72 angles": None}
        assert benchmark.skipped.keys() == {"opencv loop"}


def test_a_verdict_allows_half_a_step():
    truth = Pose(10.0, 20.0, 0.5)
    near = [truth._replace(y=11.9), truth._replace(angle=0.5 + np.radians(2.4))]
    far = [truth._replace(x=22.1), truth._replace(angle=0.5 - np.radians(2.6)), None]
    for expected, poses in {1: near, 0: far}.items():
        for pose in poses:
            assert throughput_find.verdict(lambda pose=pose: pose, truth)().tolist() == [expected]


def test_clouds_have_more_contrast_at_low_frequencies():
    picture = throughput_find.clouds((64, 64), np.random.default_rng(0)).astype(float)
    neighbors = np.abs(np.diff(picture, axis=0)).mean()
    assert picture.std() == pytest.approx(50, rel=0.05)
    assert neighbors < 0.6 * np.abs(picture[16:] - picture[:-16]).mean()


def test_all_methods_find_the_place_of_every_template():
    cv2 = pytest.importorskip("cv2")
    benchmark = throughput_find.bank_benchmark("find bank", BankCase((30, 40), 3, (8, 9)), {"opencv": cv2}, 2)
    expected = np.asarray(benchmark.ours())
    assert expected.shape == (3, 2)
    assert len(np.unique(expected, axis=0)) == 3
    assert benchmark.baselines.keys() == {"vmap(zncc)", "opencv loop"}
    for call in benchmark.baselines.values():
        np.testing.assert_array_equal(call(), expected)
