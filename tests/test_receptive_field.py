"""Receptive fields and patches against the textbook's recursion, and against the support of gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax as cnn
from cnn_jax import nets
from cnn_jax.receptive_field import patch_grid, receptive_field
from tests.test_costs import NESTED


def field(*steps):
    """The textbook's recursion for (window, stride, dilation): r += (window - 1) dilation jump, jump *= stride."""
    reach, jump = 1, 1
    for window, stride, dilation in steps:
        reach += (window - 1) * dilation * jump
        jump *= stride
    return reach


STACKS = [
    [(3, 1, 1)],
    [(2, 2, 1)],
    [(3, 1, 2), (3, 1, 4)],
    [(5, 2, 1), (2, 2, 1), (3, 1, 3)],
    [(1, 3, 1), (4, 2, 1), (2, 1, 2)],
    [(3, 1, 1), (2, 2, 1)] * 3,
]


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize("steps", STACKS)
def test_receptive_fields_of_stacks(steps, padding):
    layers = []
    for window, stride, dilation in steps:
        if window == stride == 2:
            layers += [cnn.Activation(jax.nn.relu), cnn.MaxPool(padding=padding)]
        else:
            options = {"stride": (stride, 1), "dilation": (dilation, 1), "padding": padding}
            layers += [cnn.Conv(3, (window, 3), **options)]
    fields = receptive_field(cnn.Chain(*layers), (150, 100, 2))
    named = [name for name in fields if not name.startswith("relu")]
    for i, name in enumerate(named):
        across = [(2, 2, 1) if step[:2] == (2, 2) else (3, 1, 1) for step in steps[: i + 1]]
        assert fields[name] == (field(*steps[: i + 1]), field(*across))


def test_receptive_fields_of_a_network():
    fields = receptive_field(NESTED, (40, 41, 2))
    assert fields == {
        "conv1": (3, 3),
        "residual1/conv1": (5, 5),
        "residual1/relu1": (5, 5),
        "residual1/conv2": (5, 5),
        "residual1/sum": (5, 5),
        "residual1": (5, 5),
        "max_pool1": (6, 6),
        "dropout1": (6, 6),
        "match1": (10, 10),
        "flatten1": (40, 41),
        "dense1": (40, 41),
    }


@pytest.mark.parametrize(
    ("function", "shape", "expected"),
    [
        (lambda image: image, (9, 7), (1, 1)),
        (lambda image: jnp.zeros((3, 3)), (9, 7), (0, 0)),
        (lambda image: image[0], (9, 7), (1, 7)),
        (lambda image: image[2:5, ::3].ravel(), (9, 7), (3, 7)),
        (lambda image: image - image.mean(), (9, 7), (9, 7)),
        (lambda image: image.sum(axis=0), (9, 7), (9, 7)),
        (lambda image: jnp.where(image > 0.5, 1.0, 0.0), (9, 7), (0, 0)),
        (lambda image: jnp.roll(image, 3, axis=1) + image, (9, 9, 2), (1, 4)),
        (cnn.global_avg_pool, (9, 7, 2), (9, 7)),
        (lambda image: cnn.window_sum(image, (4, 6), stride=3), (33, 32), (4, 6)),
        (jax.jit(lambda image: cnn.avg_pool(image, window=5, stride=2, padding="SAME")), (30, 30, 3), (5, 5)),
        (functools.partial(cnn.max_abs_pool, padding="SAME"), (1, 1), (1, 1)),
    ],
)
def test_receptive_fields_of_functions(function, shape, expected):
    assert receptive_field(function, shape) == expected


@pytest.mark.parametrize(
    ("score", "method"),
    [
        (cnn.match, "conv"),
        (cnn.match, "shift"),
        (cnn.match, "fft"),
        (cnn.cosine, "auto"),
        (cnn.zncc, "fft"),
        (cnn.squared_difference, "auto"),
        (cnn.sharpened_cosine, "auto"),
    ],
)
def test_scores_see_their_window(score, method):
    feature = jax.random.normal(jax.random.key(1), (6, 9))
    assert receptive_field(lambda image: score(image, feature, method=method), (40, 50)) == (6, 9)


