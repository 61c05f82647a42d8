"""Evaluation of a network on any number of images: its outputs (`predict`), and means of metrics (`evaluate`).

The images go through one compiled program in batches of one size. The last batch is filled up with copies of an image,
whose results are left out.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh
from jaxtyping import Array, ArrayLike, PyTree, Shaped

from ._batch_loaders import with_channels
from ._calibration import check_calibrated
from ._contents import Contents
from ._errors import describe
from ._fit_arguments import check_classes, check_images_and_labels
from ._layer import check_net
from ._metrics import Loss, Metric, Metrics, accuracy, default_loss, example_values, metrics_for
from ._object_checks import check_callable
from ._programs import program_of
from ._sharding import Placement, make_placement, to_host
from ._typing import AnyArray
from ._validation import check_int, refuse_masked_array
from .layers import Layer, Params

__all__ = ["Metric", "accuracy", "evaluate", "predict"]

BATCHES_IN_FLIGHT = 2  # before the results of earlier ones are copied to the host


def predict(
    net: Layer,
    params: Params,
    images: Shaped[ArrayLike, "N H W *C"],
    *,
    batch_size: int = 256,
    mesh: Mesh | None = None,
) -> PyTree[Shaped[np.ndarray, "N ..."]]:
    """The outputs of a network for any number of images.

        out[n] = net.apply(params, images[n])

    Args:
      net: the network.
      params: its parameters.
      images: (N, H, W, C) or gray (N, H, W), as the network sees them. NumPy arrays stay on the host.
      batch_size: images in a call of the compiled program. With several devices it is rounded up to a multiple.
      mesh: the devices that share every batch. By default all devices of this process.

    Returns:
      The outputs, in host memory; of a network of your own with several outputs a tree of them.

    Raises:
      ValueError: images of a wrong rank, batch_size below 1, parameters of another network, a BatchNorm that was never
        calibrated.
      TypeError: net is not a Layer, images are a masked array, batch_size is not an int, mesh is not a Mesh.

    Notes:
      One program is compiled for a network, a batch size and a shape of images, whatever their number. One image costs
      as much as `batch_size` of them: pass `batch_size=1` for one.

    >>> from cnn_jax.layers import Flatten
    >>> predict(Flatten(), {}, np.arange(3.0).reshape(3, 1, 1), batch_size=2)
    array([[0.],
           [1.],
           [2.]], dtype=float32)
    """
    check_net(net)
    check_calibrated(params)
    refuse_masked_array("images", images)
    stored = with_channels("images", as_stored(images))
    params = _local(params) if mesh is None else params
    batch_size, placement = _share(batch_size, mesh)
    program = program_of(_outputs, net, placement)
    if not len(stored):
        return jax.tree.map(lambda out: np.zeros(out.shape, out.dtype), jax.eval_shape(program, params, stored))
    batches = _map_batches(program, params, (stored,), batch_size, placement)
    return jax.tree.map(lambda *outputs: np.concatenate(outputs), *batches)


def evaluate(
    net: Layer,
    params: Params,
    data: tuple[Shaped[ArrayLike, "N H W *C"], Shaped[ArrayLike, "N ..."]],
    *,
    metrics: Mapping[str, Metric] | None = None,
    batch_size: int = 256,
    mesh: Mesh | None = None,
) -> dict[str, float]:
    """Means of metrics over labeled images.

        out[name] = 1/N sum over n of metrics[name](net.apply(params, images[n]), labels[n])

    Args:
      net: the network.
      params: its parameters.
      data: `(images, labels)`, images (N, H, W, C) or gray (N, H, W), as the network sees them.
      metrics: functions `metric(logits, label)` of one example, by name. A metric may return an array, such as one
        number per pixel; its mean is taken. The default is {"loss": the softmax cross-entropy of integer labels,
        "accuracy": `accuracy`}.
      batch_size, mesh: as in `predict`.

    Returns:
      The mean of every metric, which is taken in float64.

    Raises:
      ValueError: images of a wrong rank or none, or other labels in number; labels that are not classes of the network,
        with the default metrics; batch_size below 1, parameters of another network, a BatchNorm that was never
        calibrated.
      TypeError: net is not a Layer; data are not images and labels; metrics are not a dict of functions; labels are not
        integers, with the default metrics.

    Notes:
      One program is compiled for a network, its metrics, a batch size and shapes of images and labels.
      `metrics={"loss": loss}` of another loss gives no accuracy; add `evaluation.accuracy`.

    >>> from cnn_jax.layers import Flatten
    >>> images = np.array([[[2.0, 0.0]], [[0.0, 2.0]], [[0.0, 2.0]]])
    >>> labels = np.array([0, 1, 0])
    >>> scores = evaluate(Flatten(), {}, (images, labels), batch_size=2)
    >>> {name: round(score, 3) for name, score in scores.items()}
    {'loss': 0.794, 'accuracy': 0.667}
    >>> evaluate(Flatten(), {}, (images, labels), metrics={"largest": lambda logits, label: logits.max()})
    {'largest': 2.0}
    """
    check_net(net)
    check_calibrated(params)
    labeled = check_labeled("data", data)
    _check_metrics(metrics)
    params = _local(params) if mesh is None else params
    batch_size, placement = _share(batch_size, mesh)
    if metrics is None:
        metrics = metrics_for_data("data", net, params, labeled, default_loss, "pass metrics= for other labels")
    return mean_metrics(net, params, labeled, metrics, batch_size, placement)


def mean_metrics(
    net: Layer,
    params: Params,
    data: tuple[AnyArray, AnyArray],
    metrics: Mapping[str, Metric],
    batch_size: int,
    placement: Placement,
) -> dict[str, float]:
    """`evaluate` of checked arguments. With a placement of several processes, all pass the same arrays."""
    hashable = tuple((name, Contents(metric)) for name, metric in metrics.items())
    program = program_of(_example_metrics, net, placement, metrics=hashable)
    batches = list(_map_batches(program, params, data, batch_size, placement))
    return {
        name: float(np.mean(np.concatenate([batch[name] for batch in batches]), dtype=np.float64)) for name in metrics
    }


def metrics_for_data(
    name: str, net: Layer, params: Params, data: tuple[AnyArray, AnyArray], loss: Loss, hint: str
) -> dict[str, Metric]:
    """The loss, and the accuracy where labels are classes of the network's outputs.

    Raises an error, with a hint, for labels that do not suit the default loss.
    """
    image, label = map(example_shape, data)
    logits = output_shape(net, params, image)
    if loss is default_loss:
        check_classes(name, np.asarray(data[1]), logits, hint)
    return metrics_for(loss, logits, label)


def example_shape(examples: AnyArray) -> jax.ShapeDtypeStruct:
    """The shape of one of the examples, with the dtype that a program gets: float32 for float64 without 64 bits."""
    return jax.ShapeDtypeStruct(examples.shape[1:], jax.dtypes.canonicalize_dtype(examples.dtype))


def output_shape(net: Layer, params: Params, image: jax.ShapeDtypeStruct) -> PyTree:
    """The shape of a network's output for one image; of several outputs a tree."""
    return jax.eval_shape(program_of(_output, net), params, image)


