"""The parts of a run: its key, its first state, and what validates."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_jax._batches import ArrayBatches, StreamBatches
from cnn_jax._run_setup import LABELS_HINT, Setup, initial_state, run_key
from cnn_jax._sharding import Placement
from cnn_jax._train_state import TrainState
from cnn_jax.layers import Chain, Dense, Flatten
from cnn_jax.norms import BatchNorm
from tests.helpers.streams import CountingStream

KEY = jax.random.key(0)
NET = Chain(Flatten(), Dense(2))
PARAMS = NET.init(KEY, (1, 1, 1))
OPTIMIZER = optax.adam(0.1)
STATE = TrainState.create(PARAMS, OPTIMIZER, KEY)._replace(step=jnp.int32(3))


def arrays(labels=(0, 1, 0, 1)):
    return ArrayBatches((np.ones((4, 1, 1)), np.array(labels)), 2, KEY, None, Placement())


def test_a_state_brings_its_key():
    assert run_key(None, STATE, None, 4) is KEY
    assert run_key(jax.random.key(0), STATE, None, 4) is KEY
    assert run_key(KEY, None, PARAMS, 4) is KEY


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((None, None, None, 4), TypeError, "key: expected a random key, .* got None"),
        ((jax.random.key(1), STATE, None, 4), ValueError, "key: expected None or the key of state="),
        ((None, STATE, PARAMS, 4), ValueError, "params: expected None, got parameters beside those of state="),
        ((None, STATE, None, 3), ValueError, "steps: expected more than the 3 of state=, which count too, got 3"),
        ((None, PARAMS, None, 4), TypeError, "state: expected a TrainState, got dict"),
    ],
)
def test_a_state_that_does_not_go_with_the_other_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        run_key(*arguments)


def test_the_first_state_shares_no_memory_with_what_was_given():
    for given in ({"params": PARAMS, "state": None}, {"params": None, "state": STATE}):
        state = initial_state(NET, OPTIMIZER, **given, key=KEY, source=arrays())
        chex.assert_trees_all_equal(state.params, PARAMS)
        jax.tree.map(lambda leaf: leaf.delete(), state)
    assert not PARAMS["dense1"]["bias"].is_deleted()
    assert not KEY.is_deleted()


def test_a_state_continues_at_its_position_in_a_stream():
    source = StreamBatches(CountingStream(), 2, KEY, None, Placement())
    source.seek(2**40)
    position = source.export_position()
    source.seek(0)
    initial_state(NET, OPTIMIZER, None, STATE._replace(data_state=position), KEY, source)
    assert source.position == 2**40


@pytest.mark.parametrize("optimizer", [optax.sgd(0.1), optax.chain(optax.adam(0.1), optax.trace(0.9))])
def test_a_state_of_another_optimizer_is_refused(optimizer):
    with pytest.raises(ValueError, match="state: expected a state of optimizer=, got that of another optimizer"):
        initial_state(NET, optimizer, None, STATE, KEY, arrays())


def setup_of(net=NET, source=None, **options):
    params = net.init(KEY, (1, 1, 1))
    defaults = {"batch_size": 2, "loss": optax.softmax_cross_entropy_with_integer_labels}
    return Setup(net=net, params=params, source=source or arrays(), placement=Placement(), **(defaults | options))


def test_labels_that_are_no_classes_are_refused():
    with pytest.raises(ValueError, match=f"data: expected labels from 0 to 1, got 0 to 2; {LABELS_HINT}"):
        setup_of(source=arrays((0, 1, 2, 1))).check_labels()
    setup_of(source=arrays((0, 1, 2, 1)), loss=lambda logits, label: jnp.sum(logits)).check_labels()


VALIDATION = (np.ones((3, 1, 1), np.float32), np.array([0, 1, 1]))


def test_validation_calibrates_and_evaluates():
    net = Chain(BatchNorm(), Flatten(), Dense(2))
    setup = setup_of(net)
    metrics = setup.make_validation(VALIDATION, setup.make_calibration())(net.init(KEY, (1, 1, 1)))
    # The images are their own mean, so that the logits are the biases, which are 0.
    assert metrics == {"loss": pytest.approx(np.log(2), rel=1e-6), "accuracy": pytest.approx(1 / 3)}


def test_batch_norm_cannot_be_validated_on_a_stream():
    net = Chain(BatchNorm(), Flatten(), Dense(2))
    setup = setup_of(net, StreamBatches(CountingStream(), 2, KEY, None, Placement()))
    assert setup.make_calibration() is None
    with pytest.raises(ValueError, match="validation: expected None for a stream and BatchNorm"):
        setup.make_validation(VALIDATION, None)


def test_validation_labels_must_suit_the_default_loss():
    images, labels = VALIDATION
    with pytest.raises(ValueError, match="validation: expected labels from 0 to 1, got 1 to 2"):
        setup_of().make_validation((images, labels + 1), None)
    with pytest.raises(ValueError, match=r"validation: expected as many labels as images \(3\), got 2"):
        setup_of().make_validation((images, labels[:2]), None)
