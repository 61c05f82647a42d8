"""The network of experiments.xo, and the letters that it reads."""

import numpy as np
import pytest

from experiments._lib import article, predict, runner, xo_model
from tests.helpers.cli import png
from tests.helpers.letters import save_untrained_xo_net


def test_flips_and_rotations_do_not_change_a_prediction(tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "BATCH_SIZE", 5)
    predict_letters = xo_model.load_predictor(save_untrained_xo_net(tmp_path / "model.safetensors"))
    image = np.random.default_rng(0).uniform(-1, 1, (28, 28)).astype(np.float32)
    variants = np.stack([image, image[::-1], image[:, ::-1], image.T, np.rot90(image)])
    expected, *others = predict_letters(variants)
    assert np.ptp(expected) > 1e-3
    for log_probs in others:
        np.testing.assert_allclose(log_probs, expected, atol=1e-5)


def test_without_a_model_one_is_trained_first(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run_experiment(config, work):
        assert work is xo_model.train
        config.out.mkdir(parents=True)
        save_untrained_xo_net(config.out / "model.safetensors")
        print("trained")

    monkeypatch.setattr(runner, "run_experiment", run_experiment)
    _, params = xo_model.load_model(None)
    assert "conv1" in params
    out, err = capsys.readouterr()
    assert out == ""  # stdout is for what was asked for
    assert err == "no model at runs/xo/model.safetensors yet: training one first\ntrained\n"
    xo_model.load_model(None)
    assert capsys.readouterr().err == ""


def test_a_letter_is_centered_white_on_black(tmp_path):
    black_on_white = np.kron(article.THE_X < 0, np.full((5, 5), 255)).astype(np.uint8)
    letter = xo_model.open_letter(png(tmp_path / "x.png", black_on_white))
    assert letter.shape == (28, 28)
    assert letter.max() == 1
    assert letter[0].max() == -1
    rows = np.flatnonzero((letter > 0).any(axis=1))
    assert rows[0] + rows[-1] == pytest.approx(27, abs=2)


def test_a_picture_of_one_color_is_refused(tmp_path):
    path = png(tmp_path / "blank.png", np.full((9, 9), 200, np.uint8))
    with pytest.raises(ValueError, match=rf"^{path}: nothing is drawn on it"):
        xo_model.open_letter(path)
    with path.open("rb") as file, pytest.raises(ValueError, match=r"^picture: nothing is drawn on it"):
        xo_model.open_letter(file)
