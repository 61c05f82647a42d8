"""Receptive fields and patches against the textbook's recursion, and against the support of gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax as cnn
from cnn_jax import nets
from cnn_jax.receptive_field import patch_grid, receptive_field
from tests.helpers.sample_networks import NESTED


def textbook_field(*steps):
    """The textbook's recursion for (window, stride, dilation): r += (window - 1) dilation jump, jump *= stride."""
    field = 1
    jump = 1
    for window, stride, dilation in steps:
        field += (window - 1) * dilation * jump
        jump *= stride
    return field


STACKS = [
    [(3, 1, 1)],
    [(2, 2, 1)],
    [(3, 1, 2), (3, 1, 4)],
    [(5, 2, 1), (2, 2, 1), (3, 1, 3)],
    [(1, 3, 1), (4, 2, 1), (2, 1, 2)],
    [(3, 1, 1), (2, 2, 1)] * 3,
]
QUICK = [(STACKS[3], "VALID"), (STACKS[4], "SAME")]
THOROUGH = [(steps, padding) for steps in STACKS for padding in ("VALID", "SAME") if (steps, padding) not in QUICK]


@pytest.mark.parametrize(
    ("steps", "padding"), [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in THOROUGH)]
)
def test_receptive_fields_of_stacks(steps, padding):
    layers = []
    for window, stride, dilation in steps:
        if window == stride == 2:
            layers += [cnn.Activation(jax.nn.relu), cnn.MaxPool(padding=padding)]
        else:
            options = {"stride": (stride, 1), "dilation": (dilation, 1), "padding": padding}
            layers += [cnn.Conv(3, (window, 3), **options)]
    fields = receptive_field(cnn.Chain(*layers), (150, 100, 2))
    names = [name for name in fields if not name.startswith("relu")]
    for i, name in enumerate(names):
        column_steps = [(2, 2, 1) if step[:2] == (2, 2) else (3, 1, 1) for step in steps[: i + 1]]
        assert fields[name] == (textbook_field(*steps[: i + 1]), textbook_field(*column_steps))


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
        (cnn.match, "shift"),
        (cnn.cosine, "auto"),
        *(
            pytest.param(score, method, marks=pytest.mark.slow)
            for score, method in (
                (cnn.match, "conv"),
                (cnn.match, "fft"),
                (cnn.zncc, "fft"),
                (cnn.squared_difference, "auto"),
                (cnn.sharpened_cosine, "auto"),
            )
        ),
    ],
)
def test_scores_depend_on_their_window(score, method):
    feature = jax.random.normal(jax.random.key(1), (6, 9))
    assert receptive_field(lambda image: score(image, feature, method=method), (40, 50)) == (6, 9)


@pytest.mark.parametrize(
    ("size", "rows"),
    [(9, 9), (8, 8), pytest.param(17, 9, marks=pytest.mark.slow), pytest.param(3, 3, marks=pytest.mark.slow)],
)
def test_the_field_ends_at_the_border_of_a_small_image(size, rows):
    blur = functools.partial(cnn.avg_pool, window=9, stride=1, padding="SAME")
    assert receptive_field(blur, (size, 5)) == (rows, 5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((5, (8, 8)), TypeError, "function_or_net: .* got 5"),
        ((cnn.max_pool, 8), TypeError, "shape: .* got 8"),
        ((cnn.max_pool, (8,)), ValueError, "shape: .* got "),
        ((cnn.max_pool, (8, 0)), ValueError, "shape: .* got "),
        ((nets.xo_net(), (8, 8, 8, 1)), ValueError, "shape: .* got "),
        ((lambda image: (image, image), (8, 8)), TypeError, "one array of floats"),
        ((lambda image: image > 0, (8, 8)), TypeError, "one array of floats"),
        ((lambda image: jnp.log(-image), (8, 8)), ValueError, r"expected no NaN for an image in \[1/4, 1\], got NaN$"),
        ((cnn.max_pool, (1, 1)), ValueError, "window: expected at most"),
        ((cnn.Chain(cnn.Activation(jnp.arccosh)), (8, 8, 1)), ValueError, "got NaN in 'arccosh1'"),
    ],
)
def test_receptive_field_names_the_argument(arguments, error, message):
    with pytest.raises(error, match=message):
        receptive_field(*arguments)


