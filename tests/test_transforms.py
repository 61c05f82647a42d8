"""Every function of arrays under every transformation of JAX, on four devices, against the plain result.

A case is a function of one image and one parameter. The plain result calls it on one image after another: its outputs,
and the derivatives of a loss by all images and by the parameter. A transformation computes the same in another way.
Where the plain result is not the measure, the transformation returns another one.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from jax.experimental import checkify
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import cnn_jax as cj
from cnn_jax import augment, explain, warping

DEVICES = 4
TOLERANCE = 3e-5  # of the largest magnitude of an array

pytestmark = pytest.mark.skipif(len(jax.devices()) < DEVICES, reason="needs four devices")


class Case(NamedTuple):
    """A function of one image and one parameter, a tree of arrays."""

    function: Callable[[Any, Any], Any]
    shape: tuple[int, ...]
    param: Any
    has_gradient: bool = True


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


def scaled(function: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda image, factor: function(image * factor)


def drawn(function: Callable[..., Any], **options: Any) -> Callable[[Any, Any], Any]:
    return lambda image, factor: function(jax.random.key(3), image * factor, **options)


def found(**options: Any) -> Callable[[Any, Any], Any]:
    search = functools.partial(cj.find, top_k=2, min_score=0.05, **options)
    return lambda image, feature: search(image, feature)._asdict()


def found_where_pasted(**options: Any) -> Callable[[Any, Any], Any]:
    """A search with one good match. Of chance matches, rounding may choose another one."""

    def search(image: Any, feature: Any) -> Any:
        rows, columns = feature.shape
        image = jnp.asarray(image / 4).at[9 : 9 + rows, 12 : 12 + columns].set(feature)
        return cj.find(image, feature, top_k=1, angle_range=(-0.3, 0.3), **options)._asdict()

    return search


NET = cj.Chain(
    *(cj.Conv(4, 3), cj.Activation(jax.nn.relu), cj.MaxPool(), cj.Match(4, 2), cj.GroupNorm(2)),
    *(cj.LayerNorm(), cj.LocalResponseNorm(), cj.Flatten(), cj.Dense(3)),
)
NET_PARAMS = jax.tree.map(np.asarray, NET.init(jax.random.key(0), (8, 8, 1)))
SMALL = cj.Chain(cj.Conv(2, 3), cj.Activation(jax.nn.relu), cj.Flatten(), cj.Dense(3))
SMALL_PARAMS = jax.tree.map(np.asarray, SMALL.init(jax.random.key(0), (6, 6, 1)))
KERNEL = normal(3, 3, 2, 4)
FEATURE = normal(3, 3, 2)
MASK = np.where(np.arange(18).reshape(3, 3, 2) % 5 == 0, 0, 0.5 + np.abs(FEATURE))
FACTOR = np.float32(1.5)
SHAPE = (8, 8, 2)


def explained(function: Callable[..., Any], **options: Any) -> Case:
    return Case(lambda image, params: function(SMALL, params, image, **options), (6, 6, 1), SMALL_PARAMS)


CASES = {
    **{
        f"conv_{method}": Case(functools.partial(cj.conv, method=method), SHAPE, KERNEL)
        for method in ("auto", "conv", "shift", "im2col", "fft")
    },
    "conv_strided": Case(functools.partial(cj.conv, stride=2, padding="SAME", dilation=(1, 2)), SHAPE, KERNEL),
    "conv_of_groups": Case(functools.partial(cj.conv, groups=2), SHAPE, KERNEL[:, :, :1]),
    "depthwise_conv": Case(functools.partial(cj.conv, groups=8, padding="SAME"), (6, 6, 8), normal(3, 3, 1, 8)),
    "conv_on_all_cores": Case(functools.partial(cj.conv, method="conv"), (5, 5, 64), normal(2, 2, 64, 64) / 16),
    **{
        score.__name__: Case(score, SHAPE, FEATURE)
        for score in (
            *(cj.match, cj.cosine, cj.zncc),
            *(cj.squared_difference, cj.normalized_squared_difference, cj.sharpened_cosine),
        )
    },
    "masked_zncc": Case(functools.partial(cj.zncc, mask=MASK), SHAPE, FEATURE),
    "masked_squared_difference": Case(functools.partial(cj.squared_difference, mask=MASK), SHAPE, FEATURE),
    "learned_mask": Case(lambda x, p: cj.cosine(x, p[0], mask=p[1]), SHAPE, (FEATURE, MASK.astype(np.float32))),
    "zncc_fft": Case(functools.partial(cj.zncc, method="fft"), SHAPE, FEATURE),
    "is_defined": Case(cj.is_defined, SHAPE, FEATURE, False),
    "max_pool": Case(scaled(cj.max_pool), SHAPE, FACTOR),
    "overlapping_max_pool": Case(scaled(functools.partial(cj.max_pool, window=3)), SHAPE, FACTOR),
    "min_pool": Case(scaled(cj.min_pool), SHAPE, FACTOR),
    "avg_pool": Case(scaled(functools.partial(cj.avg_pool, window=3, stride=3, padding="CEIL")), SHAPE, FACTOR),
    "max_abs_pool": Case(scaled(cj.max_abs_pool), SHAPE, FACTOR),
    "global_avg_pool": Case(scaled(cj.global_avg_pool), SHAPE, FACTOR),
    "window_sum": Case(scaled(functools.partial(cj.window_sum, window=3)), SHAPE, FACTOR),
    "resample": Case(lambda x, p: warping.resample(x, p, p + 1), SHAPE, np.abs(normal(4, 4)) * 2),
    "affine": Case(warping.affine, SHAPE, np.array([[0.9, 0.2, 0.3], [-0.2, 1.1, 0.4]], np.float32)),
    "turned": Case(lambda x, p: warping.affine(x, warping.affine_matrix(angle=p, scale=p)), SHAPE, np.float32(0.7)),
    "elastic": Case(warping.elastic, SHAPE, normal(3, 3, 2) / 3),
    "peaks": Case(lambda x, p: cj.peaks(x * p, top_k=3)._asdict(), (9, 9), FACTOR),
    "find": Case(found(), (12, 12), normal(4, 4), False),
    "find_scores": Case(found(), (12, 12), normal(4, 4)),
    "find_poses": Case(found(angles=(0, 0.5, 1), scales=(1, 1.2)), (12, 12), normal(2, 4, 5)),
    "find_in_region": Case(found(region=(2, 2, 8, 8), min_visible=0.7), (12, 12), normal(4, 4)),
    "find_angles": Case(found_where_pasted(), (40, 40), normal(18, 18)),
    "find_angles_of_cosine": Case(found_where_pasted(score=cj.cosine), (40, 40), normal(18, 18), False),
    "net": Case(lambda x, p: NET.apply(p, x), (8, 8, 1), NET_PARAMS),
    "loss": Case(
        lambda x, p: optax.softmax_cross_entropy_with_integer_labels(NET.apply(p, x), 1), (8, 8, 1), NET_PARAMS
    ),
    "saliency": explained(explain.saliency),
    "smooth_grad": explained(functools.partial(explain.smooth_grad, jax.random.key(0)), samples=2),
    "integrated_gradients": explained(explain.integrated_gradients, steps=2),
    "occlusion": explained(explain.occlusion, stride=3),
    "grad_cam": explained(explain.grad_cam),
    "stages": explained(explain.stages),
    "top_patches": Case(
        lambda x, p: list(explain.top_activating_patches(SMALL, p, x, count=2)), (2, 6, 6, 1), SMALL_PARAMS, False
    ),
    "kernels_as_images": Case(lambda x, p: explain.kernels_as_images(p) * x.sum(), (6, 6, 1), SMALL_PARAMS),
    "random_flip": Case(drawn(augment.flip), SHAPE, FACTOR),
    "random_shift": Case(drawn(augment.shift), SHAPE, FACTOR),
    "random_crop": Case(drawn(augment.crop, border=1), SHAPE, FACTOR),
    "random_affine": Case(drawn(augment.affine), SHAPE, FACTOR),
    "random_elastic": Case(drawn(augment.elastic), SHAPE, FACTOR),
    "cutout": Case(drawn(augment.cutout, size=2), SHAPE, FACTOR),
}


def images_of(case: Case) -> np.ndarray:
    return normal(DEVICES, *case.shape)


def loss(outputs: Any) -> Any:
    """A smooth function of all floats in a tree."""
    floats = [leaf for leaf in jax.tree.leaves(outputs) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return sum(jnp.sin(leaf * (1 + i)).sum() for i, leaf in enumerate(floats))


def loss_of(case: Case) -> Callable[[Any, Any], Any]:
    return lambda image, param: loss(case.function(image, param))


def mean_loss(case: Case, vmap: Callable[..., Any] = jax.vmap) -> Callable[[Any, Any], Any]:
    return lambda images, param: vmap(loss_of(case), in_axes=(0, None))(images, param).mean()


def program(case: Case, vmap: Callable[..., Any] = jax.vmap) -> Callable[[Any, Any], Any]:
    """The outputs of a batch, and the gradients of its mean loss by images and parameter."""

    def run(images: Any, param: Any) -> Any:
        outputs = vmap(case.function, in_axes=(0, None))(images, param)
        return outputs, jax.grad(mean_loss(case, vmap), (0, 1))(images, param) if case.has_gradient else None

    return run


def stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def summed(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.sum(leaves, axis=0, dtype=np.float64), *trees)


@functools.cache
def of_one(name: str) -> Callable[[Any, Any], Any]:
    """The function of one image, with the gradients of its loss."""
    case = CASES[name]

    def run(image: Any, param: Any) -> Any:
        gradients = jax.grad(loss_of(case), (0, 1))(image, param) if case.has_gradient else None
        return case.function(image, param), gradients

    return jax.jit(run)


@functools.cache
def plain(name: str) -> Any:
    """The outputs and gradients of `program`, one image after another."""
    case = CASES[name]
    results = [of_one(name)(image, case.param) for image in images_of(case)]
    outputs = stacked([outputs for outputs, _ in results])
    if not case.has_gradient:
        return outputs, None
    of_images, of_param = zip(*(gradients for _, gradients in results), strict=True)
    return outputs, jax.tree.map(lambda leaf: leaf / DEVICES, (np.stack(of_images), summed(list(of_param))))


def mesh_of(kind: AxisType) -> Mesh:
    return jax.make_mesh((DEVICES,), ("b",), axis_types=(kind,))


def on_mesh(kind: AxisType, case: Case) -> tuple[Any, Any]:
    mesh = mesh_of(kind)
    return (
        jax.device_put(images_of(case), NamedSharding(mesh, P("b"))),
        jax.device_put(case.param, NamedSharding(mesh, P())),
    )


def shard_map(function: Callable[..., Any], in_specs: Any, out_specs: Any, check_vma: bool) -> Callable[..., Any]:
    mesh = mesh_of(AxisType.Auto)
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=check_vma))


# Transformations of a case. Each returns the outputs and gradients of `program`, and the result to compare them with.


def jit(name: str) -> Any:
    return jax.jit(program(CASES[name]))(images_of(CASES[name]), CASES[name].param), plain(name)


def spmd_axis_name(name: str) -> Any:
    vmap = functools.partial(jax.vmap, spmd_axis_name="b")
    return jax.jit(program(CASES[name], vmap))(*on_mesh(AxisType.Auto, CASES[name])), plain(name)


def explicit_axes(name: str) -> Any:
    return jax.jit(program(CASES[name]))(*on_mesh(AxisType.Explicit, CASES[name])), plain(name)


def explicit_axes_of_the_context(name: str) -> Any:
    with jax.set_mesh(mesh_of(AxisType.Explicit)):
        return program(CASES[name])(*on_mesh(AxisType.Explicit, CASES[name])), plain(name)


def scan(name: str) -> Any:
    """The forward pass and the gradient of a loop over images."""
    case = CASES[name]

    def run(images: Any, param: Any) -> Any:
        def step(total: Any, image: Any) -> Any:
            outputs = case.function(image, param)
            return total + loss(outputs) / DEVICES, outputs

        return lax.scan(step, jnp.float32(0), images)

    if not case.has_gradient:
        return (jax.jit(run)(images_of(case), case.param)[1], None), plain(name)
    gradients, outputs = jax.jit(jax.grad(run, (0, 1), has_aux=True))(images_of(case), case.param)
    return (outputs, gradients), plain(name)


def remat(name: str) -> Any:
    case = CASES[name]
    return jax.jit(program(case._replace(function=jax.checkpoint(case.function))))(images_of(case), case.param), plain(
        name
    )


def pmap(name: str) -> Any:
    case = CASES[name]
    outputs, gradients = jax.pmap(program(case), in_axes=(0, None))(images_of(case)[:, None], case.param)
    outputs = jax.tree.map(lambda leaf: leaf[:, 0], outputs)
    if gradients is not None:
        gradients = gradients[0][:, 0] / DEVICES, jax.tree.map(lambda leaf: leaf.mean(0), gradients[1])
    return (outputs, gradients), plain(name)


def sharded_images(name: str, check_vma: bool) -> Any:
    """Every device has its images; all share the parameter. The gradient is taken on each device."""
    case = CASES[name]

    def on_device(images: Any, param: Any) -> Any:
        outputs = jax.vmap(case.function, (0, None))(images, param)
        if not case.has_gradient:
            return outputs, None
        if check_vma:
            return outputs, jax.grad(lambda *args: lax.pmean(mean_loss(case)(*args), "b"), (0, 1))(images, param)
        of_images, of_param = jax.grad(mean_loss(case), (0, 1))(images, param)
        return outputs, (of_images / DEVICES, lax.pmean(of_param, "b"))

    out_specs = P("b"), (P("b"), P()) if case.has_gradient else None
    return shard_map(on_device, (P("b"), P()), out_specs, check_vma)(images_of(case), case.param), plain(name)


def gradient_of_sharded_images(name: str, check_vma: bool) -> Any:
    """The gradient of a mapped loss, for every device's images and the parameter that all share."""
    case = CASES[name]
    _, gradients = plain(name)
    if not case.has_gradient:
        return None, None

    def on_device(images: Any, param: Any) -> Any:
        return lax.pmean(mean_loss(case)(images, param), "b")

    mapped = shard_map(on_device, (P("b"), P()), P(), check_vma)
    return jax.jit(jax.grad(mapped, (0, 1)))(images_of(case), case.param), gradients


