"""Checkpoints: resumed runs end as uninterrupted ones, other runs are refused, damage is found."""

import json
import resource
import shutil
import signal
import sys
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax import _orbax, _processes, _run_checkpoint
from cnn_jax._checksums import json_checksum
from cnn_jax._run_checkpoint import IncompatibleCheckpoint, RunCheckpointer
from cnn_jax.layers import Chain, Dense, Dropout, Flatten, Layer
from cnn_jax.training import fit

pytestmark = pytest.mark.usefixtures("compile_cache", "silence")

IMAGES = np.random.default_rng(0).normal(size=(32, 2, 2)).astype(np.float32)
LABELS = (IMAGES.sum((1, 2)) > 0).astype(np.int32)
STEPS = 16  # of every whole run here, saved every 4


def run(directory, steps, data=(IMAGES, LABELS), **options):
    defaults = {"optimizer": optax.adam(0.1), "batch_size": 8, "key": jax.random.key(0), "save_every": 4}
    net = Chain(Flatten(), Dropout(0.5), Dense(2))
    return fit(net, data, steps=steps, checkpoint_dir=directory, progress=False, **(defaults | options))


@pytest.fixture(scope="module")
def silence():
    """On a slow disk Orbax's abandoned reads report after a checkpointer has ended, and warnings are errors here."""
    with _orbax.silence_abandoned_tasks():
        yield


@pytest.fixture(scope="module")
def uninterrupted():
    """The parameters and the history of a run without checkpoints."""
    return run(None, STEPS)


@pytest.fixture(scope="module")
def eight_steps(tmp_path_factory):
    """The checkpoints of the first eight steps: 4 and 8."""
    directory = tmp_path_factory.mktemp("eight_steps")
    run(directory, 8)
    return directory


@pytest.fixture
def copied(eight_steps, tmp_path):
    return shutil.copytree(eight_steps, tmp_path / "checkpoints")


def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, uninterrupted):
    run(tmp_path, 6)
    chex.assert_trees_all_equal(run(tmp_path, STEPS), uninterrupted)


def test_a_finished_run_is_read_and_not_run_again(tmp_path, uninterrupted):
    run(tmp_path, STEPS)

    def loss(logits, label):
        raise AssertionError("no step is left")

    chex.assert_trees_all_equal(run(tmp_path, STEPS, loss=loss), uninterrupted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 16}, "expected batch_size=16, got checkpoints with batch_size=8"),
        ({"key": jax.random.key(1)}, r"expected key=\[0, 1\], got checkpoints with key=\[0, 0\]"),
        ({"data": (IMAGES + 1, LABELS)}, "expected data="),
        ({"optimizer": optax.sgd(0.1)}, "expected opt_state/"),
    ],
)
def test_checkpoints_of_another_run_are_refused(eight_steps, options, message):
    with pytest.raises(IncompatibleCheckpoint, match=f"checkpoint_dir: .*{message}"):
        run(eight_steps, STEPS, **options)


