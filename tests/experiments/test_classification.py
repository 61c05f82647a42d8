"""Training of image classifiers: steps, augmentation, loss, calibration, seeds and accuracy."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cnn_jax
from cnn_jax.data.dataset import LabeledImages
from experiments._lib import classification, runner
from experiments._lib.synthetic import synthetic_dataset


def training_result(seconds, resumed_after):
    return runner.TrainingResult(cnn_jax.Flatten(), {}, {}, seconds, resumed_after)


def test_steps_are_whole_batches():
    data, _ = synthetic_dataset(20, 8, 1, "ab")
    assert classification.training_steps(3, data, 6) == 9


def test_a_batch_of_more_images_than_there_are_is_refused():
    data, _ = synthetic_dataset(20, 8, 1, "ab")
    message = r"batch_size: expected at most the number of training images \(20\), got 21"
    with pytest.raises(ValueError, match=message):
        classification.training_steps(3, data, 21)


def test_every_image_is_augmented_with_a_key_of_its_own():
    images = np.full((4, 2, 2), 255, np.uint8)
    batch = SimpleNamespace(images=images, labels=np.arange(4))
    augment = classification.augment_each(lambda key, image: image + jax.random.uniform(key))
    pixels, labels = augment(jax.random.key(0), batch)
    assert pixels.shape == (4, 2, 2, 1)
    np.testing.assert_array_equal(labels, np.arange(4))
    assert len(np.unique(pixels)) == 4
    assert pixels.min() > 1  # white is 1


def test_label_smoothing_spreads_a_part_of_the_label_over_all_classes():
    loss = classification.label_smoothing_loss(4, 0.2)
    logits = np.array([0.0, 1.0, 2.0, 3.0], np.float32)
    log_probs = logits - np.log(np.exp(logits).sum())
    expected = -(0.8 * log_probs[2] + 0.05 * log_probs.sum())
    assert float(loss(jnp.asarray(logits), jnp.asarray(2))) == pytest.approx(expected, rel=1e-5)


def test_calibration_images_are_of_all_classes(monkeypatch, tmp_path):
    """Whatever the order of the images: here one class comes after the other."""
    monkeypatch.setattr(classification, "CALIBRATION_IMAGES", 10)
    images = np.repeat(np.array([0, 255], np.uint8), 20)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    data = LabeledImages(images, np.repeat(np.arange(2, dtype=np.int32), 20), ("a", "b"))
    net = cnn_jax.Chain(cnn_jax.BatchNorm(), cnn_jax.Flatten(), cnn_jax.Dense(2))
    trained = classification.train(
        runner.Run(tmp_path, tmp_path / "saves", None),
        "network",
        net,
        data,
        augment=classification.augment_each(lambda key, image: image),
        optimizer=optax.sgd(0.1),
        steps=1,
        batch_size=40,
        key=jax.random.key(0),
        progress=False,
    )
    assert float(trained.params["batch_norm1"]["mean"][0]) == pytest.approx(0, abs=1e-6)


def test_a_network_is_trained_saved_and_evaluated_for_every_seed(tmp_path, capsys):
    log_probs = [np.eye(4), np.eye(4)[::-1]]
    seeds = []

    def train_one(name, key):
        seeds.append(name)
        np.testing.assert_array_equal(jax.random.key_data(key), jax.random.key_data(jax.random.key(len(seeds) + 2)))
        return training_result(seconds=2.0 * len(seeds), resumed_after=len(seeds) - 1)

    def save_one(path, trained):
        path.write_text(str(trained.seconds))

    results = classification.train_seeds(
        range(3, 5),
        tmp_path,
        train_one=train_one,
        save_one=save_one,
        predict_test=lambda trained: log_probs[trained.resumed_after],
        labels=np.array([0, 1, 2, 0]),
    )
    assert seeds == ["seed_3", "seed_4"]
    assert (tmp_path / "model_3.safetensors").read_text() == "2.0"
    assert (tmp_path / "model_4.safetensors").read_text() == "4.0"
    assert results.first.seconds == 2
    assert results.log_probs == log_probs
    assert results.metrics == {
        "accuracy": pytest.approx(0.5),
        "accuracies": [0.75, 0.25],
        "deviation": pytest.approx(0.5 / np.sqrt(2)),
        "images": 4,
        "training_seconds": [2.0, 4.0],
        "resumed_after": [0, 1],
    }
    assert capsys.readouterr().out.splitlines()[0] == "seed 3: accuracy 75.00 % in 2 s"


def test_one_seed_has_no_standard_deviation(tmp_path):
    results = classification.train_seeds(
        [0],
        tmp_path,
        train_one=lambda name, key: training_result(seconds=1.0, resumed_after=0),
        save_one=lambda path, trained: None,
        predict_test=lambda trained: np.eye(2),
        labels=np.array([0, 1]),
    )
    assert results.metrics["deviation"] is None


def test_the_confusion_matrix_has_a_row_for_each_class_and_a_column_for_each_prediction():
    log_probs = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8]])
    matrix = classification.confusion_matrix(log_probs, np.array([0, 0, 1, 1]), 3)
    np.testing.assert_array_equal(matrix, [[1, 1, 0], [0, 1, 1], [0, 0, 0]])


def test_statistics_of_batch_norm_are_not_trainable():
    params = {"batch_norm1": {name: np.ones(4) for name in ("scale", "bias", "mean", "variance")}}
    assert classification.trainable_parameters(params) == 8