def sharded_parameters(name: str, check_vma: bool) -> Any:
    """Every device has its parameter; all share the image."""
    case = CASES[name]
    image = images_of(case)[0]
    factors = np.array([1, 1.1, 1.2, 1.3], np.float32)
    params = [jax.tree.map(lambda leaf, factor=factor: leaf * factor, case.param) for factor in factors]

    def on_device(image: Any, stack: Any) -> Any:
        param = jax.tree.map(lambda leaf: leaf[0], stack)
        outputs = jax.tree.map(lambda leaf: leaf[None], case.function(image, param))
        if not case.has_gradient:
            return outputs, None
        if check_vma:
            of_image, of_param = jax.grad(lambda *args: lax.psum(loss_of(case)(*args), "b"), (0, 1))(image, param)
        else:
            of_image, of_param = jax.grad(loss_of(case), (0, 1))(image, param)
            of_image = lax.psum(of_image, "b")
        return outputs, (of_image, jax.tree.map(lambda leaf: leaf[None], of_param))

    out_specs = P("b"), (P(), P("b")) if case.has_gradient else None
    got = shard_map(on_device, (P(), P("b")), out_specs, check_vma)(image, stacked(params))
    results = [of_one(name)(image, param) for param in params]
    outputs = stacked([outputs for outputs, _ in results])
    if not case.has_gradient:
        return got, (outputs, None)
    of_image, of_param = zip(*(gradients for _, gradients in results), strict=True)
    return got, (outputs, (summed(list(of_image)), stacked(list(of_param))))


