"""Every public function of arrays is one compiled program, whoever calls it; a second call compiles nothing."""

import dataclasses
import functools
import gc
import inspect
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax as cnn
from cnn_jax import augment, explain, initializers, warping
from cnn_jax._programs import cached, compiled, program_of
from cnn_jax.data import xo
from tests.helpers.oracles import NAMES, noise

IMAGE, FEATURE, KERNEL = noise(0, 11, 13), noise(1, 3, 4), noise(2, 3, 2, 2, 3)
COLORS = noise(3, 11, 13, 2)
MASK = np.array([[True, True, False, True]] * 3)
LABEL = np.array([0.25, 0.75], np.float32)
KEY = jax.random.key(0)
NET = cnn.Chain(cnn.Conv(2), cnn.Activation(jax.nn.relu), cnn.MaxPool(), cnn.Flatten(), cnn.Dense(3))
PARAMS = jax.jit(lambda key: NET.init(key, (7, 8, 1)))(KEY)
SAMPLE = noise(4, 7, 8, 1)
NORM_NET = cnn.Chain(cnn.Conv(2), cnn.BatchNorm(), cnn.Conv(2), cnn.BatchNorm())
NORM_PARAMS = jax.jit(lambda key: NORM_NET.init(key, (7, 8, 1)))(KEY)

# One call of every public function of arrays. Options are lists where they can be, as users write them.
CALLS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "conv": (functools.partial(cnn.conv, stride=[2, 1], padding=[[1, 0], [0, 2]]), (COLORS, KERNEL)),
    "conv_transpose": (
        functools.partial(cnn.conv_transpose, stride=[2, 1], padding=[[1, 0], [0, 1]]),
        (COLORS, KERNEL),
    ),
    "window_sum": (functools.partial(cnn.window_sum, window=[3, 2]), (COLORS,)),
    **{name: (getattr(cnn, name), (IMAGE, FEATURE)) for name in NAMES},
    "find": (functools.partial(cnn.find, top_k=1), (IMAGE, FEATURE)),
    "zncc under a mask": (lambda *a: cnn.zncc(*a, mask=MASK, fill=1), (IMAGE, FEATURE)),
    "sharpened_cosine": (functools.partial(cnn.sharpened_cosine, q=0.1), (IMAGE, FEATURE)),
    "is_defined": (lambda image, feature: cnn.is_defined(image, feature, cnn.cosine), (IMAGE, FEATURE)),
    **{
        name: (functools.partial(getattr(cnn, name), padding="CEIL"), (COLORS,))
        for name in ("max_pool", "min_pool", "avg_pool", "max_abs_pool")
    },
    "global_avg_pool": (cnn.global_avg_pool, (COLORS,)),
    "peaks": (functools.partial(cnn.peaks, top_k=3, min_distance=[1, 2]), (IMAGE,)),
    "warping.resample": (warping.resample, (COLORS, IMAGE, IMAGE)),
    "warping.affine": (warping.affine, (COLORS, np.eye(2, 3))),
    "warping.affine_matrix": (lambda a, b: warping.affine_matrix(angle=a, shift=b), (np.float32(0.3), np.ones(2))),
    "warping.elastic": (warping.elastic, (COLORS, np.ones((2, 2, 2)))),
    "augment.affine": (augment.affine, (KEY, COLORS)),
    "augment.alternating_flip": (lambda *a: augment.alternating_flip(*a, epoch=1), (KEY, COLORS)),
    "augment.crop": (augment.crop, (KEY, COLORS)),
    "augment.cutmix": (lambda *a: augment.cutmix(a[0], a[1:3], a[3:]), (KEY, COLORS, LABEL, -COLORS, LABEL)),
    "augment.cutout": (functools.partial(augment.cutout, size=3), (KEY, COLORS)),
    "augment.elastic": (augment.elastic, (KEY, COLORS)),
    "augment.flip": (augment.flip, (KEY, COLORS)),
    "augment.mixup": (lambda *a: augment.mixup(a[0], a[1:3], a[3:]), (KEY, COLORS, LABEL, -COLORS, LABEL)),
    "augment.shift": (augment.shift, (KEY, COLORS)),
    "xo.draw": (functools.partial(xo.draw, size=9, label=1), (KEY,)),
    "explain.grad_cam": (functools.partial(explain.grad_cam, NET), (PARAMS, SAMPLE)),
    "explain.integrated_gradients": (functools.partial(explain.integrated_gradients, NET, steps=2), (PARAMS, SAMPLE)),
    "explain.kernels_as_images": (explain.kernels_as_images, (PARAMS,)),
    "explain.occlusion": (functools.partial(explain.occlusion, NET, window=[3, 2]), (PARAMS, SAMPLE)),
    "explain.saliency": (functools.partial(explain.saliency, NET, label=2), (PARAMS, SAMPLE)),
    "explain.smooth_grad": (lambda k, *a: explain.smooth_grad(k, NET, *a, samples=2), (KEY, PARAMS, SAMPLE)),
    "explain.stages": (functools.partial(explain.stages, NET), (PARAMS, SAMPLE)),
    "explain.top_activating_patches": (
        functools.partial(explain.top_activating_patches, NET, count=1, stage="conv1"),
        (PARAMS, SAMPLE[None]),
    ),
    "initializers.whitening": (lambda images: initializers.whitening(images, 2), (noise(5, 4, 6, 6, 1),)),
}
# Functions that measure the receptive field first.
MEASURING = {"explain.top_activating_patches"}
# Functions that take seconds to compile.
SLOW = {"augment.cutmix", "augment.mixup", "xo.draw"}
# Functions that cannot run under `jax.jit`.
CALLS_ON_THE_HOST = {
    "calibrate": (functools.partial(cnn.calibrate, NORM_NET), (NORM_PARAMS, SAMPLE[None])),
    "evaluate": (functools.partial(cnn.evaluate, NET), (PARAMS, (SAMPLE[None], jnp.zeros(1, int)))),
    "predict": (functools.partial(cnn.predict, NET), (PARAMS, SAMPLE[None])),
    "receptive_field": (lambda: cnn.receptive_field(NET, (7, 8, 1)), ()),
}
NO_FUNCTIONS_OF_ARRAYS = {
    "configure_cpu",
    "cost",
    "export",
    "fit",
    "load_checkpoint",
    "load_params",
    "save_params",
    "summary",
    "train_step",
}

