"""The logit that attribution maps explain: which it is, and which labels are refused."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax import BatchNorm, explain
from cnn_jax._logits import check_label, explain_logit, logit_function
from cnn_jax.layers import Activation, Chain, Flatten

NET = Chain(Flatten())
IMAGE = np.array([[[2.0], [5.0], [3.0]]], np.float32)


def logit_of_doubled_image(net, params, image, label, factor, *, power):
    return logit_function(net, params, image, label)(factor * image) ** power


@pytest.mark.parametrize(("label", "logit"), [(None, 100), (0, 16), (np.int64(2), 36), (jnp.int32(2), 36)])
def test_the_logit_is_the_labels_or_the_largest_of_the_image(label, logit):
    assert explain_logit(logit_of_doubled_image, NET, {}, IMAGE, label, 2.0, power=2) == logit


def test_a_traced_label_is_clipped():
    explained = jax.jit(lambda label: explain_logit(logit_of_doubled_image, NET, {}, IMAGE, label, 2.0, power=1))
    assert [float(explained(label)) for label in (1, 7)] == [10, 6]


@pytest.mark.parametrize(
    ("label", "error", "message"),
    [
        (3, ValueError, "label: expected 0 to 2, got 3"),
        (-1, ValueError, "label: expected 0 to 2, got -1"),
        (True, TypeError, "label: expected an int from 0 to 2, got True"),
        (1.0, TypeError, "label: expected an int from 0 to 2, got 1.0"),
    ],
)
def test_wrong_labels_are_refused(label: Any, error, message):
    with pytest.raises(error, match=message):
        check_label(label, 3)
    with pytest.raises(error, match=message):
        explain_logit(logit_of_doubled_image, NET, {}, IMAGE, label, 2.0, power=1)


@pytest.mark.parametrize("label", [None, 0])
def test_the_output_is_a_vector(label):
    with pytest.raises(ValueError, match=r"net: expected a network whose output is a vector .*, got shape \(1, 3, 1\)"):
        explain_logit(logit_of_doubled_image, Activation(jnp.negative), {}, IMAGE, label, 2.0, power=1)


def test_a_network_whose_statistics_were_never_taken_is_not_explained():
    net = Chain(BatchNorm(), Flatten())
    params = net.init(jax.random.key(0), (4, 4, 2))
    image = jnp.ones((4, 4, 2))
    for explain_it in (explain.saliency, explain.stages):
        with pytest.raises(ValueError, match=r"params: expected batch_norm1/variance .* never taken; call calibrate"):
            explain_it(net, params, image)
