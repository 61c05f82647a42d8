"""experiments._lib.baselines_matching: libraries that are missing are named, and the installed ones match templates."""

import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import cnn_jax
from experiments._lib import baselines_matching
from experiments._lib.benchmark import check_equal_results

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.uniform(-1, 1, (2, 12, 14)).astype(np.float32)
FEATURES = GENERATOR.uniform(-1, 1, (3, 4, 5)).astype(np.float32)
CALLS = [(task, name) for task, libraries in baselines_matching.CPU_BASELINES.items() for name in libraries]


def test_what_is_not_installed_is_left_out_and_named(monkeypatch):
    for name in ("cv2", "skimage", "torch"):
        monkeypatch.setitem(sys.modules, name, None)
    modules, missing = baselines_matching.import_libraries(["opencv", "skimage", "torch"], 2)
    assert modules == {}
    assert missing == [
        "opencv: not installed, so not compared; pip install 'cnn_jax[bench]'",
        "skimage: not installed, so not compared; pip install 'cnn_jax[bench]'",
        "torch: not installed, so not compared; pip install torch",
    ]


def test_libraries_get_the_same_number_of_threads(monkeypatch):
    threads = []
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(setNumThreads=threads.append))
    modules, missing = baselines_matching.import_libraries(["opencv"], 2)
    assert (list(modules), missing, threads) == (["opencv"], [], [2])


@pytest.mark.slow
@pytest.mark.parametrize(("task", "name"), CALLS)
def test_libraries_compute_the_same(task, name):
    modules, _ = baselines_matching.import_libraries([name], 1)
    if name not in modules:
        pytest.skip(f"{name} is not installed")
    maps = jax.vmap(jax.vmap(getattr(cnn_jax, task), (None, 0)), (0, None))
    call = baselines_matching.CPU_BASELINES[task][name](modules[name], 1, IMAGES, FEATURES)
    check_equal_results(name, call(), np.asarray(maps(IMAGES, FEATURES)))


def test_what_would_take_too_much_memory_is_refused():
    images = np.broadcast_to(np.float32(0), (64, 2048, 2048))
    features = np.zeros((1, 64, 64), np.float32)
    with pytest.raises(MemoryError, match="left out: the unfolded images would take"):
        baselines_matching.torch_zncc(None, 1, images, features)
