"""Every function of arrays as a function of one image and one parameter."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import cnn_jax as cj
from cnn_jax import augment, explain, warping

IMAGES = 4


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

# Functions that draw: JAX draws other numbers in 64 bits.
DRAWN = ("random_flip", "random_shift", "random_crop", "random_affine", "random_elastic", "cutout", "smooth_grad")


def images_of(case: Case) -> np.ndarray:
    return normal(IMAGES, *case.shape)


def loss(outputs: Any) -> Any:
    """A smooth function of all floats in a tree."""
    floats = [leaf for leaf in jax.tree.leaves(outputs) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return sum(jnp.sin(leaf * (1 + i)).sum() for i, leaf in enumerate(floats))


def loss_of(case: Case) -> Callable[[Any, Any], Any]:
    return lambda image, param: loss(case.function(image, param))


def mean_loss(case: Case, vmap: Callable[..., Any] = jax.vmap) -> Callable[[Any, Any], Any]:
    return lambda images, param: vmap(loss_of(case), in_axes=(0, None))(images, param).mean()