def test_checkpoints_of_more_steps_are_refused(eight_steps):
    with pytest.raises(ValueError, match=r"steps: expected at least the 8 steps saved in .*, got 5"):
        run(eight_steps, 5)


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_restored(copied, uninterrupted):
    largest = max((copied / "8").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    largest.write_bytes(b"")
    chex.assert_trees_all_equal(run(copied, STEPS), uninterrupted)
    assert (copied / "damaged-8").is_dir()


@pytest.mark.parametrize("loss", ["", "{}", None])
def test_damage_of_an_older_checkpoint_does_not_stop_the_run(copied, uninterrupted, loss):
    metrics = copied / "4" / "metrics" / "metrics"
    metrics.unlink() if loss is None else metrics.write_text(loss)
    (copied / "damaged-4").mkdir()  # the name is taken
    chex.assert_trees_all_equal(run(copied, STEPS), uninterrupted)
    names = {path.name for path in copied.iterdir()}
    assert names >= {"12", "16", "damaged-4", "damaged-4+"}
    assert "4" not in names


def test_a_directory_of_damaged_checkpoints_only_is_refused(copied):
    for step in ("4", "8"):
        (copied / step / "record" / "metadata").write_text("{}")
    with pytest.raises(ValueError, match=r"checkpoint_dir: none of the checkpoints \[4, 8\] in .* is intact"):
        run(copied, STEPS)


def test_parameters_that_are_not_finite_are_not_saved(tmp_path):
    with pytest.raises(FloatingPointError):
        run(tmp_path, 4, optimizer=optax.sgd(jnp.nan), save_every=1)
    assert not list(tmp_path.glob("[0-9]*"))


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_a_step_with_a_checkpoint(tmp_path, uninterrupted, kind):
    def loss(logits, label):  # traced once, in the first step
        signal.raise_signal(kind)
        return optax.softmax_cross_entropy_with_integer_labels(logits, label)

    before = signal.getsignal(kind)
    with pytest.raises(KeyboardInterrupt, match=f"stopped by {kind.name} after step 1, saved in {tmp_path}"):
        run(tmp_path, STEPS, loss=loss)
    assert signal.getsignal(kind) is before
    if kind is signal.SIGTERM:
        chex.assert_trees_all_equal(run(tmp_path, STEPS), uninterrupted)


def test_the_newest_two_and_the_best_are_kept(tmp_path):
    for steps in (10, 20):  # the loss rises, so the first checkpoint is the best
        run(tmp_path, steps, optimizer=optax.sgd(-0.5))
    assert {path.name for path in tmp_path.iterdir()} == {"4", "16", "20"}


@pytest.mark.parametrize("stopped", [False, True])
def test_where_nothing_more_can_be_written_earlier_checkpoints_stay(copied, uninterrupted, stopped):
    def loss(logits, label):
        if stopped:
            signal.raise_signal(signal.SIGTERM)
        return optax.softmax_cross_entropy_with_integer_labels(logits, label)

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))  # as good as a full disk
    try:
        with pytest.raises(OSError, match=r"cannot save the run in .*; earlier checkpoints are unchanged"):
            run(copied, 12, loss=loss)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    chex.assert_trees_all_equal(run(copied, STEPS), uninterrupted)


def test_a_run_that_cannot_be_saved_is_found_out_before_the_first_step(tmp_path):
    def loss(logits, label):
        raise AssertionError("no step may begin")

    (tmp_path / "file").write_text("text")
    for path in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(OSError, match=r"checkpoint_dir: expected a folder that can be written to, got .*file"):
            run(path, STEPS, loss=loss)


