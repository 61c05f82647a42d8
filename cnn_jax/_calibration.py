"""Population statistics for BatchNorm."""

import functools
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, PyTree, Shaped

from ._layer import Layer, check_net
from ._params import Params, ParamsError
from ._programs import program_of
from ._typing import AnyArray
from ._validation import check_int, check_shape, refuse_masked_array

MISSING_VARIANCE = -1.0
Path = tuple[str, ...]  # keys from the root of the parameters to those of one layer
Statistics = tuple[AnyArray, AnyArray]  # the mean and the variance of every image
ImageStatistics = dict[Path, tuple[Array, Array]]  # at every BatchNorm


@runtime_checkable
class Observe(Protocol):
    """Yields the statistics of batches of images at the BatchNorms of the given paths."""

    def __call__(self, params: Params, paths: tuple[Path, ...], /) -> Iterator[Mapping[Path, Statistics]]: ...


def calibrate(
    net: Layer,
    params: Params,
    images: Shaped[ArrayLike, "N H W *C"] | Sequence[Shaped[ArrayLike, "H W *C"]],
    *,
    batch_size: int = 500,
) -> Params:
    """Sets the population statistics of every BatchNorm: the mean and variance of its inputs over all images.

    This is "precise BN" (`update_bn` in PyTorch's SWA utilities). It replaces the running averages that other libraries
    update during training; here no running averages are kept.

    Args:
      net: a network. Without a BatchNorm its parameters are returned unchanged.
      params: its trained parameters.
      images: (N, H, W, C) or gray (N, H, W), as the network sees them: scaled, if `augment` scales them for `fit`.
      batch_size: images per call of the network. The result does not depend on it, but for rounding.

    Returns:
      The parameters with new "mean" and "variance" in each BatchNorm.

    Raises:
      ValueError: images of a wrong rank or none, a batch_size below 1, a BatchNorm inside a layer without
        `apply_with_intermediates`, whose input cannot be observed.
      TypeError: a net that is not a Layer, images in a masked array, a batch_size that is not an int.

    Notes:
      Layers are calibrated in order, each with the statistics of those before it in place, so that the statistics are
      exactly those of the trained network. That takes one pass over the images per BatchNorm. Not for use under
      `jax.jit`.

    Source: Wu and Johnson, "Rethinking 'Batch' in BatchNorm" (2021), https://arxiv.org/abs/2105.07576

    >>> from cnn_jax.norms import BatchNorm
    >>> net = BatchNorm()
    >>> params = net.init(jax.random.key(0), (1, 1, 1))
    >>> params = calibrate(net, params, jnp.array([1.0, 3.0]).reshape(2, 1, 1, 1))
    >>> params["mean"], params["variance"]
    (Array([2.], dtype=float32), Array([1.], dtype=float32))
    """
    check_net(net)
    refuse_masked_array("images", images)
    # Any: a NumPy array stays on the host, which may hold more images than a device.
    stored: Any = images if isinstance(images, jax.Array) else np.asarray(images)
    check_shape("images", stored, "N H W", "N H W C")
    batch_size = check_int("batch_size", batch_size)
    if stored.ndim == 3:
        stored = stored[..., None]

    def observe(params: Params, paths: tuple[Path, ...]) -> Iterator[ImageStatistics]:
        program = program_of(image_statistics, net, paths=paths)
        for start in range(0, len(stored), batch_size):
            yield program(params, stored[start : start + batch_size])

    return set_statistics(params, batch_norm_paths(net, params, stored[0]), observe)


def set_statistics(params: Params, paths: tuple[Path, ...], observe: Observe) -> Params:
    """The parameters with the statistics that are observed at the BatchNorms of the given paths, in their order."""
    for path in paths:  # no BatchNorm may spoil the later ones, with NaN
        params = _replace_at(params, path, mean=np.zeros(1), variance=np.ones(1))
    for path in paths:
        statistics = [batch[path] for batch in observe(params, paths)]
        means = np.concatenate([mean for mean, _ in statistics]).astype(np.float64)
        variances = np.concatenate([variance for _, variance in statistics]).astype(np.float64)
        params = _replace_at(params, path, mean=means.mean(0), variance=variances.mean(0) + means.var(0))
    return params


def image_statistics(net: Layer, params: Params, images: Array, *, paths: tuple[Path, ...]) -> ImageStatistics:
    """The mean and the variance of every image at every BatchNorm."""
    stages = jax.vmap(net.stages, (None, 0))(params, images)
    return {path: (stages["/".join((*path, "mean"))], stages["/".join((*path, "variance"))]) for path in paths}


def batch_norm_paths(
    net: Layer, params: Params, image: Shaped[ArrayLike, "H W C"] | jax.ShapeDtypeStruct
) -> tuple[Path, ...]:
    """Paths to the parameters of every BatchNorm, in the order in which the image passes them."""
    with_statistics = list(_paths_to_statistics(params))
    if not with_statistics:
        return ()
    stage_paths = [name.split("/") for name in jax.eval_shape(program_of(Layer.stages, net), params, image)]
    observed = [tuple(path[:-1]) for path in stage_paths if path[-1] == "mean"]
    for path in with_statistics:
        if path not in observed and _is_missing(_statistics_at(params, path)["variance"]):
            keys = "".join(f"[{key!r}]" for key in path)
            raise ValueError(
                f"net: the BatchNorm at params{keys} is inside a Layer without `apply_with_intermediates`, so its "
                "input cannot be observed"
            )
    return tuple(path for path in observed if path in with_statistics)


def _paths_to_statistics(params: PyTree, path: Path = ()) -> Iterator[Path]:
    """Paths to all dicts that hold a mean and a variance."""
    if not isinstance(params, Mapping):
        return
    if {"mean", "variance"} <= params.keys() and np.ndim(params["mean"]) == np.ndim(params["variance"]) == 1:
        yield path
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from _paths_to_statistics(value, (*path, name))


def _statistics_at(params: Params, path: Path) -> Params:
    return functools.reduce(operator.getitem, path, params)


def _replace_at(params: Params, path: Path, **values: np.ndarray) -> Params:
    """A copy of the parameters with new arrays at a path, in the dtypes of the old ones."""
    if path:
        return params | {path[0]: _replace_at(params[path[0]], path[1:], **values)}
    return params | {
        name: jnp.broadcast_to(jnp.asarray(value, params[name].dtype), params[name].shape)
        for name, value in values.items()
    }


def missing_statistics(channels: int) -> Params:
    """The statistics of a BatchNorm before `calibrate` sets them. No variance is negative."""
    return {"mean": jnp.zeros(channels, jnp.float32), "variance": jnp.full(channels, MISSING_VARIANCE, jnp.float32)}


def check_calibrated(params: Params) -> None:
    """Raises a ValueError for a BatchNorm whose statistics are missing, where the values are known.

    >>> check_calibrated({"batch_norm1": missing_statistics(2)})
    Traceback (most recent call last):
        ...
    cnn_jax._params.ParamsError: params: expected batch_norm1/variance of at least 0, got statistics that were never
    taken; call calibrate after training
    """
    for path in _paths_to_statistics(params):
        if _is_missing(_statistics_at(params, path)["variance"]):
            problem = "of at least 0, got statistics that were never taken; call calibrate after training"
            raise ParamsError("/".join((*path, "variance")), problem)


def _is_missing(variance: object) -> bool:
    """Whether a variance is negative. Weight decay may have shrunk it, but keeps its sign."""
    if isinstance(variance, Tracer | jax.ShapeDtypeStruct) or not getattr(variance, "is_fully_addressable", True):
        return False
    return bool(np.any(np.asarray(variance) < 0))
