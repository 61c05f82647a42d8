"""Figures as a whole: they look as before, are saved, and their functions are documented.

`python -m tests.test_figures` draws the pictures that figures are compared with again.
"""

import inspect
import io
import os
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cnn_jax import figures

BASELINES = Path(__file__).parent / "helpers" / "figures"
NOISE = np.random.default_rng(0).normal(size=(8, 8, 8))
COLORED = np.stack([np.eye(4), 1 - np.eye(4), np.zeros((4, 4))], axis=-1)
X = np.eye(3, dtype=np.float32) * 2 - 1
LINES = {"a": [1, 2, 3], "b": [3, 2, 1]}
LAWS = {"pixels": {"a": ([1, 10], [2, 20], ([1, 10], [2.5, 25])), "b": ([1], [5], None)}}
BARS = {"the X": {"X": 1.0, "O": 0.5}, "the O": {"X": 0.5, "O": 1.0}}
FIGURES = {
    "image_grid": lambda: figures.image_grid([X, -X], ["one", "other"], title="two"),
    "image_grid_in_rows": lambda: figures.image_grid(NOISE[:5], columns=2, limit=3.0),
    "image_grid_with_numbers": lambda: figures.image_grid([X / 3, NOISE[0]], numbers=True),
    "image_grid_in_color": lambda: figures.image_grid([COLORED, -COLORED, X[..., None]]),
    "stages": lambda: figures.stages({"conv1": NOISE[..., :3], "dense1": np.ones(2)}, columns=2),
    "stages_of_zeros": lambda: figures.stages(
        {"zero": np.zeros((4, 4, 1)), "conv1": np.ones((2, 2, 9))}, title="stages"
    ),
    "curves": lambda: figures.curves([1, 2, 3], LINES, xlabel="x", ylabel="y", title="lines"),
    "one_curve": lambda: figures.curves(np.arange(99), {"a": np.sin(np.arange(99))}, xlabel="x", ylabel="y", log=True),
    "panels": lambda: figures.panels({"x": ([1, 2, 3], LINES), "z": ([4, 5, 6], LINES)}, ylabel="y", title="panels"),
    "power_laws": lambda: figures.power_laws(LAWS, ylabel="ms", title="laws"),
    "bars": lambda: figures.bars(BARS, ylabel="votes", title="bars"),
    "class_scores": lambda: figures.class_scores({"X": 2.5, "O": -1.0, "no letter": 0.0}),
    "overlay": lambda: figures.overlay(
        NOISE[0] / 3, {"match": NOISE[1, 1:-1, :-1], "part": X}, window=(3, 2), title="over"
    ),
    "confusion": lambda: figures.confusion(np.array([[9, 1], [0, 0]]), "XO", title="letters"),
    "mistakes": lambda: figures.mistakes(NOISE[:3] / 3, [0, 1, 0], [[0, 1], [0, 1], [0.2, 0.3]], "XO"),
}


def rendered(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=50)
    return Image.open(file).convert("RGB")


@pytest.mark.parametrize("name", FIGURES)
def test_figures_look_as_before(name):
    """At an eighth of the resolution, since versions of matplotlib set text differently."""
    with Image.open(BASELINES / f"{name}.png") as baseline:
        expected = np.asarray(baseline.reduce(8), np.float64)
    got = np.asarray(rendered(FIGURES[name]()).reduce(8), np.float64)
    assert np.sqrt(np.mean((got - expected) ** 2)) < 0.45 * expected.std()


@pytest.mark.parametrize("make", FIGURES.values(), ids=FIGURES)
def test_every_figure_is_saved_and_shows_something(tmp_path, make):
    figure = make()
    assert isinstance(figure, Figure)
    figures.save(figure, tmp_path / "new" / "figure.png")
    with Image.open(tmp_path / "new" / "figure.png") as image:
        assert image.format == "PNG"
        gray = np.asarray(image.convert("L"))
    assert min(gray.shape) > 100
    assert np.mean(gray < 200) > 0.002


def test_a_failed_save_keeps_the_old_file(tmp_path):
    path = tmp_path / "figure.unknown"
    path.write_text("old")
    with pytest.raises(ValueError, match="unknown"):
        figures.save(figures.image_grid([X]), path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == [path.name]


def test_saving_into_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(OSError, match="file"):
        figures.save(figures.image_grid([X]), tmp_path / "file" / "figure.png")


@pytest.mark.slow
def test_confusion_of_many_classes_is_saved_small(tmp_path):
    figures.save(figures.confusion(np.eye(500, dtype=int), [f"class {i}" for i in range(500)]), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.width * image.height < 6e6


@pytest.mark.parametrize("name", [name for name in figures.__all__ if name.islower()])
def test_functions_have_an_example(name):
    assert ">>> " in (inspect.getdoc(getattr(figures, name)) or "")


if __name__ == "__main__":
    for name, make in FIGURES.items():
        rendered(make()).save(BASELINES / f"{name}.png")
