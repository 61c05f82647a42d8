"""Checkpoints that are read without their run: the newest, and the best."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import _orbax
from cnn_jax._run_checkpoint import RunCheckpointer
from cnn_jax._train_state import TrainState
from cnn_jax.training import load_checkpoint

pytestmark = pytest.mark.usefixtures("silence")

PARAMS = {"dense1": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}, "empty": {}}
KEPT = {"dense1": PARAMS["dense1"]}  # a dict without arrays leaves no trace
LOSSES = (3.0, 1.0, 2.0, 5.0)  # on the validation data, after steps 1 to 4


@pytest.fixture(scope="module")
def silence():
    with _orbax.silence_abandoned_tasks():
        yield


def params_after(step, params=PARAMS):
    return jax.tree.map(lambda leaf: leaf + step, params)


def save(directory, params=PARAMS, losses=LOSSES):
    with RunCheckpointer(directory, {"seed": 0}) as checkpointer:
        for step in range(1, len(losses) + 1):
            state = TrainState.create(params_after(step, params), optax.adam(0.1), jax.random.key(0))
            history = {
                "loss": np.arange(step, dtype=np.float32),
                "validation_step": np.arange(1, step + 1, dtype=np.int32),
                "validation_loss": np.array(losses[:step], np.float32),
            }
            checkpointer.save(step, state._replace(key=None), history)
    return directory


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save(tmp_path_factory.mktemp("saved"))


@pytest.mark.parametrize(("which", "step"), [("latest", 4), ("best", 2)])
def test_the_newest_and_the_best_checkpoint_are_read(saved, which, step):
    params, history, saved_step = load_checkpoint(saved, which=which)
    assert saved_step == step
    chex.assert_trees_all_equal(params, params_after(step, KEPT))
    assert isinstance(params["dense1"]["kernel"], jax.Array)
    assert list(history) == ["loss", "validation_step", "validation_loss"]
    np.testing.assert_array_equal(history["validation_loss"], LOSSES[:step])


def test_parameters_of_another_tree_are_read_in_the_structure_that_is_given(tmp_path):
    params = {"own": (jnp.ones(2), [jnp.zeros(3)])}
    save(tmp_path, params, losses=(1.0,))
    assert jax.tree.structure(load_checkpoint(tmp_path, like=params).params) == jax.tree.structure(params)
    chex.assert_trees_all_equal(load_checkpoint(tmp_path, like=params).params, params_after(1, params))
    np.testing.assert_array_equal(load_checkpoint(tmp_path).params["own"]["1"]["0"], 1)  # by index without it
    with pytest.raises(ValueError, match=r"like: .*arrays {'params/own/0': \(2,\), 'params/own/1/0': \(3,\)}, got"):
        load_checkpoint(tmp_path, like={"own": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"like: .*, got {'params/other/0'"):
        load_checkpoint(tmp_path, like={"other": params["own"]})


def test_a_network_without_parameters_has_a_checkpoint(tmp_path):
    save(tmp_path, {}, losses=(1.0,))
    assert load_checkpoint(tmp_path).params == {}


def test_a_directory_without_checkpoints_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"directory: expected checkpoints of fit, got none in {tmp_path}"):
        load_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match="absent"):
        load_checkpoint(tmp_path / "absent")


def test_a_damaged_checkpoint_is_reported(tmp_path):
    save(tmp_path, losses=(1.0,))
    largest = max((tmp_path / "1").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    largest.write_bytes(b"")
    with pytest.raises(ValueError, match=f"directory: none of the checkpoints in {tmp_path} can be read"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(("which", "step"), [("latest", 3), ("best", 2)])
def test_another_checkpoint_is_taken_for_a_damaged_one(tmp_path, caplog, which, step):
    save(tmp_path)
    for path in (tmp_path / "4").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    assert load_checkpoint(tmp_path, which=which).step == step
    if which == "latest":
        assert f"{tmp_path}: the checkpoint of step 4 cannot be read" in caplog.text


def test_another_choice_is_refused(saved):
    with pytest.raises(ValueError, match=r"which: .*'newest'"):
        load_checkpoint(saved, which="newest")  # pyright: ignore[reportArgumentType]