def replicated(name: str, check_vma: bool) -> Any:
    """All devices share images and parameter, and so the result."""
    return shard_map(program(CASES[name]), P(), P(), check_vma)(images_of(CASES[name]), CASES[name].param), plain(name)


def export(name: str) -> Any:
    """A program of a symbolic number of images, gradients included."""
    case = CASES[name]
    (count,) = jax.export.symbolic_shape("n")
    images = jax.ShapeDtypeStruct((count, *case.shape), np.float32)
    param = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), case.param)
    return jax.export.export(jax.jit(program(case)))(images, param).call(images_of(case), case.param), plain(name)


def x64(name: str) -> Any:
    case = CASES[name]
    param = jax.tree.map(lambda leaf: leaf.astype(np.float64), case.param)
    with jax.enable_x64(True):
        return jax.jit(program(case))(images_of(case).astype(np.float64), param), plain(name)


def x64_of_float32(name: str) -> Any:
    with jax.enable_x64(True):
        got = jax.jit(program(CASES[name]))(images_of(CASES[name]), CASES[name].param)
    assert {leaf.dtype for leaf in jax.tree.leaves(got) if leaf.dtype.kind == "f"} <= {np.dtype(np.float32)}
    return got, plain(name)


def debug_nans(name: str) -> Any:
    with jax.debug_nans(True):
        return jit(name)


