"""Predictions: batches of one size, model files, and the classes of picture files."""

import jax
import numpy as np
import pytest

import cnn_jax
from cnn_jax import load_params, nets, save_params
from experiments._lib import predict, tta

NET = "xo_net"
FEATURES = (2, 3)
SHAPE = (28, 28, 1)


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda key: nets.xo_net(features=FEATURES).init(key, SHAPE))(jax.random.key(0))


@pytest.fixture
def model(tmp_path, params):
    path = tmp_path / "model.safetensors"
    save_params(path, params, net=NET, options={"features": FEATURES})
    return path


IMAGES = np.random.default_rng(0).integers(0, 256, (5, 2, 2), dtype=np.uint8)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_any_number_of_images_goes_through_batches_of_one_size(count, monkeypatch):
    monkeypatch.setattr(predict, "BATCH_SIZE", 3)
    log_probs = predict.predictor(cnn_jax.Flatten(), {})(IMAGES[:count])
    logits = IMAGES[:count].reshape(count, 4) / 127.5 - 1
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    np.testing.assert_allclose(log_probs, expected, rtol=1e-4)


def test_bytes_and_pixels_give_the_same():
    of_bytes = predict.predictor(cnn_jax.Flatten(), {})(IMAGES)
    of_pixels = predict.predictor(cnn_jax.Flatten(), {})((IMAGES / 127.5 - 1).astype(np.float32)[..., None])
    np.testing.assert_allclose(of_bytes, of_pixels, rtol=1e-5)


def test_views_and_weights_are_those_of_test_time_augmentation():
    pixels = (IMAGES / 127.5 - 1).astype(np.float32)[..., None]
    views = (tta.identity_view, tta.mirrored_view)
    log_probs = predict.predictor(cnn_jax.Flatten(), {}, views, (0.75, 0.25))(IMAGES)
    expected = tta.tta_log_probs(cnn_jax.Flatten(), {}, pixels, views, (0.75, 0.25))
    np.testing.assert_allclose(log_probs, expected, rtol=1e-5)


def test_a_model_file_gives_its_network_and_parameters(model, params):
    net, loaded = predict.load_classifier(model, NET, SHAPE, 2)
    assert jax.eval_shape(net.apply, loaded, np.zeros(SHAPE, np.float32)).shape == (2,)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


def test_a_model_of_another_network_is_refused(model):
    with pytest.raises(ValueError, match=rf"^{model}: expected a model of lenet5, got one of 'xo_net'"):
        predict.load_classifier(model, "lenet5", SHAPE, 2)


def test_options_that_the_network_does_not_take_are_refused(tmp_path):
    path = tmp_path / "options.safetensors"
    save_params(path, {}, net=NET, options={"color": 1})
    with pytest.raises(ValueError, match=rf"^{path}: expected options of xo_net, got {{'color': 1}} \("):
        predict.load_classifier(path, NET, SHAPE, 2)


@pytest.mark.parametrize(("shape", "classes"), [((56, 56, 1), 2), ((28, 28, 3), 2), (SHAPE, 3)])
def test_parameters_for_other_images_or_classes_are_refused(model, shape, classes):
    with pytest.raises(ValueError, match=rf"^{model}: the parameters do not fit xo_net with {classes} classes"):
        predict.load_classifier(model, NET, shape, classes)


def test_parameters_of_another_structure_are_refused(tmp_path):
    path = tmp_path / "shapes.safetensors"
    save_params(path, {"dense1": {"kernel": np.zeros((2, 2))}}, net=NET)
    with pytest.raises(ValueError, match=rf"^{path}: the parameters do not fit xo_net"):
        predict.load_classifier(path, NET, SHAPE, 2)


def test_parameters_that_are_not_finite_are_refused(model):
    params, net, options = load_params(model)
    params["dense1"]["bias"] = params["dense1"]["bias"].at[0].set(np.nan)
    save_params(model, params, net=net, options=options)
    with pytest.raises(ValueError, match=rf"^{model}: expected finite parameters, got infinity or NaN"):
        predict.load_classifier(model, NET, SHAPE, 2)


def test_a_damaged_model_file_is_refused(model):
    content = model.read_bytes()
    model.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=rf"^{model}: "):
        predict.load_classifier(model, NET, SHAPE, 2)


def read_number(file):
    """Reads a picture file whose name is a number as an image of this class."""
    if not file.stem.isdecimal():
        raise ValueError(f"{file}: not a picture")
    return np.full((1,), int(file.stem))


CLASSIFIER = predict.FileClassifier(lambda images: np.log(np.eye(3)[images[:, 0]] + 0.1), read_number, ("a", "b", "c"))


def test_files_are_classified_in_their_order(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(predict, "BATCH_SIZE", 2)
    predict.classify_files([tmp_path / name for name in ("2.png", "0.png", "2.png")], lambda: CLASSIFIER)
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        f"{tmp_path}/2.png: c 0.8462",
        f"{tmp_path}/0.png: a 0.8462",
        f"{tmp_path}/2.png: c 0.8462",
    ]
    assert err == ""


def test_files_that_cannot_be_read_do_not_stop_the_others(tmp_path, capsys):
    files = [tmp_path / name for name in ("bad.png", "1.png", "missing.png")]
    with pytest.raises(SystemExit) as caught:
        predict.classify_files(files, lambda: CLASSIFIER)
    out, err = capsys.readouterr()
    assert caught.value.code == 2
    assert out == f"{tmp_path}/1.png: b 0.8462\n"
    assert err.splitlines() == [
        f"{tmp_path}/bad.png: not a picture",
        f"{tmp_path}/missing.png: not a picture",
        "error: 2 of 3 pictures could not be read",
    ]


def test_no_files_are_refused_before_a_model_is_loaded():
    with pytest.raises(ValueError, match="pictures: expected at least one file, got none"):
        predict.classify_files([], lambda: pytest.fail("loaded"))
