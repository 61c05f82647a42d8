"""Search for `experiments.find`: `cnn_jax.find` compiled for batches of pictures, on one device or many."""

import math
import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import ArrayLike

import cnn_jax
from cnn_jax.data.pixels import from_uint8

from . import find_options, find_tiles
from .find_pictures import Page, Templates, Unread, batch_by_size, size_text, to_gray
from .find_results import Outlined, PageMatches, match_records, outline

Search = Callable[[np.ndarray], list[Outlined]]
"""Searches a stack of pictures of one size."""
SearchedPage = tuple[Page, np.ndarray | None, PageMatches | str]
"""A page, its picture if it can be read, and its matches or the reason why it could not be searched."""
SearchFiles = Callable[[Sequence[Path]], Iterable[SearchedPage]]
"""Searches all pages of files, in no particular order."""


def make_search(
    templates: Templates,
    mesh: Mesh | None = None,
    *,
    region: find_tiles.Rectangle | None = None,
    tile: int = find_tiles.DEFAULT_SIDE,
    **arguments: Any,
) -> Search:
    """A function that searches a stack of pictures, the large ones in tiles; the devices of a mesh share the pictures.

    Args:
      templates: what to search for.
      mesh: this process's devices.
      region: top, left, height and width of the rectangle in which the centers of matches lie; everywhere by default.
      tile: pictures of more than `tile` squared pixels are searched in tiles, of this side in pixels.
      arguments: those of `cnn_jax.find`; `scales`, `top_k` and `max_overlap` among them.
    """
    in_region = {} if region is None else {"region": region}
    search_whole = compile_search(templates, mesh, arguments | in_region)
    search_tile = compile_search(templates, None, arguments | find_tiles.tile_arguments(arguments))
    sizes = [feature.shape[:2] for feature in templates.features]

    def search(pictures: np.ndarray) -> list[Outlined]:
        height, width = pictures.shape[1:3]
        if height * width <= tile**2:
            return search_whole(pictures)
        box = find_tiles.largest_box(sizes, arguments, (height, width))
        area = find_tiles.clip_region(region, (height, width))
        return [find_tiles.search_tiles(picture, search_tile, tile, box, area, arguments) for picture in pictures]

    return search


def compile_search(templates: Templates, mesh: Mesh | None, arguments: dict[str, Any]) -> Search:
    """`cnn_jax.find` as a function of a stack of pictures, compiled once per size.

    Templates are arguments and not constants of the program, so that others of their size find it in the cache on disk.
    """
    masks = templates.masks if any(mask is not None for mask in templates.masks) else None

    def find(picture: jax.Array, features: list[jax.Array], masks: list[jax.Array | None] | None) -> Outlined:
        pixels = as_pixels(picture, templates.in_color)
        return outline(cnn_jax.find(pixels, features, mask=masks, **arguments))

    batched = jax.vmap(find, (0, None, None))
    devices = 1
    if mesh is not None:
        spec = PartitionSpec(mesh.axis_names)
        shared = PartitionSpec()
        batched = jax.shard_map(batched, mesh=mesh, in_specs=(spec, shared, shared), out_specs=spec, check_vma=False)
        devices = mesh.size
    compiled = jax.jit(batched)
    shapes: set[tuple[int, ...]] = set()

    def search(pictures: np.ndarray) -> list[Outlined]:
        padding = -len(pictures) % devices
        padded = np.pad(pictures, [(0, padding)] + [(0, 0)] * (pictures.ndim - 1)) if padding else pictures
        if pictures.shape not in shapes:
            shapes.add(pictures.shape)
            compiled.trace(padded, templates.features, masks)  # raises for wrong options
            announce_compilation(pictures.shape)
        outlined = jax.device_get(compiled(padded, templates.features, masks))
        return [jax.tree.map(operator.itemgetter(i), outlined) for i in range(len(pictures))]

    return search


def announce_compilation(shape: Sequence[int]) -> None:
    """Says on stderr what is compiled, which takes seconds; with several processes only the first one says it."""
    count, height, width = shape[:3]
    pictures = f"{count} pictures" if count > 1 else "a picture"
    if jax.process_index() == 0:
        print(f"compiling for {pictures} of {width}x{height} pixels ...", file=sys.stderr, flush=True)


def as_pixels(picture: ArrayLike, in_color: bool) -> jax.Array:
    """A picture of bytes or floats as pixels in [-1, 1], (H, W, 3) in color or (H, W) in gray."""
    pixels = jnp.asarray(picture)
    if pixels.dtype == jnp.uint8:
        pixels = from_uint8(pixels)
    if not in_color:
        return pixels if pixels.ndim == 2 else to_gray(pixels)
    return pixels if pixels.ndim == 3 else jnp.broadcast_to(pixels[..., None], (*pixels.shape, 3))


def search_pictures(
    files: Sequence[Path], search: Search, templates: Templates, devices: int, scales: Sequence[float]
) -> Iterator[SearchedPage]:
    """Every page of the files, in no particular order.

    Raises:
      ValueError: an invalid option.
    """
    for batch in batch_by_size(files, devices):
        if isinstance(batch, Unread):
            yield batch.page, None, batch.reason
            continue
        pictures = list(batch.values())
        try:
            results = search(pictures[0][None] if len(pictures) == 1 else np.stack(pictures))
        except ValueError as error:
            if not str(error).startswith("features: "):
                raise ValueError(find_options.name_option(error)) from error
            for page, picture in batch.items():
                if "in the region" in str(error):
                    reason = f"{page.label} {size_text(picture.shape)}: no template fits with its center in --region"
                else:
                    reason = too_small(page, picture.shape, templates, scales)
                yield page, None, reason
            continue
        for (page, picture), matches in zip(batch.items(), results, strict=True):
            yield page, picture, match_records(matches, templates.names, page.number)


def too_small(page: Page, shape: Sequence[int], templates: Templates, scales: Sequence[float]) -> str:
    """The reason why a picture without room for any template could not be searched."""
    sizes = [feature.shape[:2] for feature in templates.features]
    smallest = min(range(len(sizes)), key=lambda i: math.prod(sizes[i]))
    scale = min(scales)
    at_scale = "" if scale == 1 else f" at scale {scale:g}"
    template = f"{templates.names[smallest]} {size_text(sizes[smallest])}{at_scale}"
    return f"{page.label} {size_text(shape)}: smaller than the template {template}"