def init(net, key, shape):
    """Parameters of a net, whose BatchNorms have the variance 1."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.abs(leaf) if path[-1] == jax.tree_util.DictKey("variance") else leaf,
        net.init(key, shape),
    )


def gradient_support(net, shape, stage, positions):
    """Rows and columns of the image with a gradient, for outputs of a stage, over 16 random networks and images."""

    @jax.jit
    @jax.vmap
    def draw(key):
        return init(net, key, shape), jax.random.normal(key, shape)

    @jax.jit
    def gradients(params, images, y, x):
        def gradient(params, image):
            return jax.grad(lambda image: net.stages(params, image)[stage][y, x].sum())(image)

        return jax.vmap(gradient)(params, images)

    params, images = draw(jax.random.split(jax.random.key(0), 16))
    for y, x in positions:
        has_gradient = np.any(np.asarray(gradients(params, images, y, x)) != 0, axis=(0, -1))
        yield np.flatnonzero(has_gradient.any(1)), np.flatnonzero(has_gradient.any(0))


SMALL = cnn.Chain(cnn.Conv(2, 3, padding="SAME", stride=2), cnn.Activation(jnp.tanh), cnn.AvgPool(padding="CEIL"))


@pytest.mark.parametrize(
    ("net", "shape", "stage"),
    [
        pytest.param(SMALL, (10, 13, 1), "avg_pool1", id="small"),
        pytest.param(nets.xo_net(features=(2, 2)), (20, 22, 1), "max_pool2", id="xo_net", marks=pytest.mark.slow),
        pytest.param(nets.lenet5(), (28, 28, 1), "avg_pool2", id="lenet5", marks=pytest.mark.slow),
        pytest.param(nets.resnet9(features=1), (32, 32, 3), "residual1", id="resnet9", marks=pytest.mark.slow),
    ],
)
def test_patches_are_the_support_of_the_gradient(net, shape, stage):
    size, rows, columns = patch_grid(net, shape, stage)
    params = init(net, jax.random.key(0), shape)
    assert receptive_field(lambda image: net.stages(params, image)[stage], shape) == size
    assert cnn.cost(net, shape).stages[stage].shape[:2] == (len(rows), len(columns))
    positions = [(0, 0), (1, 2), (len(rows) - 1, len(columns) - 1)]
    for (y, x), support in zip(positions, gradient_support(net, shape, stage, positions), strict=True):
        starts = rows[y], columns[x]
        for axis in (0, 1):
            assert support[axis][0] == max(starts[axis], 0)
            assert support[axis][-1] == min(starts[axis] + size[axis], shape[axis]) - 1


def test_patches_are_found_for_lists_too():
    assert patch_grid(SMALL, [10, 13, 1], "avg_pool1") is patch_grid(SMALL, (10, 13, 1), "avg_pool1")


def test_outputs_that_depend_on_no_pixel():
    bordered = patch_grid(cnn.Conv(2, (1, 1), padding=((2, 2), (0, 0))), (5, 4, 1), "conv")
    assert bordered.size == (1, 1)
    assert list(bordered.rows[2:-2]) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match=r"stage: 'zeros_like1?' does not depend on the image"):
        patch_grid(cnn.Activation(jnp.zeros_like), (5, 4, 1), "zeros_like")


def test_receptive_fields_are_found_while_something_is_traced():
    net = nets.xo_net(features=(2,))

    @jax.jit
    def traced(image):
        return receptive_field(net, (8, 8, 1))["max_pool1"][0] * image

    assert float(traced(1.0)) == 4.0
