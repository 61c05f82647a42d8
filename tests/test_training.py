"""Training: what `fit` learns, reports, returns and refuses."""

import contextlib
import functools
import signal
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cnn_jax import training
from cnn_jax._sharding import key_data
from cnn_jax.data import xo
from cnn_jax.evaluation import evaluate, predict
from cnn_jax.layers import Chain, Conv, Dense, Dropout, Flatten, Layer
from cnn_jax.nets import xo_net
from cnn_jax.norms import BatchNorm
from cnn_jax.training import TrainingInterrupted, fit, load_checkpoint
from tests.helpers.streams import CountingStream

pytestmark = pytest.mark.usefixtures("compile_cache")

KEY = jax.random.key(0)
NET = Chain(Flatten(), Dense(2))
IMAGES = np.random.default_rng(0).normal(size=(64, 2, 2)).astype(np.float32)
LABELS = (IMAGES.sum((1, 2)) > 0).astype(np.int32)


def run(data=(IMAGES, LABELS), net: Layer = NET, **options):
    defaults = {"optimizer": optax.sgd(0.5), "steps": 4, "batch_size": 16, "key": KEY, "progress": False}
    return fit(net, data, **(defaults | options))


def label_as_loss(logits, label):
    """Makes the history show the labels of every batch."""
    return label.astype(jnp.float32)


def sample(key):
    image = jax.random.normal(key, (2, 2))
    return image, (jnp.sum(image) > 0).astype(jnp.int32)


ARRAYS_AND_SAMPLES = pytest.mark.parametrize("data", [(IMAGES, LABELS), sample], ids=["arrays", "sample"])


@ARRAYS_AND_SAMPLES
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
    first, same, other = (run(net=net, key=jax.random.key(seed))[0] for seed in (0, 0, 1))
    chex.assert_trees_all_equal(first, same)
    assert not np.array_equal(first["dense1"]["kernel"], other["dense1"]["kernel"])


def test_given_params_are_the_start_and_stay_untouched():
    start = {"dense1": {"kernel": jnp.ones((4, 2)), "bias": jnp.zeros(2)}}
    _, history = run(params=start, steps=2)
    assert history["loss"][0] == pytest.approx(np.log(2))
    np.testing.assert_array_equal(start["dense1"]["kernel"], 1)
    np.testing.assert_array_equal(start["dense1"]["bias"], 0)


@pytest.mark.parametrize("options", [{}, {"loss": lambda logits, label: logits.sum()}], ids=["default", "own loss"])
def test_params_of_another_network_are_refused(options):
    start = {"dense1": {"kernel": jnp.ones((4, 3)), "bias": jnp.zeros(3)}}
    with pytest.raises(ValueError, match=r"params: expected dense1/bias of shape \(2,\) .*, got \(3,\)"):
        run(params=start, steps=1, **options)


def test_history_is_taken_before_the_update():
    images = np.ones((4, 1, 1), np.float32)
    labels = np.zeros(4, np.int32)
    start = {"dense1": {"kernel": jnp.array([[0.0, 1.0]]), "bias": jnp.zeros(2)}}
    _, history = run((images, labels), params=start, batch_size=4, steps=3, optimizer=optax.sgd(10.0))
    assert history["loss"][0] == pytest.approx(np.log(1 + np.e))
    assert list(history["accuracy"]) == [0, 1, 1]


def test_every_epoch_sees_every_image_once_in_a_new_order():
    labels = np.arange(8, dtype=np.float32)
    images = np.zeros((8, 1, 1), np.float32)
    _, history = run((images, labels), Flatten(), loss=label_as_loss, batch_size=1, steps=24)
    epochs = history["loss"].reshape(3, 8)
    np.testing.assert_array_equal(np.sort(epochs), [range(8)] * 3)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_channels_are_optional_and_labels_may_be_anything():
    shapes = []

    def loss(logits, label):
        shapes.append((logits.shape, label.shape))
        return jnp.mean((logits - label) ** 2)

    targets = np.stack([LABELS, 1 - LABELS], axis=1).astype(np.float32)
    _, history = run((IMAGES[..., None], targets), loss=loss, steps=1)
    assert shapes == [((2,), (2,))]
    assert list(history) == ["loss"]


