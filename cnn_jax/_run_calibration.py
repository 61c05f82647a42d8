"""Statistics of BatchNorm from the batches that a run learns from."""

import dataclasses
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ._batch_loaders import Loader
from ._batches import BatchSource
from ._calibration import ImageStatistics, Path, Statistics, batch_norm_paths, image_statistics, set_statistics
from ._programs import program_of
from ._sharding import Placement, to_host
from ._train_state import DataState
from .layers import Layer, Params

CALIBRATION_IMAGES = 1024  # at least; thousands make no visible difference (Wu and Johnson, 2021)


@dataclasses.dataclass(frozen=True)
class RunCalibration:
    """Sets the statistics of every BatchNorm from the first batches of a run, as `calibrate` does from images.

    The batches are loaded again for every calibration, so that all see the same images, augmented in the same way.

    Args:
      net: the network.
      paths: the paths of its BatchNorms.
      source: the run's data, which can be drawn again.
      placement: the run's devices.
      batch_size: the run's.
    """

    net: Layer
    paths: tuple[Path, ...]
    source: BatchSource
    placement: Placement
    batch_size: int

    def __call__(self, params: Params) -> Params:
        """The parameters with new statistics."""
        if not self.paths:
            return params
        return self.placement.replicate(set_statistics(params, self.paths, self._observe))

    def _observe(self, params: Params, paths: tuple[Path, ...]) -> Iterator[Mapping[Path, Statistics]]:
        program = program_of(_batch_statistics, self.net, self.source.load, self.placement, paths=paths)
        params = self.placement.replicate(params)
        arrays = self.source.example_arrays
        data_state = self.placement.replicate(self.source.initial_data_state)
        for step in range(-(-CALIBRATION_IMAGES // self.batch_size)):
            statistics, data_state = program(params, arrays, data_state, self.placement.replicate(jnp.int32(step)))
            yield {path: (to_host(mean), to_host(variance)) for path, (mean, variance) in statistics.items()}


def paths_to_calibrate(net: Layer, params: Params, image: jax.ShapeDtypeStruct) -> tuple[Path, ...]:
    """The paths of a network's BatchNorms. Raises a ValueError for one that cannot be observed."""
    try:
        return batch_norm_paths(net, params, image)
    except ValueError as error:
        raise ValueError(f"{error}; pass calibrate=False to train it") from error


def _batch_statistics(
    net: Layer,
    load: Loader,
    placement: Placement,
    params: Params,
    arrays: PyTree,
    data_state: DataState,
    step: Array,
    *,
    paths: tuple[Path, ...],
) -> tuple[ImageStatistics, DataState]:
    images, _, data_state = load(arrays, data_state, step)
    statistics = image_statistics(net, params, placement.constrain_sharded(images), paths=paths)
    return placement.constrain_replicated(statistics), data_state