def float_checks(name: str) -> Any:
    checked = checkify.checkify(program(CASES[name]), errors=checkify.float_checks | checkify.user_checks)
    error, got = jax.jit(checked)(images_of(CASES[name]), CASES[name].param)
    error.throw()
    return got, plain(name)


def jvp(name: str) -> Any:
    """The derivative along a direction is the dot product with the gradient."""
    case = CASES[name]
    if not case.has_gradient:
        return None, None
    point = images_of(case), case.param
    direction = jax.tree.map(np.cos, point)
    _, derivative = jax.jit(lambda *args: jax.jvp(mean_loss(case), *args))(point, direction)
    pairs = zip(jax.tree.leaves(direction), jax.tree.leaves(plain(name)[1]), strict=True)
    return derivative, sum(np.vdot(a, b) for a, b in pairs)


def hessian(name: str) -> Any:
    """Hessian times vector, forward over reverse, and reverse over reverse."""
    case = CASES[name]
    if not case.has_gradient:
        return None, None
    point = images_of(case), case.param
    direction = jax.tree.map(np.cos, point)
    gradient = jax.grad(mean_loss(case), (0, 1))

    def slope(*args: Any) -> Any:
        pairs = zip(jax.tree.leaves(direction), jax.tree.leaves(gradient(*args)), strict=True)
        return sum(jnp.vdot(a, b) for a, b in pairs)

    return jax.jit(lambda *args: jax.jvp(gradient, *args)[1])(point, direction), jax.jit(jax.grad(slope, (0, 1)))(
        *point
    )