def test_what_augment_returns_is_learned_from():
    def augment(key, batch):
        return batch.images, batch.indices + 100 * batch.epoch + 1000 * batch.labels

    _, history = run(net=Flatten(), augment=augment, loss=label_as_loss, batch_size=64, steps=2)
    np.testing.assert_allclose(history["loss"], np.arange(64).mean() + 1000 * LABELS.mean() + np.array([0, 100]))


def test_a_stream_is_learned_from_in_its_order():
    _, history = run(CountingStream(), Flatten(), loss=label_as_loss, batch_size=4, steps=3)
    np.testing.assert_array_equal(history["loss"], [1.5, 5.5, 9.5])


def test_a_resumed_run_continues_in_the_stream(tmp_path):
    options = {"net": Flatten(), "loss": label_as_loss, "batch_size": 4, "save_every": 2, "checkpoint_dir": tmp_path}
    for steps in (3, 5):
        _, history = run(CountingStream(), steps=steps, **options)
        np.testing.assert_array_equal(history["loss"], np.arange(steps) * 4 + 1.5)


def test_batch_norm_is_trained_over_the_batch():
    net = Chain(BatchNorm(), Flatten(), Dense(2))
    images = IMAGES * np.linspace(0.1, 3, len(IMAGES), dtype=np.float32)[:, None, None]  # each of its own variance
    params = net.init(KEY, (2, 2, 1))
    trained, history = run((images, LABELS), net=net, params=params, steps=1, batch_size=len(images))
    normalized = (images - images.mean()) / np.sqrt(images.var() + 1e-5)
    logits = normalized.reshape(-1, 4).astype(np.float64) @ np.asarray(params["dense1"]["kernel"])
    log_probabilities = logits - np.logaddexp(logits[:, :1], logits[:, 1:])
    np.testing.assert_allclose(history["loss"], -log_probabilities[np.arange(64), LABELS].mean(), rtol=1e-5)
    np.testing.assert_allclose(trained["batch_norm1"]["variance"], images.var(), rtol=1e-5)


def test_a_mesh_of_one_device_changes_nothing():
    mesh = Mesh(np.array(jax.devices()[:1]), ("batch",))
    chex.assert_trees_all_equal(run(mesh=mesh), run())


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_parameters_are_returned_on_the_mesh_that_was_given(kind):
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(kind,))
    params, _ = run(mesh=mesh, batch_size=4)
    assert {leaf.sharding for leaf in jax.tree.leaves(params)} == {NamedSharding(mesh, PartitionSpec())}
    chex.assert_trees_all_close(params, run(batch_size=4)[0], atol=1e-6)
    images = jax.device_put(IMAGES[:4], NamedSharding(mesh, PartitionSpec("batch")))
    logits = jax.jit(jax.vmap(NET.apply, (None, 0)))(params, images)
    np.testing.assert_allclose(logits, jax.vmap(NET.apply, (None, 0))(params, IMAGES[:4]), atol=1e-5)


@pytest.mark.parametrize("steps_per_call", [None, 1, 4])
@ARRAYS_AND_SAMPLES
def test_the_step_is_traced_once(data, steps_per_call):
    traced = []

    def loss(logits, label):
        traced.append(label)
        return optax.softmax_cross_entropy_with_integer_labels(logits, label)

    run(data, loss=loss, optimizer=optax.adam(0.1), steps=26, steps_per_call=steps_per_call)
    assert len(traced) == 1


@ARRAYS_AND_SAMPLES
def test_steps_per_call_change_nothing(data):
    net = Chain(Flatten(), Dropout(0.5), Dense(2))
    options = {"net": net, "steps": 23, "optimizer": optax.adam(0.1)}
    expected, losses = run(data, steps_per_call=1, **options)
    for steps_per_call in (4, 23, 100, None):
        params, history = run(data, steps_per_call=steps_per_call, **options)
        chex.assert_trees_all_equal(history, losses)
        chex.assert_trees_all_equal(params, expected)


@ARRAYS_AND_SAMPLES
def test_the_loop_moves_nothing_between_host_and_device_unasked(monkeypatch, data):
    calls = []
    unguarded = training.compile_steps

    def compile_steps(*arguments):
        run_steps = unguarded(*arguments)

        def guarded(*arguments):
            calls.append(arguments)
            with jax.transfer_guard("disallow"):
                return run_steps(*arguments)

        return guarded

    monkeypatch.setattr(training, "compile_steps", compile_steps)
    run(data, steps=30, steps_per_call=10)
    assert len(calls) == 3


