"""The training loop: what it learns, which images it takes, what it reports and refuses."""

import functools
import io
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from cnn_jax.data import xo
from cnn_jax.layers import Chain, Conv, Dense, Dropout, Flatten, Layer
from cnn_jax.nets import xo_net
from cnn_jax.norms import BatchNorm
from cnn_jax.progress import Progress
from cnn_jax.training import fit

KEY = jax.random.key(0)
NET = Chain(Flatten(), Dense(2))
IMAGES = np.random.default_rng(0).normal(size=(64, 2, 2)).astype(np.float32)
LABELS = (IMAGES.sum((1, 2)) > 0).astype(np.int32)


def run(data=(IMAGES, LABELS), net=NET, **options):
    defaults = {"optimizer": optax.sgd(0.5), "steps": 4, "batch_size": 16, "key": KEY, "progress": False}
    return fit(net, data, **(defaults | options))


def labels_seen(labels, **options):
    """The mean label of every step's batch: the loss is the label itself."""
    labels = np.asarray(labels, np.float32)
    images = np.zeros((len(labels), 1, 1), np.float32)
    return run((images, labels), Flatten(), loss=lambda scores, label: label, **options)[1]["loss"]


def sample(key):
    image = jax.random.normal(key, (2, 2))
    return image, (jnp.sum(image) > 0).astype(jnp.int32)


@pytest.mark.parametrize("data", [(IMAGES, LABELS), sample], ids=["arrays", "sample"])
def test_learns_what_a_line_separates(data):
    params, history = run(data, optimizer=optax.adam(0.1), steps=60)
    assert history["accuracy"][-10:].mean() > 0.95
    assert history["loss"][-10:].mean() < 0.5 * history["loss"][0]
    weights = np.asarray(params["dense1"]["kernel"])
    assert np.all(weights[:, 1] > weights[:, 0])


def test_history_and_params():
    params, history = run(steps=3)
    assert {name: (values.shape, type(values)) for name, values in history.items()} == {
        "loss": ((3,), np.ndarray),
        "accuracy": ((3,), np.ndarray),
    }
    assert jax.tree.map(jnp.shape, params) == {"dense1": {"kernel": (4, 2), "bias": (2,)}}


def test_the_same_key_gives_the_same_run():
    net = Chain(Flatten(), Dropout(0.5), Dense(2))
    (one, _), (same, _), (other, _) = (run(net=net, key=jax.random.key(seed)) for seed in (0, 0, 1))
    chex.assert_trees_all_equal(one, same)
    assert not np.array_equal(one["dense1"]["kernel"], other["dense1"]["kernel"])


def test_given_params_are_the_start_and_stay_untouched():
    start = {"dense1": {"kernel": jnp.ones((4, 2)), "bias": jnp.zeros(2)}}
    _, history = run(params=start, steps=2)
    assert history["loss"][0] == pytest.approx(np.log(2))
    np.testing.assert_array_equal(start["dense1"]["kernel"], 1)
    np.testing.assert_array_equal(start["dense1"]["bias"], 0)


def test_history_is_taken_before_the_update():
    images, labels = np.ones((4, 1, 1), np.float32), np.zeros(4, np.int32)
    start = {"dense1": {"kernel": jnp.array([[0.0, 1.0]]), "bias": jnp.zeros(2)}}
    _, history = run((images, labels), params=start, batch_size=4, steps=3, optimizer=optax.sgd(10.0))
    assert history["loss"][0] == pytest.approx(np.log(1 + np.e))
    assert list(history["accuracy"]) == [0, 1, 1]


def test_every_epoch_sees_every_image_once_in_a_new_order():
    seen = labels_seen(range(8), batch_size=1, steps=24).reshape(3, 8)
    np.testing.assert_array_equal(np.sort(seen), [range(8)] * 3)
    assert len({tuple(epoch) for epoch in seen}) == 3


def test_batches_of_an_epoch_share_no_image():
    seen = np.round(labels_seen(2.0 ** np.arange(6), batch_size=3, steps=4) * 3)
    np.testing.assert_array_equal(seen.reshape(2, 2).sum(axis=1), 63)
    assert all(int(batch).bit_count() == 3 for batch in seen)


def test_the_last_partial_batch_is_left_out():
    seen = np.round(labels_seen(2.0 ** np.arange(5), batch_size=2, steps=4) * 2)
    assert [int(epoch).bit_count() for epoch in seen.reshape(2, 2).sum(axis=1)] == [4, 4]


def test_sampled_batches_are_new_in_every_step():
    def number(key):
        return jnp.zeros((1, 1)), jax.random.uniform(key)

    _, history = run(number, Flatten(), loss=lambda scores, label: label, batch_size=2, steps=5)
    assert len(set(history["loss"])) == 5