compilations: list[str] = []


@pytest.fixture(autouse=True, scope="module")
def count_compilations() -> Iterator[None]:
    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compilations.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield
    jax.monitoring.unregister_event_duration_listener(listen)


def counted(call, *arguments):
    """The result of a call, and how many programs it compiled."""
    before = len(compilations)
    result = jax.block_until_ready(call(*arguments))
    return result, len(compilations) - before


def assert_trees_close(got, expected):
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def public_functions(module, prefix=""):
    """Names of a module's public functions; layers are made by functions with capital letters."""
    functions = {name: getattr(module, name) for name in module.__all__}
    return {f"{prefix}{name}" for name, value in functions.items() if inspect.isfunction(value) and name[0].islower()}


def test_no_function_of_arrays_is_missing_here():
    public = public_functions(cnn) | public_functions(warping, "warping.") | public_functions(augment, "augment.")
    public |= public_functions(explain, "explain.") - {"explain.receptive_field"}
    tested = CALLS.keys() | CALLS_ON_THE_HOST.keys()
    assert public - tested == NO_FUNCTIONS_OF_ARRAYS


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in CALLS])
def test_a_call_is_one_program_that_is_compiled_once(name):
    """The second call has new arrays of the same shapes."""
    function, arguments = CALLS[name]
    jax.clear_caches()
    arrays = jax.tree.map(jnp.asarray, arguments)
    first, compiled_first = counted(function, *arrays)
    again, compiled_again = counted(function, *jax.tree.map(jnp.array, arrays))
    assert compiled_first == 1 or name in MEASURING
    assert compiled_again == 0
    assert_trees_close(again, first)


@pytest.mark.parametrize("name", CALLS_ON_THE_HOST)
def test_a_second_call_on_the_host_compiles_nothing(name):
    function, arguments = CALLS_ON_THE_HOST[name]
    first = function(*arguments)
    again, compiled_again = counted(function, *arguments)
    assert compiled_again == 0
    assert_trees_close(again, first)