def test_mixed_precision_learns_and_keeps_parameters_and_history_in_32_bits():
    params, history = run(compute_dtype=jnp.bfloat16, optimizer=optax.adam(0.1), steps=60)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert history["loss"].dtype == np.float32
    assert history["accuracy"][-10:].mean() > 0.95


@pytest.mark.slow
def test_mixed_precision_reads_letters_as_well():
    draw = functools.partial(xo.draw, size=20, **dict.fromkeys(xo.CLEAN, 0.5))
    letters, labels = jax.jit(jax.vmap(draw))(jax.random.split(KEY, 3000))
    net = xo_net(features=(8, 8, 8))
    accuracy = {}
    for dtype in (None, jnp.bfloat16):
        params, _ = run(
            (letters[:2000], labels[:2000]),
            net=net,
            optimizer=optax.adam(0.003),
            steps=150,
            batch_size=64,
            compute_dtype=dtype,
        )
        logits = jax.jit(jax.vmap(net.apply, (None, 0)))(params, letters[2000:, ..., None])
        accuracy[dtype] = float(jnp.mean(jnp.argmax(logits, -1) == labels[2000:]))
    assert accuracy[None] > 0.95
    assert accuracy[jnp.bfloat16] == pytest.approx(accuracy[None], abs=0.01)


@pytest.mark.parametrize("fault", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_stops_with_its_step(fault):
    labels = np.arange(8, dtype=np.float32)
    images = np.zeros((8, 1, 1), np.float32)
    options = {"net": Flatten(), "loss": label_as_loss, "batch_size": 1, "steps": 8}
    order = run((images, labels), **options)[1]["loss"]
    labels[int(order[5])] = fault
    with pytest.raises(FloatingPointError, match=rf"loss is {fault} at step 6;"):
        run((images, labels), **options)


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
        ({"data": (IMAGES, LABELS[:-1])}, ValueError, r"data: .*images \(64\), got 63"),
        ({"batch_size": 65}, ValueError, r"batch_size: .*images \(64\), got 65"),
        ({"data": (IMAGES[:, 0], LABELS)}, ValueError, r"data: .*\(H, W\) or \(H, W, C\), got shape \(2,\)"),
        ({"data": (IMAGES[:, None, None], LABELS)}, ValueError, r"data: .*\(H, W\) or \(H, W, C\)"),
        ({"data": lambda key: (jnp.zeros(3), jnp.array(0))}, ValueError, r"data: .*got shape \(3,\)"),
        ({"data": (IMAGES, LABELS + 1)}, ValueError, "data: expected labels from 0 to 1, got 1 to 2"),
        ({"data": (IMAGES, LABELS.astype(np.float32))}, TypeError, r"data: .*one integer label per image, .*loss="),
        ({"steps": 0}, ValueError, "steps: .*0"),
        ({"steps": 2**31}, ValueError, "steps: .*2147483648"),
        ({"steps": 2.5}, TypeError, "steps: .*2.5"),
        ({"batch_size": 0}, ValueError, "batch_size: .*0"),
        ({"steps_per_call": 0}, ValueError, "steps_per_call: .*0"),
        ({"save_every": 0}, ValueError, "save_every: .*0"),
        ({"compute_dtype": jnp.int32}, TypeError, "compute_dtype: .*int32"),
        ({"compute_dtype": "bits"}, TypeError, "compute_dtype: .*bits"),
        ({"mesh": 3}, TypeError, "mesh: .*int"),
        ({"data": sample, "augment": lambda key, batch: batch[:2]}, TypeError, "augment: .*data is a function"),
        ({"data": None}, TypeError, "data: .*None"),
        ({"data": (IMAGES, LABELS, LABELS)}, TypeError, "data: .*tuple"),
        ({"data": ("text", LABELS)}, TypeError, r"data: "),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        run(**options)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(3)), optax.sgd(0.1)),
        optax.contrib.prodigy(),
        optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau()),
    ],
    ids=["a random key in the state", "the parameters in the state", "asks for the loss"],
)
def test_optimizers_that_keep_the_parameters_or_ask_for_the_loss(optimizer):
    _, history = run(optimizer=optimizer, steps=3, steps_per_call=2)
    assert np.isfinite(history["loss"]).all()


