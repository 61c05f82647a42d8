"""Every function of arrays under every transformation of JAX, on four devices, against the plain result.

A case is a function of one image and one parameter. The plain result calls it on one image after another: its outputs,
and the derivatives of a loss by all images and by the parameter. A transformation computes the same in another way.
Where the plain result is not the measure, the transformation returns another one.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import checkify
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import cnn_jax as cj
from tests.helpers.public_functions import (
    CASES,
    DRAWN,
    IMAGES,
    KERNEL,
    Case,
    images_of,
    loss,
    loss_of,
    mean_loss,
)

DEVICES = IMAGES
TOLERANCE = 3e-5  # of the largest magnitude of an array

pytestmark = pytest.mark.skipif(len(jax.devices()) < DEVICES, reason="needs four devices")


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
