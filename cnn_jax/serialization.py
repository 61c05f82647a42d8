"""Saving trained parameters: safetensors files, which hold arrays and text and nothing that could run; and exporting
a network as a program."""

import importlib.util
import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.export
import numpy as np

from .files import atomic_write
from .layers import Layer, Params

FORMAT = "cnn_jax 1"
# What comes back from a file: it takes some float8 too, but NumPy reads none.
DTYPES = {"bool", "bfloat16", "float16", "float32", "float64", "complex64"} | {
    f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)
}
DEEPEST = 100  # rooms within rooms: Python and JAX walk trees by recursion, which ends somewhere


class Saved(NamedTuple):
    """What a model file holds: parameters, the network's name in `cnn_jax.nets`, and the options it was made with."""

    params: Params
    net: str
    options: dict[str, Any]


def save_params(
    path: str | os.PathLike[str], params: Params, *, net: str = "", options: Mapping[str, Any] | None = None
) -> None:
    """Writes parameters to a safetensors file, with the network's name and options, so that the file alone is enough.

        save_params("model.safetensors", params, net="xo_net", options={"features": (16, 32, 32)})

    The file is written beside its place and then renamed: it is whole or not there.

    Raises:
      OSError: the folder or the file cannot be written to.
      TypeError: params that are not nested dicts of arrays with text keys, or hold empty dicts or what files do not
        give back (float8, 4 bits, random keys); a net that is no text; options that are no dict or no JSON.
    """
    safetensors = _safetensors()
    arrays = _flatten(params)
    if not isinstance(net, str):
        raise TypeError(f"net: expected the name of a network, got {net!r}")
    metadata = {"format": FORMAT, "net": net, "options": _json({} if options is None else options)}
    with atomic_write(path) as temporary:
        try:
            safetensors.numpy.save_file(arrays, temporary, metadata)
        except safetensors.SafetensorError as error:
            raise OSError(f"{path}: cannot be written ({error})") from error


def load_params(path: str | os.PathLike[str]) -> Saved:
    """Reads what `save_params` wrote.

        params, net, options = load_params("model.safetensors")
        scores = getattr(cnn_jax.nets, net)(**options).apply(params, image)

    Arrays come back as JAX makes them: float64 as float32, unless JAX was told to keep 64 bits.

    Raises:
      ValueError: the file is damaged or is not such a file; the message names it.
      OSError: the file cannot be opened.
    """
    safetensors = _safetensors()
    with open(path, "rb"):  # for a plain FileNotFoundError or PermissionError
        pass
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata.get("format") != FORMAT:
            raise ValueError(f"format {metadata.get('format')!r}, not {FORMAT!r}")
        options = json.loads(metadata["options"])
        if not isinstance(options, dict):
            raise ValueError("options that are no dict")
        return Saved(_unflatten(arrays), metadata["net"], options)
    except Exception as error:  # whatever safetensors, NumPy and JSON make of other files
        raise ValueError(f"{path}: not a model file that can be read ({error})") from error


def export(net: Layer, params: Params, shape: tuple[int, ...]) -> bytes:
    """A network and its parameters as a program that JAX alone runs: serialized StableHLO, for cpu, cuda and tpu.

        Path("model.stablehlo").write_bytes(export(net, params, (28, 28, 1)))

    and where cnn_jax is not installed

        program = jax.export.deserialize(Path("model.stablehlo").read_bytes())
        scores = program.call(images)

    The program takes any number of images at once, float32 (N, *shape), and gives what `net.apply` gives for each.
    Convolutions are XLA's own in it. JAX promises to read it for six months; keep the file of `save_params` beside it.

    Raises a ValueError for a shape that the network does not take.
    """
    if not importlib.util.find_spec("flatbuffers"):
        raise ImportError("export needs FlatBuffers: pip install 'cnn_jax[experiments]'")
    (some,) = jax.export.symbolic_shape("N")
    images = jax.ShapeDtypeStruct((some, *shape), np.float32)
    program = jax.jit(lambda images: jax.vmap(net.apply, (None, 0))(params, images))
    return bytes(jax.export.export(program, platforms=("cpu", "cuda", "tpu"))(images).serialize())


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("saving and loading need safetensors: pip install 'cnn_jax[experiments]'") from error
    return safetensors


def _json(options: Any) -> str:
    if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
        raise TypeError(f"options: expected a dict with text keys, got {options!r}")
    try:
        return json.dumps(dict(options), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"options: expected what JSON knows, got {error}") from error


def _flatten(params: Params) -> dict[str, np.ndarray]:
    def bare(part: Any) -> bool:
        return part is None or (isinstance(part, dict | list | tuple) and not part and part is not params)

    arrays = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params, is_leaf=bare):
        names, place = [getattr(entry, "key", None) for entry in path], jax.tree_util.keystr(path)
        if len(names) > DEEPEST:
            raise TypeError(f"params: expected dicts nested at most {DEEPEST} deep, got {len(names)}")
        if not names or not all(isinstance(name, str) and "/" not in name for name in names):
            raise TypeError(f"params: expected nested dicts with text keys without '/', got {place!r}")
        if names == ["__metadata__"]:
            raise TypeError("params: expected no key '__metadata__', which safetensors keeps for itself")
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
            raise TypeError(f"params: expected arrays, got {leaf!r} at {place}")
        if leaf.dtype.name not in DTYPES:
            raise TypeError(f"params: expected arrays of {sorted(DTYPES)}, got {leaf.dtype} at {place}")
        arrays["/".join(map(str, names))] = np.require(leaf, requirements="C")
    return arrays


def _unflatten(arrays: Mapping[str, np.ndarray]) -> Params:
    params: Params = {}
    for path, array in arrays.items():
        *rooms, name = path.split("/")
        if len(rooms) >= DEEPEST:
            raise ValueError(f"params nested deeper than {DEEPEST}")
        room = params
        for part in rooms:
            room = room.setdefault(part, {})
            if not isinstance(room, dict):
                raise ValueError(f"an array where {path!r} needs a dict")
        if name in room:
            raise ValueError(f"a dict where {path!r} needs an array")
        room[name] = jax.numpy.asarray(array)
    return params
