"""Search for `experiments.find`: `cnn_jax.find` compiled for batches of pictures, on one device or many."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

import cnn_jax

from . import cli
from .find_pictures import Templates, Unread, batch_by_size
from .find_results import Record, match_records

Search = Callable[[np.ndarray], list[cnn_jax.Matches]]
"""Searches a stack of pictures of one size."""


def make_search(templates: Templates, mesh: Mesh | None = None, **options: Any) -> Search:
    """A function that searches a stack of pictures; the devices of a mesh share the pictures.

    Args:
      templates: what to search for.
      mesh: this process's devices.
      options: options of `cnn_jax.find`; `scales` among them.

    Raises:
      ValueError: invalid options.
    """
    masks = templates.masks if any(mask is not None for mask in templates.masks) else None
    find = functools.partial(cnn_jax.find, features=templates.features, mask=masks, **options)
    check_options(find, templates, options["scales"])
    batched = jax.vmap(find)
    devices = 1
    if mesh is not None:
        spec = PartitionSpec(mesh.axis_names)
        batched = jax.shard_map(batched, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
        devices = mesh.size
    compiled = jax.jit(batched)

    def search(pictures: np.ndarray) -> list[cnn_jax.Matches]:
        padding = -len(pictures) % devices
        padded = np.pad(pictures, [(0, padding)] + [(0, 0)] * (pictures.ndim - 1))
        matches = jax.device_get(compiled(padded))
        return [cnn_jax.Matches(*(field[i] for field in matches)) for i in range(len(pictures))]

    return search


def check_options(find: Callable[[Any], Any], templates: Templates, scales: Sequence[float]) -> None:
    """Traces a search of an image that is large enough for some template; an invalid option raises ValueError."""
    largest = max(max(feature.shape) for feature in templates.features)
    side = max(1, math.ceil(2 * min(scales, default=1.0) * largest))
    channels = templates.features[0].shape[2:]
    jax.eval_shape(find, jax.ShapeDtypeStruct((side, side, *channels), np.float32))


def search_pictures(
    files: Sequence[Path], search: Search, templates: Templates, devices: int
) -> Iterator[tuple[Path, list[Record] | str]]:
    """Every file with its matches, or with the reason why it could not be searched; in no particular order."""
    for batch in batch_by_size(files, templates.in_color, devices):
        if isinstance(batch, Unread):
            yield batch.path, batch.reason
            continue
        try:
            results = search(np.stack(list(batch.values())))
        except ValueError as error:  # the pictures are smaller than all templates
            for path in batch:
                yield path, f"{path}: {cli.one_line_error(error)}"
            continue
        for path, matches in zip(batch, results, strict=True):
            yield path, match_records(matches, templates.names)