def with_check(transform: Callable[..., Any], check_vma: bool) -> Callable[[str], Any]:
    return functools.partial(transform, check_vma=check_vma)


TRANSFORMS: dict[str, Callable[[str], Any]] = {
    function.__name__: function
    for function in (
        *(jit, spmd_axis_name, explicit_axes, explicit_axes_of_the_context, scan, remat, pmap, export),
        *(x64, x64_of_float32, debug_nans, float_checks, jvp, hessian),
    )
} | {
    f"{function.__name__}{'' if check_vma else '_unchecked'}": with_check(function, check_vma)
    for function in (sharded_images, gradient_of_sharded_images, sharded_parameters, replicated)
    for check_vma in (True, False)
    if function is not replicated or check_vma  # unchecked, a result cannot be known to be replicated
}
FAST_CASES = ("conv_conv", "conv_im2col", "max_pool")
FAST_CELLS = {
    *itertools.product(FAST_CASES, TRANSFORMS),
    *itertools.product(("zncc", "net"), ("explicit_axes", "sharded_images")),
    *itertools.product(("conv_auto", "conv_shift", "conv_fft"), ("sharded_images", "export")),
    *itertools.product(("saliency", "grad_cam"), ("sharded_parameters",)),
    ("squared_difference", "export"),
}
# JAX draws other numbers in 64 bits.
DRAWN = ("random_flip", "random_shift", "random_crop", "random_affine", "random_elastic", "cutout", "smooth_grad")
UNDEFINED = {
    *itertools.product(DRAWN, ("x64", "x64_of_float32")),
    # checkify refuses vmap of while loops: test_checks_of_a_batch_of_searches_run_in_a_loop.
    *((name, "float_checks") for name in CASES if name.startswith("find")),
}
CELLS = [
    pytest.param(*cell, marks=() if cell in FAST_CELLS else pytest.mark.slow, id="-".join(cell))
    for cell in itertools.product(CASES, TRANSFORMS)
    if cell not in UNDEFINED
]