@pytest.mark.parametrize("name", ["conv", "match", "max_pool", "peaks", "augment.flip", "explain.saliency"])
def test_eager_jitted_and_mapped_calls_agree(name):
    """A second mapped call compiles nothing either."""
    function, arguments = CALLS[name]
    expected = function(*arguments)
    assert_trees_close(jax.jit(function)(*arguments), expected)
    batch = jax.tree.map(lambda array: jnp.stack([jnp.asarray(array)] * 2), arguments)
    jax.vmap(function)(*batch)
    mapped, compiled_again = counted(jax.vmap(function), *batch)
    assert compiled_again == 0
    assert_trees_close(jax.tree.map(lambda array: array[1], mapped), expected)


@pytest.mark.parametrize("name", ["conv", "zncc", "zncc under a mask", "find", "max_pool", "peaks", "warping.affine"])
def test_a_second_eager_gradient_compiles_nothing(name):
    """Conditionals and loops of a function that is inlined would be compiled at every call."""
    function, (image, *others) = CALLS[name]

    def total(image):
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(function(image, *others)) if leaf.dtype == jnp.float32)

    gradient = jax.grad(total)
    gradient(image)
    _, compiled_again = counted(gradient, image + 1)
    assert compiled_again == 0


def test_images_enter_the_program_as_they_are():
    """An image of bytes is not converted before."""

    @compiled()
    def dtype_of(image):
        return jnp.zeros((), image.dtype)

    image = np.zeros((2, 2), np.uint8)
    assert dtype_of(image).dtype == jnp.uint8
    _, compiled_first = counted(cnn.max_pool, np.zeros((34, 2), np.uint8))
    assert compiled_first == 1


@pytest.mark.parametrize("stride", [1.0, "1", (1, 1.0)])
def test_a_wrong_option_is_refused_after_an_equal_one_was_compiled(stride):
    cnn.max_pool(IMAGE, stride=1)
    with pytest.raises(TypeError, match="stride: expected an int or two ints"):
        cnn.max_pool(IMAGE, stride=stride)


def test_options_of_equal_values_share_a_program():
    cnn.max_pool(IMAGE, window=2, padding="VALID")
    options: list[Any] = [(2, ((0, 0), (0, 0))), ([2, 2], [[0, 0], [0, 0]])]
    for window, padding in options:
        _, compilations_of_the_call = counted(lambda w=window, p=padding: cnn.max_pool(IMAGE, window=w, padding=p))
        assert compilations_of_the_call == 0


def test_numbers_that_are_no_shapes_do_not_compile_again():
    cnn.sharpened_cosine(IMAGE, FEATURE, p=1.5, q=0.1)
    augment.affine(KEY, IMAGE, angle=0.1)
    explain.saliency(NET, PARAMS, SAMPLE, label=0)
    for call in (
        lambda: cnn.sharpened_cosine(IMAGE, FEATURE, p=2.5, q=0.2),
        lambda: augment.affine(KEY, IMAGE, angle=0.2),
        lambda: explain.saliency(NET, PARAMS, SAMPLE, label=1),
    ):
        assert counted(call)[1] == 0


def scaled(scale, x, *, power=1):
    return (scale(x)) ** power


def test_equal_callables_and_options_share_a_program():
    assert program_of(scaled, jnp.sin, power=2) is program_of(scaled, jnp.sin, power=2)
    assert program_of(scaled, jnp.sin, power=2) is not program_of(scaled, jnp.sin, power=3)
    assert program_of(scaled, jnp.sin) is not program_of(scaled, jnp.cos)


def test_callables_that_are_not_hashable_are_compiled_for_every_call():
    @dataclasses.dataclass
    class Doubled:
        def __call__(self, x):
            return 2 * x

    double = Doubled()
    assert program_of(scaled, double) is not program_of(scaled, double)
    assert program_of(scaled, double, power=2)(jnp.float32(3)) == 36


def test_caches_are_bounded():
    made = []

    @cached(maxsize=2)
    def make(value):
        made.append(value)
        return value

    for value in (1, 2, 1, 3, 2):
        make(value)
    assert made == [1, 2, 3, 2]


def test_a_network_that_is_dropped_from_the_cache_is_freed():
    net = cnn.Chain(cnn.Flatten(), cnn.Dense(2))
    explain.saliency(net, net.init(KEY, (2, 2, 1)), np.ones((2, 2, 1)))
    alive = weakref.ref(net)
    del net
    for index in range(200):
        program_of(scaled, functools.partial(jnp.multiply, index))
    gc.collect()
    assert alive() is None