def as_stored(images: Shaped[ArrayLike, "..."]) -> AnyArray:
    """An array where it is: on one accelerator, or on the host, which may hold more than a device."""
    if isinstance(images, jax.Array) and not isinstance(images, Tracer):
        devices = images.sharding.device_set
        return images if len(devices) == 1 and next(iter(devices)).platform != "cpu" else np.asarray(images)
    return np.asarray(images)


def check_labeled(name: str, data: object) -> tuple[AnyArray, AnyArray]:
    """Images (N, H, W, C) and as many labels, where they are."""
    images, labels = check_images_and_labels(name, data)
    images = with_channels(name, as_stored(images))
    if not len(images):
        raise ValueError(f"{name}: expected at least one image, got none")
    return images, as_stored(labels)


def _check_metrics(metrics: object) -> None:
    if metrics is None:
        return
    if not isinstance(metrics, Mapping):
        raise TypeError(f"metrics: expected a dict of functions by name, got {describe(metrics)}")
    for name, metric in metrics.items():
        check_callable(f"metrics[{name!r}]", metric, "metric(logits, label)")


def _share(batch_size: int, mesh: Mesh | None) -> tuple[int, Placement]:
    """The size of the batches and where they are placed."""
    batch_size = check_int("batch_size", batch_size)
    devices = jax.local_devices()
    if mesh is None and len(devices) > 1:
        mesh = Mesh(np.array(devices), ("batch",))
    if isinstance(mesh, Mesh):
        batch_size = -(-batch_size // mesh.size) * mesh.size
    return batch_size, make_placement(mesh, batch_size)


def _local(params: Params) -> Params:
    """Parameters that this process's devices can take: those on other processes' devices too become host arrays."""
    return jax.tree.map(lambda leaf: leaf if getattr(leaf, "is_fully_addressable", True) else to_host(leaf), params)


def _map_batches(
    program: Any, params: Params, data: tuple[AnyArray, ...], batch_size: int, placement: Placement
) -> Iterator[PyTree]:
    """The results of a program of the parameters and a batch for all examples, on the host."""
    params = placement.replicate(params)
    count = len(data[0])
    results = []
    for start in range(0, count, batch_size):
        indices = np.minimum(np.arange(start, start + batch_size), count - 1)
        results.append(program(params, *placement.shard(tuple(array[indices] for array in data))))
        if len(results) > BATCHES_IN_FLIGHT:
            yield jax.tree.map(to_host, results.pop(0))
    for i, result in enumerate(results, 1):
        size = count % batch_size or batch_size if i == len(results) else batch_size
        yield jax.tree.map(lambda array, size=size: to_host(array)[:size], result)


def _output(net: Layer, params: Params, image: Array) -> PyTree:
    return net.apply(params, image)


def _outputs(net: Layer, placement: Placement, params: Params, images: Array) -> PyTree:
    return placement.constrain_replicated(jax.vmap(net.apply, (None, 0))(params, images))


def _example_metrics(
    net: Layer,
    placement: Placement,
    params: Params,
    images: Array,
    labels: Array,
    *,
    metrics: tuple[tuple[str, Contents[Metric]], ...],
) -> Metrics:
    outputs = jax.vmap(net.apply, (None, 0))(params, images)
    functions = {name: metric.value for name, metric in metrics}
    return placement.constrain_replicated(example_values(functions, outputs, jnp.asarray(labels)))