def test_several_integer_labels_an_image_have_no_accuracy():
    def loss(logits, label):
        return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, label.astype(logits.dtype)))

    _, history = run((IMAGES, np.stack([LABELS, 1 - LABELS], axis=1)), loss=loss, steps=2)
    assert list(history) == ["loss"]


def test_a_user_finds_the_types_of_the_arguments_here():
    for name in training.__all__:
        assert getattr(training, name).__doc__ or name == "Data"
    assert isinstance(CountingStream(), training.BatchStream)


def test_a_missing_orbax_is_reported_before_the_data_are_opened(monkeypatch, tmp_path):
    def open_source(*args):
        raise AssertionError("opened")

    monkeypatch.setattr(training, "open_source", open_source)
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match=r"pip install 'cnn_jax\[train\]'"):
        run(checkpoint_dir=tmp_path)


def leaves_equal(first, second):
    for leaf, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(key_data(leaf), key_data(other))


@pytest.mark.parametrize("steps_per_call", [1, 4])
@pytest.mark.parametrize("data", [(IMAGES, LABELS), sample, CountingStream], ids=["arrays", "sample", "stream"])
def test_two_halves_are_one_whole_bit_for_bit(data, steps_per_call):
    options = {"steps_per_call": steps_per_call, "optimizer": optax.adamw(0.1)}
    if data is CountingStream:
        options |= {"loss": label_as_loss, "net": Chain(Flatten(), Dense(1), Dropout(0.5))}
    else:
        options |= {"net": Chain(Conv(2, 2), BatchNorm(), Flatten(), Dropout(0.5), Dense(2))}

    def opened():
        return data() if data is CountingStream else data

    whole = run(opened(), steps=23, **options)
    first = run(opened(), steps=6, **options)
    second = run(opened(), steps=23, state=first.state, key=None, **options)
    leaves_equal(second.params, whole.params)
    leaves_equal(second.state, whole.state)
    np.testing.assert_array_equal(np.concatenate([first[1]["loss"], second[1]["loss"]]), whole[1]["loss"])
    leaves_equal(first.state, run(opened(), steps=6, **options).state)  # it was not modified


def test_validation_and_callbacks_do_not_change_the_run():
    net = Chain(Conv(2, 2), BatchNorm(), Flatten(), Dropout(0.5), Dense(2))
    options = {"net": net, "steps": 12, "optimizer": optax.adam(0.1)}
    steps = []
    observed = run(
        validation=(IMAGES[:37], LABELS[:37]),
        validate_every=5,
        callback=lambda step, state, metrics: steps.append((step, sorted(metrics))),
        callback_every=4,
        steps_per_call=3,
        **options,
    )
    plain = run(**options)
    leaves_equal(observed.params, plain.params)
    np.testing.assert_array_equal(observed.history["loss"], plain.history["loss"])
    validated = ["accuracy", "loss", "validation_accuracy", "validation_loss"]
    assert steps == [(4, validated[:2]), (5, validated), (8, validated[:2]), (10, validated), (12, validated)]
    np.testing.assert_array_equal(observed.history["validation_step"], [5, 10, 12])
    expected = evaluate(net, observed.params, (IMAGES[:37], LABELS[:37]))
    assert observed.history["validation_loss"][-1] == pytest.approx(expected["loss"], rel=1e-5)
    assert observed.history["validation_accuracy"][-1] == pytest.approx(expected["accuracy"])


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_on_a_mesh_halves_and_validations_are_those_of_one_device(kind):
    mesh = jax.make_mesh((4,), ("b",), axis_types=(kind,))
    options = {"net": Chain(Conv(2, 2), BatchNorm(), Flatten(), Dense(2)), "optimizer": optax.sgd(0.1)}
    options |= {"validation": (IMAGES[:37], LABELS[:37]), "validate_every": 3}
    first = run(steps=5, mesh=mesh, **options)
    assert all(leaf.sharding.mesh == mesh for leaf in jax.tree.leaves(first.state))
    second = run(steps=9, mesh=mesh, state=first.state, **options)
    leaves_equal(second.params, run(steps=9, mesh=mesh, **options).params)
    one_device = run(steps=9, **options)
    chex.assert_trees_all_close(second.params, one_device.params, atol=1e-5)
    expected = one_device.history["validation_loss"][1:]
    np.testing.assert_allclose(second.history["validation_loss"], expected, atol=1e-5)