def test_channels_are_optional_and_labels_may_be_anything():
    shapes = []

    def loss(scores, label):
        shapes.append((scores.shape, label.shape))
        return jnp.mean((scores - label) ** 2)

    targets = np.stack([LABELS, 1 - LABELS], axis=1).astype(np.float32)
    _, history = run((IMAGES[..., None], targets), loss=loss, steps=1)
    assert shapes == [((2,), (2,))]
    assert list(history) == ["loss"]


def test_augment_makes_what_is_learned_from():
    """Labels become the place in the data and the epoch, which the loss hands on; every place once an epoch."""

    def augment(key, batch):
        np.testing.assert_equal((batch.images.dtype, batch.labels.dtype), (np.uint8, np.int32))
        shown = jnp.broadcast_to(batch.epoch, batch.indices.shape)
        return batch.images.astype(jnp.float32), jnp.stack([batch.indices, shown, batch.labels], -1)

    images = (np.arange(8)[:, None, None] * np.ones((1, 2, 2))).astype(np.uint8)
    seen = []
    for part in range(3):
        run_part = functools.partial(run, (images, np.arange(8) * 10), Flatten(), steps=8, batch_size=2)
        seen.append(run_part(augment=augment, loss=lambda _, label, part=part: label[part].astype(jnp.float32))[1])
    places, epochs, labels = (part["loss"] for part in seen)
    np.testing.assert_array_equal(epochs, [0] * 4 + [1] * 4)
    np.testing.assert_allclose(labels, 10 * places)
    assert np.sum(places[:4]) == pytest.approx(14)


def test_augment_draws_anew_in_every_step():
    def augment(key, batch):
        return batch.images, jax.random.normal(key, (len(batch.images),))

    history = run(net=Flatten(), augment=augment, loss=lambda _, label: label, steps=8)[1]
    assert len(np.unique(history["loss"])) == 8


def test_batch_norm_is_trained_over_the_batch():
    net = Chain(Conv(2, 2), BatchNorm(), Flatten(), Dense(2))
    params, history = run(net=net, steps=30, optimizer=optax.adam(0.1))
    assert history["loss"][-1] < history["loss"][0]
    np.testing.assert_array_equal(params["batch_norm1"]["mean"], 0)


@pytest.mark.parametrize("steps_per_call", [None, 1, 4])
@pytest.mark.parametrize("data", [(IMAGES, LABELS), sample], ids=["arrays", "sample"])
def test_the_step_is_traced_once(data, steps_per_call):
    traced = []

    def loss(scores, label):
        traced.append(label)
        return optax.softmax_cross_entropy_with_integer_labels(scores, label)

    run(data, loss=loss, optimizer=optax.adam(0.1), steps=26, steps_per_call=steps_per_call)
    assert len(traced) == 1


@pytest.mark.parametrize("data", [(IMAGES, LABELS), sample], ids=["arrays", "sample"])
def test_steps_per_call_change_nothing(data):
    net = Chain(Flatten(), Dropout(0.5), Dense(2))
    options = {"net": net, "steps": 23, "optimizer": optax.adam(0.1)}
    expected, losses = run(data, steps_per_call=1, **options)
    for steps_per_call in (4, 23, 100, None):
        params, history = run(data, steps_per_call=steps_per_call, **options)
        chex.assert_trees_all_equal(history, losses)
        chex.assert_trees_all_equal(params, expected)


@pytest.mark.parametrize("data", [(IMAGES, LABELS), sample], ids=["arrays", "sample"])
def test_the_loop_moves_nothing_between_host_and_device_unasked(monkeypatch, data):
    calls, guarded = [], jax.jit

    def jit(function, **options):
        compiled = guarded(function, **options)

        def call(*arguments):
            calls.append(function.__name__)
            with jax.transfer_guard("disallow"):
                return compiled(*arguments)

        return call if function.__name__ == "run" else compiled

    monkeypatch.setattr("cnn_jax.training.jax.jit", jit)
    run(data, steps=30, steps_per_call=10)
    assert calls == ["run"] * 3


def test_mixed_precision_computes_in_16_bits_and_keeps_parameters_in_32():
    seen = []

    def watch(params, image, train=False, **_):
        seen.extend([(params["kernel"].dtype, image.dtype)] if train else [])
        return NET.apply({"dense1": params}, image)

    net = Layer(lambda key, shape: NET.init(key, shape)["dense1"], watch)
    run((np.ones((16, 2, 2), np.uint8), LABELS[:16]), net=net, compute_dtype=jnp.bfloat16)
    params, history = run(net=net, compute_dtype=jnp.bfloat16, optimizer=optax.adam(0.1), steps=60)
    assert set(seen) == {(jnp.dtype("bfloat16"),) * 2}
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert history["loss"].dtype == np.float32
    assert history["accuracy"][-10:].mean() > 0.95