def test_a_small_image_cuts_the_field_off():
    blur = functools.partial(cnn.avg_pool, window=9, stride=1, padding="SAME")
    sizes = (17, 9, 8, 3)
    assert [receptive_field(blur, (size, 5)) for size in sizes] == [(9, 5), (9, 5), (8, 5), (3, 5)]


@pytest.mark.parametrize(
    ("arguments", "error", "complaint"),
    [
        ((5, (8, 8)), TypeError, "function_or_net: .* got 5"),
        ((cnn.max_pool, 8), TypeError, "shape: .* got 8"),
        ((cnn.max_pool, (8,)), ValueError, "shape: .* got "),
        ((cnn.max_pool, (8, 0)), ValueError, "shape: .* got "),
        ((nets.xo_net(), (8, 8, 8, 1)), ValueError, "shape: .* got "),
        ((lambda image: (image, image), (8, 8)), TypeError, "one array of floats"),
        ((lambda image: image > 0, (8, 8)), TypeError, "one array of floats"),
        ((lambda image: jnp.log(-image), (8, 8)), ValueError, "expected no NaN"),
        ((cnn.max_pool, (1, 1)), ValueError, "window: expected at most"),
        ((cnn.Chain(cnn.Activation(jnp.arccosh)), (8, 8, 1)), ValueError, "'arccosh1'"),
    ],
)
def test_receptive_field_names_what_is_wrong(arguments, error, complaint):
    with pytest.raises(error, match=complaint):
        receptive_field(*arguments)


def support(net, shape, stage, places):
    """Which rows and columns of images of noise the gradients of some outputs of a stage are not 0 in."""

    @jax.jit
    @jax.vmap
    def random(key):
        return net.init(key, shape), jax.random.normal(key, shape)

    @jax.jit
    def gradients(drawn, y, x):
        def one(params, image):
            return jax.grad(lambda image: net.stages(params, image)[stage][y, x].sum())(image)

        return jax.vmap(one)(*drawn)

    drawn, found = random(jax.random.split(jax.random.key(0), 16)), {}
    for y, x in places:
        seen = np.any(np.asarray(gradients(drawn, y, x)) != 0, axis=(0, -1))
        found[y, x] = tuple(np.flatnonzero(seen.any(axis)) for axis in (1, 0))
    return found


@pytest.mark.parametrize(
    ("net", "shape", "stage"),
    [
        (nets.xo_net(features=(2, 2)), (20, 22, 1), "max_pool2"),
        (nets.lenet5(), (28, 28, 1), "avg_pool2"),
        (nets.resnet9(features=1), (32, 32, 3), "residual1"),
    ],
    ids=["xo_net", "lenet5", "resnet9"],
)
def test_windows_are_the_support_of_the_gradient(net, shape, stage):
    (height, width), rows, columns = patch_grid(net, shape, stage)
    params = net.init(jax.random.key(0), shape)
    assert receptive_field(lambda image: net.stages(params, image)[stage], shape) == (height, width)
    assert cnn.cost(net, shape).stages[stage].shape[:2] == (len(rows), len(columns))
    for (y, x), seen in support(net, shape, stage, [(0, 0), (1, 2), (len(rows) - 1, len(columns) - 1)]).items():
        for found, first, size, most in zip(seen, (rows[y], columns[x]), (height, width), shape, strict=False):
            assert found[0] == max(first, 0)
            assert found[-1] == min(first + size, most) - 1


def test_outputs_that_look_at_no_pixel():
    bordered = patch_grid(cnn.Conv(2, (1, 1), padding=((2, 2), (0, 0))), (5, 4, 1), "conv")
    assert bordered.size == (1, 1)
    assert list(bordered.rows[2:-2]) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match=r"stage: .* 'zeros_like'"):
        patch_grid(cnn.Activation(jnp.zeros_like), (5, 4, 1), "zeros_like")


def test_receptive_fields_are_found_while_something_is_traced():
    net = nets.xo_net(features=(2,))

    @jax.jit
    def traced(image):
        return receptive_field(net, (8, 8, 1))["max_pool1"][0] * image

    assert float(traced(1.0)) == 4.0
