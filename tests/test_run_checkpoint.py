"""Saved runs: what goes on ends as if it had never stopped; other runs are refused."""

import resource
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax._run_checkpoint import RunCheckpointer
from cnn_jax.layers import Chain, Dense, Dropout, Flatten
from cnn_jax.training import fit

IMAGES = np.random.default_rng(0).normal(size=(32, 2, 2)).astype(np.float32)
LABELS = (IMAGES.sum((1, 2)) > 0).astype(np.int32)


def run(folder, steps, data=(IMAGES, LABELS), **options):
    defaults = {"optimizer": optax.adam(0.1), "batch_size": 8, "key": jax.random.key(0), "save_every": 4}
    net = Chain(Flatten(), Dropout(0.5), Dense(2))
    return fit(net, data, steps=steps, checkpoint_dir=folder, progress=False, **(defaults | options))


def test_a_run_that_goes_on_ends_as_one_that_never_stopped(tmp_path):
    params, history = run(None, 15)
    run(tmp_path, 6)
    for _ in range(2):  # the second finds it done
        gone_on, past = run(tmp_path, 15)
        jax.tree.map(np.testing.assert_array_equal, (gone_on, past), (params, history))


def test_another_run_is_refused(tmp_path):
    run(tmp_path, 6)
    with pytest.raises(ValueError, match="batch_size 8, this one has 16"):
        run(tmp_path, 8, batch_size=16)
    with pytest.raises(ValueError, match="key"):
        run(tmp_path, 8, key=jax.random.key(1))
    with pytest.raises(ValueError, match="data"):
        run(tmp_path, 8, data=(IMAGES + 1, LABELS))
    with pytest.raises(ValueError, match=r"steps: .* 6 "):
        run(tmp_path, 5)


def test_a_damaged_save_is_set_aside_and_the_one_before_taken(tmp_path):
    params, history = run(None, 10)
    run(tmp_path, 8)
    largest = max((tmp_path / "8").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    largest.write_bytes(b"")
    gone_on, past = run(tmp_path, 10)
    jax.tree.map(np.testing.assert_array_equal, (gone_on, past), (params, history))
    assert (tmp_path / "damaged-8").is_dir()


@pytest.mark.parametrize("loss", ["", "{}", None])
def test_damage_of_an_older_save_does_not_stop_the_run(tmp_path, loss):
    params, history = run(None, 16)
    run(tmp_path, 8)
    for _ in range(2):  # what is set aside a second time takes another name
        metrics = tmp_path / "4" / "metrics" / "metrics"
        metrics.unlink(missing_ok=True) if loss is None else metrics.write_text(loss)
        shutil.copytree(tmp_path / "4", tmp_path / "copy")
        run(tmp_path, 8)
        shutil.move(tmp_path / "copy", tmp_path / "4")
    gone_on, past = run(tmp_path, 16)
    jax.tree.map(np.testing.assert_array_equal, (gone_on, past), (params, history))
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {"12", "16", "damaged-4", "damaged-4+", "damaged-4++"}
    assert "4" not in names


def test_parameters_that_are_not_finite_are_not_saved(tmp_path):
    with pytest.raises(FloatingPointError):
        run(tmp_path, 4, optimizer=optax.sgd(jnp.nan), save_every=1)
    assert not list(tmp_path.glob("[0-9]*"))


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_a_step_saved(tmp_path, kind):
    def loss(scores, label):  # traced once, in the first step
        signal.raise_signal(kind)
        return optax.softmax_cross_entropy_with_integer_labels(scores, label)

    before = signal.getsignal(kind)
    with pytest.raises(KeyboardInterrupt, match=f"stopped by {kind.name} after step 1, saved in {tmp_path}"):
        run(tmp_path, 10, loss=loss)
    assert signal.getsignal(kind) is before
    jax.tree.map(np.testing.assert_array_equal, run(tmp_path, 10), run(None, 10))


def test_the_newest_two_and_the_best_are_kept(tmp_path):
    for steps in (10, 20):  # the loss rises, so that the first save is the best
        run(tmp_path, steps, optimizer=optax.sgd(-0.5))
    assert {path.name for path in tmp_path.iterdir()} == {"4", "16", "20"}


STATE = {"params": jnp.arange(6.0).reshape(2, 3), "key": jax.random.key(1), "done": jnp.int32(0)}


def saved_twice(folder):
    """Two saves, after one step and after two, the state counting up; returns what `newest` must then find."""
    expected = {}
    with RunCheckpointer(folder, {"seed": 0}) as saves:
        for step in (1, 2):
            state = STATE | {"params": STATE["params"] + step, "done": jnp.int32(step)}
            history = {"loss": np.arange(step, dtype=np.float32)}
            saves.save(step, state, history)
            expected[step] = state, history
    return expected


def flipped(data, place):
    return data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]


DAMAGES = {
    "emptied": lambda data: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "flipped at the start": lambda data: flipped(data, 0),
    "flipped in the middle": lambda data: flipped(data, len(data) // 2),
    "flipped at the end": lambda data: flipped(data, len(data) - 1),
    "gone": None,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_whatever_is_damaged_what_is_found_is_whole(tmp_path, damage):
    expected = saved_twice(tmp_path / "whole")
    files = [path for path in (tmp_path / "whole" / "2").rglob("*") if path.is_file() and path.stat().st_size]
    assert len(files) > 5
    found = []
    for i, file in enumerate(files):
        folder = shutil.copytree(tmp_path / "whole", tmp_path / str(i))
        own = folder / file.relative_to(tmp_path / "whole")
        if DAMAGES[damage]:
            own.write_bytes(DAMAGES[damage](own.read_bytes()))
        else:
            own.unlink()
        with RunCheckpointer(folder, {"seed": 0}) as saves:
            step, state, history = saves.newest(STATE)
        for got, wanted in zip(jax.tree.leaves((state, history)), jax.tree.leaves(expected[step]), strict=True):
            if jnp.issubdtype(wanted.dtype, jax.dtypes.prng_key):
                got, wanted = jax.random.key_data(got), jax.random.key_data(wanted)
            np.testing.assert_array_equal(got, wanted)
        assert (folder / "damaged-2").exists() == (step == 1)
        assert (folder / "1").exists()
        found.append(step)
    assert 1 in found


@pytest.mark.parametrize("stopped", [False, True])
def test_where_nothing_more_can_be_written_earlier_saves_stay(tmp_path, stopped):
    def loss(scores, label):
        if stopped:
            signal.raise_signal(signal.SIGTERM)
        return optax.softmax_cross_entropy_with_integer_labels(scores, label)

    run(tmp_path, 8)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))  # as good as a full disk
    try:
        with pytest.raises(OSError, match=r"training is not saved .* earlier saves are as they were"):
            run(tmp_path, 12, loss=loss)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    jax.tree.map(np.testing.assert_array_equal, run(tmp_path, 16), run(None, 16))