def test_mixed_precision_reads_letters_as_well():
    draw = functools.partial(xo.draw, size=20, **dict.fromkeys(xo.CLEAN, 0.5))
    letters, labels = jax.jit(jax.vmap(draw))(jax.random.split(KEY, 3000))
    net, right = xo_net(features=(8, 8, 8)), {}
    for dtype in (None, jnp.bfloat16):
        params, _ = run(
            (letters[:2000], labels[:2000]),
            net=net,
            optimizer=optax.adam(0.003),
            steps=150,
            batch_size=64,
            compute_dtype=dtype,
        )
        scores = jax.jit(jax.vmap(net.apply, (None, 0)))(params, letters[2000:, ..., None])
        right[dtype] = float(jnp.mean(jnp.argmax(scores, -1) == labels[2000:]))
    assert right[None] > 0.95
    assert right[jnp.bfloat16] == pytest.approx(right[None], abs=0.01)


@pytest.mark.parametrize("fault", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_stops_with_its_step(fault):
    order = labels_seen(range(70), batch_size=1, steps=70)
    labels = np.arange(70.0)
    labels[int(order[59])] = labels[int(order[64])] = fault
    with pytest.raises(FloatingPointError, match=rf"loss is {fault} at step 60\b"):
        labels_seen(labels, batch_size=1, steps=70)


def test_parameters_that_are_not_finite_at_the_end_are_no_success():
    with pytest.raises(FloatingPointError, match="parameters are not finite after step 1"):
        run(optimizer=optax.sgd(np.nan), steps=1)


def test_progress_goes_to_stderr_in_plain_lines(capsys):
    run(steps=100, progress=True)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert [line.split()[:2] for line in lines] == [["training", f"{n}/100"] for n in (1, 51, 100)]
    assert "loss" in lines[0]
    assert "accuracy" in lines[0]


def test_no_progress_says_nothing(capfd):
    run(progress=False)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"data": (IMAGES, LABELS[:-1])}, ValueError, "data: .*64 images, got 63"),
        ({"batch_size": 65}, ValueError, "batch_size: .*64 images.*65"),
        ({"data": (IMAGES[:, 0], LABELS)}, ValueError, r"data: .*\(H, W\) or \(H, W, C\), got \(2,\)"),
        ({"data": (IMAGES[:, None, None], LABELS)}, ValueError, r"data: .*\(H, W\) or \(H, W, C\)"),
        ({"data": lambda key: (jnp.zeros(3), jnp.array(0))}, ValueError, r"data: .*got \(3,\)"),
        ({"steps": 0}, ValueError, "steps: .*0"),
        ({"steps": 2.5}, TypeError, "steps: .*2.5"),
        ({"batch_size": 0}, ValueError, "batch_size: .*0"),
        ({"steps_per_call": 0}, ValueError, "steps_per_call: .*0"),
        ({"compute_dtype": jnp.int32}, TypeError, "compute_dtype: .*int32"),
        ({"compute_dtype": "bits"}, TypeError, "compute_dtype: .*bits"),
        ({"data": sample, "augment": lambda key, batch: batch[:2]}, TypeError, "augment: .*data is a function"),
        ({"data": None}, TypeError, "data: .*NoneType"),
        ({"data": (IMAGES, LABELS, LABELS)}, TypeError, "data: .*tuple"),
        ({"data": ("text", LABELS)}, TypeError, r"data: "),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        run(**options)


def test_progress_prints_a_plain_line_at_the_start_and_after_every_tenth(capsys):
    with Progress("work", 200) as progress:
        for done in range(1, 201):
            progress.update(done, "note")
    lines = capsys.readouterr().err.splitlines()
    assert [int(line.split()[1].split("/")[0]) for line in lines] == [1, *range(20, 201, 20)]
    assert lines[-1].startswith("work  200/200  note")


def test_progress_of_few_steps(capsys):
    with Progress("work", 3) as progress:
        for done in range(1, 4):
            progress.update(done)
    assert len(capsys.readouterr().err.splitlines()) == 3


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress("work", 7) as progress:
        progress.update(7, "a note")
    assert all(text in sys.stderr.getvalue() for text in ("work", "7/7", "a note"))


def test_progress_without_rich_is_plain_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with Progress("work", 7) as progress:
        progress.update(7)
    assert sys.stderr.getvalue().startswith("work  7/7")


@pytest.mark.parametrize(
    "rule",
    [
        optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(3)), optax.sgd(0.1)),
        optax.contrib.prodigy(),
        optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau()),
    ],
)
def test_optimizers_that_keep_the_parameters_or_ask_for_the_loss(rule):
    _, history = run(optimizer=rule, steps=3, steps_per_call=2)
    assert np.isfinite(history["loss"]).all()


def test_several_integer_labels_an_image_have_no_accuracy():
    def loss(scores, label):
        return jnp.mean(optax.sigmoid_binary_cross_entropy(scores, label.astype(scores.dtype)))

    _, history = run((IMAGES, np.stack([LABELS, 1 - LABELS], axis=1)), loss=loss, steps=2)
    assert list(history) == ["loss"]