def assert_same(got: Any, expected: Any) -> None:
    """Equal integers and bools; floats of the same place in NaN, equal but for rounding."""
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for actual, desired in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        scale = max(float(np.abs(desired).max()), 1.0)
        np.testing.assert_allclose(actual, desired, rtol=0, atol=TOLERANCE * scale)


@pytest.mark.parametrize(("name", "transform"), CELLS)
def test_the_result_under_a_transformation_is_the_plain_result(name, transform):
    assert_same(*TRANSFORMS[transform](name))


def test_a_search_on_manual_axes_is_traced():
    """Its loops carry arrays that vary over the axes; the slow cells also run it."""
    case = CASES["find"]
    search = shard_map(jax.vmap(case.function, (0, None)), (P("b"), P()), P("b"), True)
    found = jax.eval_shape(search, images_of(case), case.param)
    assert found["score"].shape == (DEVICES, 2)


def test_checks_of_a_batch_of_searches_run_in_a_loop():
    case = CASES["find"]
    with pytest.raises(ValueError, match="vmap-of-checkify-of-while"):
        jax.eval_shape(lambda *args: checkify.checkify(program(case))(*args)[1], images_of(case), case.param)
    checked = checkify.checkify(case.function, errors=checkify.float_checks | checkify.user_checks)
    found = jax.eval_shape(
        lambda images, param: lax.map(lambda image: checked(image, param)[1], images), images_of(case), case.param
    )
    assert found["score"].shape == (DEVICES, 2)


def test_a_batch_on_explicit_axes_keeps_its_sharding():
    images, kernel = on_mesh(AxisType.Explicit, CASES["conv_conv"])
    out = jax.jit(jax.vmap(cj.conv, (0, None)))(images, kernel)
    assert out.sharding == NamedSharding(mesh_of(AxisType.Explicit), P("b", None, None, None))


def test_an_image_in_parts_on_explicit_axes_has_a_whole_result():
    image = images_of(CASES["conv_conv"])[0]
    parts = jax.device_put(image, NamedSharding(mesh_of(AxisType.Explicit), P("b")))
    assert_same(cj.conv(parts, KERNEL), cj.conv(image, KERNEL))
    assert_same(cj.max_pool(parts), cj.max_pool(image))


@pytest.mark.parametrize("to", ["unreduced", "reduced"])
def test_arrays_that_are_not_summed_are_refused(to):
    def on_device(images: Any, kernel: Any) -> Any:
        cast = lax.pcast(images[0] if to == "unreduced" else kernel, "b", to=to)
        return cj.conv(cast, kernel) if to == "unreduced" else cj.conv(jnp.ones((5, 5, 2)), cast)

    with pytest.raises(NotImplementedError, match=r"expected an array that varies .*lax\.pcast .*check_vma=False"):
        shard_map(on_device, (P("b"), P()), P(), True)(images_of(CASES["conv_conv"]), KERNEL)
