"""Training of the network of experiments.xo: its optimizer and its report."""

import jax
import numpy as np
import pytest

from experiments._lib import xo_train


@pytest.fixture(scope="module")
def steps_taken():
    """The largest change of a kernel and of a bias in each of 40 steps, for gradients of one."""
    optimizer = xo_train.optimizer(xo_train.Train(steps=40))
    params = {"conv1": {"kernel": np.ones((3, 3, 1, 4), np.float32), "bias": np.ones(4, np.float32)}}
    gradients = jax.tree.map(np.ones_like, params)

    def step(state, _):
        updates, state = optimizer.update(gradients, state, params)
        return state, jax.tree.map(lambda update: abs(update).max(), updates)

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # optax mixes both
        _, sizes = jax.jit(lambda state: jax.lax.scan(step, state, length=40))(optimizer.init(params))
    return sizes["conv1"]


def test_learning_rates_warm_up_and_fall_to_zero(steps_taken):
    for sizes in steps_taken.values():
        assert sizes[0] == 0
        assert np.argmax(sizes) == 2  # a twentieth of all steps
        assert np.all(np.diff(sizes[2:]) < 0)
        assert sizes[-1] < 0.01 * sizes[2]


def test_kernels_follow_muon_and_biases_adam(steps_taken):
    assert steps_taken["bias"][2] == pytest.approx(xo_train.ADAM_LEARNING_RATE, rel=0.1)
    assert steps_taken["kernel"][2] < 0.8 * xo_train.ADAM_LEARNING_RATE  # spread over the singular values


def test_the_report_tells_accuracy_size_and_time(tmp_path, capsys):
    accuracies = {"whole image": 0.5, "hand-made features": 0.75, "trained network": 1.0}
    metrics = {
        "accuracy": {"clean": accuracies},
        "omniglot": {"line": "Omniglot: none"},
        "parameters": 33058,
        "training_seconds": 12.3,
        "seconds": 45.6,
    }
    xo_train.write_report(xo_train.Train(out=tmp_path), tmp_path, metrics)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Accuracy on 10,000 new letters each:"
    assert "| clean   |     50.00 % |            75.00 % |        100.00 % |" in lines
    assert lines[-2] == "Omniglot: none"
    assert lines[-1] == f"33,058 parameters, 12 s of training, 46 s in all; everything is in {tmp_path}"
    assert (tmp_path / "report.html").exists()