def test_a_callback_stops_the_run():
    trained = run(steps=40, callback=lambda step, state, metrics: step == 20, callback_every=10)
    assert len(trained.history["loss"]) == 20
    leaves_equal(trained.params, run(steps=20).params)


def smooth_cross_entropy(logits, label, *, alpha):
    labels = optax.smooth_labels(jax.nn.one_hot(label, logits.shape[-1]), alpha)
    return optax.softmax_cross_entropy(logits, labels)


@contextlib.contextmanager
def counted_compilations():
    """Yields a list that gets an entry for every program that XLA compiles."""
    compiled = []

    def listen(event, duration_secs, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield compiled
    jax.monitoring.unregister_event_duration_listener(listen)


@ARRAYS_AND_SAMPLES
def test_a_second_call_of_equal_shapes_compiles_nothing(data):
    def make_options(validated):
        return {
            "net": Chain(Conv(2, 2), BatchNorm(), Flatten(), Dense(2)),
            "optimizer": optax.adam(0.1),
            "loss": functools.partial(smooth_cross_entropy, alpha=0.1),
            "validation": (IMAGES[:validated], LABELS[:validated]),
            "validate_every": 3,
        }

    first = run(data, steps=5, **make_options(37))
    other = data if callable(data) else (IMAGES + 1, LABELS)
    with counted_compilations() as compiled:
        run(other, steps=8, **make_options(5))
        state = first.state
        for steps in (7, 10):
            state = run(data, steps=steps, state=state, key=None, **make_options(37)).state
    assert compiled == []


def test_a_nan_is_left_out_by_an_optimizer_that_skips_it():
    images = IMAGES.copy()
    images[3] = np.nan
    optimizer = optax.apply_if_finite(optax.sgd(0.5), max_consecutive_errors=5)
    trained = run((images, LABELS), optimizer=optimizer, steps=12)
    assert np.isnan(trained.history["loss"]).sum() == 3  # once an epoch of four batches
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trained.params))


def test_one_logit_and_a_binary_label_have_no_accuracy():
    def loss(logits, label):
        return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, label.astype(logits.dtype)))

    trained = run(net=Chain(Flatten(), Dense(1)), loss=loss, validation=(IMAGES, LABELS), steps=2)
    assert sorted(trained.history) == ["loss", "validation_loss", "validation_step"]


def test_every_pixel_of_stored_images_may_have_a_label():
    labels = (IMAGES > 0).astype(np.int32)
    trained = run((IMAGES, labels), net=Conv(2, 1), optimizer=optax.adam(0.1), steps=60, validation=(IMAGES, labels))
    assert trained.history["accuracy"][-1] > 0.9
    assert trained.history["validation_accuracy"][-1] > 0.9


def test_a_signal_gives_back_what_was_learned_and_the_run_continues():
    def loss(logits, label):  # traced once, in the first step
        signal.raise_signal(signal.SIGINT)
        return optax.softmax_cross_entropy_with_integer_labels(logits, label)

    with pytest.raises(TrainingInterrupted, match="stopped by SIGINT after step 1") as caught:
        run(loss=loss, steps=9)
    assert len(caught.value.history["loss"]) == 1
    continued = run(state=caught.value.state, steps=9)
    leaves_equal(continued.params, run(steps=9).params)


def test_the_best_parameters_on_the_validation_data_are_kept(tmp_path):
    losses = []

    def callback(step, state, metrics):
        losses.append((metrics["validation_loss"], state.params))

    options = {"optimizer": optax.sgd(3.0), "validation": (IMAGES[:20], LABELS[:20]), "validate_every": 3}
    run(steps=30, callback=callback, callback_every=3, checkpoint_dir=tmp_path, **options)
    best = load_checkpoint(tmp_path, which="best")
    lowest, params = min(losses, key=lambda loss: loss[0])
    assert best.step < 30
    assert best.history["validation_loss"][-1] == pytest.approx(lowest)
    leaves_equal(best.params, params)


def test_calibration_may_be_left_out():
    net = Chain(Conv(2, 2), BatchNorm(), Flatten(), Dense(2))
    trained = run(net=net, calibrate=False)
    leaves_equal(trained.params, trained.state.params)
    with pytest.raises(ValueError, match="call calibrate"):
        predict(net, trained.params, IMAGES)


def test_the_result_is_a_pair_with_a_state():
    trained = run(steps=3)
    params, history = trained
    assert (params, history) == (trained.params, trained.history)
    assert int(trained.state.step) == 3