def test_a_file_system_with_less_space_than_a_checkpoint_needs_is_found_out(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    with pytest.raises(OSError, match=r"checkpoint_dir: expected 2\d\d bytes of free space, got 100 in "):
        run(tmp_path, STEPS)


def test_a_finished_run_is_read_where_nothing_can_be_written(eight_steps, monkeypatch):
    before = run(eight_steps, 8)
    monkeypatch.setattr(_run_checkpoint, "writable_folder", None)
    chex.assert_trees_all_equal(run(eight_steps, 8), before)


def test_checkpoints_may_be_in_the_home_folder_but_not_at_a_url(eight_steps, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(eight_steps.parent))
    monkeypatch.chdir(tmp_path)
    assert len(run(f"~/{eight_steps.name}", 8)[1]["loss"]) == 8
    with pytest.raises(ValueError, match="checkpoint_dir: expected a path on this machine, got the URL 'gs://bucket"):
        run("gs://bucket/run", 8)
    assert not list(tmp_path.iterdir())


class Weights(NamedTuple):
    kernel: jax.Array
    shifts: tuple[jax.Array, None, list[jax.Array]]


@jax.tree_util.register_pytree_node_class
class Module:
    """A module as other libraries have them: a pytree whose leaves have no names."""

    def __init__(self, kernel, bias):
        self.kernel = kernel
        self.bias = bias

    def tree_flatten(self):
        return (self.kernel, self.bias), None

    @classmethod
    def tree_unflatten(cls, static, leaves):
        return cls(*leaves)


KERNEL = jnp.ones((4, 2))
TREES = {
    "tuple": (KERNEL, jnp.zeros(2)),
    "list": [KERNEL, {"bias": jnp.zeros(2)}],
    "namedtuple": Weights(KERNEL, (jnp.zeros(2), None, [jnp.zeros((), jnp.bfloat16)])),
    "module": Module(KERNEL, jnp.zeros(2)),
    "keys": {"a/b": KERNEL, "c.d": (), "": jnp.zeros(2)},
    "array": KERNEL,
}


@pytest.mark.parametrize("kind", TREES)
def test_parameters_of_any_tree_resume(tmp_path, kind):
    def apply(params, image, *, train=False, key=None):
        return image.reshape(-1) @ next(leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 2)

    net = Layer(lambda key, shape: TREES[kind], apply, "own")
    options = {"optimizer": optax.adam(0.1), "batch_size": 8, "key": jax.random.key(0), "progress": False}
    half, whole = (
        fit(net, (IMAGES, LABELS), steps=steps, checkpoint_dir=tmp_path / "run", **options) for steps in (2, 4)
    )
    assert jax.tree.structure(whole[0]) == jax.tree.structure(half[0])
    chex.assert_trees_all_equal(whole, fit(net, (IMAGES, LABELS), steps=4, **options))


def adam(rate, **options):
    return optax.inject_hyperparams(optax.adam)(learning_rate=rate, **options)


def test_hyperparameters_that_differ_on_resume_are_named_and_the_new_ones_taken(tmp_path, caplog):
    run(tmp_path, 4, optimizer=adam(0.1))
    assert caplog.records == []
    learned = run(tmp_path, 8, optimizer=adam(0.0, b1=0.5))[0]
    (record,) = caplog.records
    assert record.message == f"{tmp_path}: resumes with new hyperparameters: b1 0.9 -> 0.5, learning_rate 0.1 -> 0"
    chex.assert_trees_all_equal(learned, run(tmp_path, 12, optimizer=adam(0.0, b1=0.5))[0])
    assert len(caplog.records) == 1


def test_hyperparameters_that_the_run_itself_changed_are_kept(tmp_path, caplog):
    with RunCheckpointer(tmp_path, {}) as checkpointer:
        start: Any = adam(0.1).init({"bias": jnp.zeros(2)})
        assert checkpointer.restore_latest(start) is None
        lowered = start._replace(hyperparams=start.hyperparams | {"learning_rate": jnp.float32(0.01)})
        checkpointer.save(1, lowered, history_of(1))
    with RunCheckpointer(tmp_path, {}) as checkpointer:
        saved = checkpointer.restore_latest(start)
    assert saved is not None
    assert float(saved.state.hyperparams["learning_rate"]) == pytest.approx(0.01)
    assert caplog.records == []


def test_checkpoints_of_another_format_are_not_called_damaged(tmp_path, saved_twice):
    directory = shutil.copytree(saved_twice, tmp_path / "copy")
    change_record(directory / "2", run={"seed": 0})
    with pytest.raises(
        IncompatibleCheckpoint, match=r"checkpoint_dir: expected format=2, got checkpoints with format=None"
    ):
        restore(directory)


STATE = {"params": jnp.arange(6.0).reshape(2, 3), "key": jax.random.key(1), "step": jnp.int32(0)}


def state_after(step):
    return STATE | {"params": STATE["params"] + step, "step": jnp.int32(step)}


def history_of(steps):
    return {"loss": np.arange(steps, dtype=np.float32)}


@pytest.fixture(scope="module")
def saved_twice(tmp_path_factory):
    """Checkpoints after one step and after two, the state counting up, with positions beyond 32 bits."""
    directory = tmp_path_factory.mktemp("saved_twice")
    with RunCheckpointer(directory, {"seed": 0}) as checkpointer:
        for step in (1, 2):
            checkpointer.save(step, state_after(step), history_of(step), position=2**40 + step)
    return directory


def restore(directory):
    with RunCheckpointer(directory, {"seed": 0}) as checkpointer:
        saved = checkpointer.restore_latest(STATE)
    assert saved is not None
    return saved


def test_state_history_and_position_come_back(saved_twice):
    saved = restore(saved_twice)
    assert (saved.step, saved.position) == (2, 2**40 + 2)
    chex.assert_trees_all_equal(saved.history, history_of(2))
    chex.assert_trees_all_equal(*(jax.tree.map(raw, state) for state in (saved.state, state_after(2))))
    assert saved.state["key"].dtype == STATE["key"].dtype


def raw(array):
    return jax.random.key_data(array) if jnp.issubdtype(array.dtype, jax.dtypes.prng_key) else array


def test_an_empty_directory_has_no_checkpoint(tmp_path):
    with RunCheckpointer(tmp_path / "absent", {"seed": 0}) as checkpointer:
        assert checkpointer.restore_latest(STATE) is None


def test_each_process_gets_its_own_position(tmp_path, saved_twice, monkeypatch):
    directory = shutil.copytree(saved_twice, tmp_path / "copy")
    for process, expected in ((0, 10), (1, 20)):
        change_record(directory / "2", positions=[10, 20])
        saved = read_as(directory, process, monkeypatch)
        assert saved.position == expected


def read_as(directory, process, monkeypatch):
    """The checkpoint as one of two processes reads it, without Orbax, which would wait for the other."""
    with monkeypatch.context() as patched:
        patched.setattr(jax, "process_count", lambda: 2)
        patched.setattr(jax, "process_index", lambda: process)
        arrays = {
            "state": [np.asarray(raw(leaf)) for leaf in jax.tree.leaves(state_after(2))],
            "history": history_of(2),
        }
        patched.setattr(_run_checkpoint, "restore_numpy", lambda path, like: arrays)
        return RunCheckpointer(directory, {"seed": 0})._read(2, STATE)


def change_record(path, **changes):
    record = json.loads((path / "record" / "metadata").read_text())
    del record["record_checksum"]
    record |= changes
    record["record_checksum"] = json_checksum(record)
    (path / "record" / "metadata").write_text(json.dumps(record))


def test_positions_of_another_number_of_processes_are_refused(tmp_path, saved_twice):
    directory = shutil.copytree(saved_twice, tmp_path / "copy")
    change_record(directory / "2", positions=[10, 20])
    with pytest.raises(IncompatibleCheckpoint, match="expected checkpoints of 1 processes, got those of 2"):
        restore(directory)


@pytest.fixture
def other_process(monkeypatch):
    """Makes this process one of two: a function that says what the other one gathers, and lists what this one does."""
    gathered = []

    def gather_with(other):
        def allgather(value):
            gathered.append(int(value))
            return np.array([value, other], np.int32)

        monkeypatch.setattr(jax, "process_count", lambda: 2)
        monkeypatch.setattr(_processes.multihost_utils, "process_allgather", allgather)
        return gathered

    return gather_with


@pytest.mark.parametrize("error", [IncompatibleCheckpoint("of another run"), ValueError("damaged"), OSError("locked")])
def test_a_process_that_cannot_restore_tells_the_others_before_it_fails(tmp_path, monkeypatch, other_process, error):
    def read(self, like, damaged):
        raise error

    monkeypatch.setattr(RunCheckpointer, "_newest_intact", read)
    gathered = other_process(4)
    with pytest.raises(type(error), match=str(error)):
        RunCheckpointer(tmp_path, {"seed": 0}).restore_latest(STATE)
    assert gathered == [_processes.FAILED]


def test_a_process_fails_if_another_cannot_restore(tmp_path, other_process):
    gathered = other_process(_processes.FAILED)
    with pytest.raises(ValueError, match="checkpoint_dir: another process cannot use"):
        RunCheckpointer(tmp_path, {"seed": 0}).restore_latest(STATE)
    assert gathered == [0]


def test_a_process_that_cannot_rename_tells_the_others_before_it_fails(tmp_path, other_process):
    gathered = other_process(1)
    with pytest.raises(FileNotFoundError):
        RunCheckpointer(tmp_path, {"seed": 0})._quarantine({2: ValueError("damaged")}, 1)
    assert gathered == [_processes.FAILED]


def flipped(data, index):
    return data[:index] + bytes([data[index] ^ 16]) + data[index + 1 :]


DAMAGES = {
    "emptied": lambda data: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "flipped at the start": lambda data: flipped(data, 0),
    "flipped in the middle": lambda data: flipped(data, len(data) // 2),
    "flipped at the end": lambda data: flipped(data, len(data) - 1),
    "removed": None,
}


def damage_file(path, kind):
    if DAMAGES[kind] is None:
        path.unlink()
    else:
        path.write_bytes(DAMAGES[kind](path.read_bytes()))


@pytest.mark.parametrize("kind", DAMAGES)
def test_whatever_is_damaged_what_is_restored_is_intact(tmp_path, saved_twice, monkeypatch, kind):
    monkeypatch.setattr(_run_checkpoint, "LATE_REPORTS_SECONDS", 0)
    files = [path for path in (saved_twice / "2").rglob("*") if path.is_file() and path.stat().st_size]
    assert len(files) > 5
    steps = []
    for i, file in enumerate(files):
        directory = shutil.copytree(saved_twice, tmp_path / str(i))
        damage_file(directory / file.relative_to(saved_twice), kind)
        saved = restore(directory)
        chex.assert_trees_all_equal(saved.history, history_of(saved.step))
        chex.assert_trees_all_equal(*(jax.tree.map(raw, state) for state in (saved.state, state_after(saved.step))))
        assert (directory / "damaged-2").exists() == (saved.step == 1)
        assert (directory / "1").exists()
        steps.append(saved.step)
    assert 1 in steps


def test_the_process_is_left_as_it_was(tmp_path, copied, capfd):
    """Even where Orbax abandons reads, whose exceptions Python reports."""
    hook = sys.unraisablehook
    handlers = [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)]
    for file in (copied / "8" / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    run(copied, 9)
    assert sys.unraisablehook is hook
    assert [signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert capfd.readouterr().err == ""
