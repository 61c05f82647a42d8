"""Model files: parameters in the safetensors format, which holds data only and no executable code."""

import json
import os
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from ._calibration import check_calibrated
from ._errors import describe
from ._optional import optional_import
from ._reprs import tree_text
from ._typing import JsonObject
from .files import atomic_write, local_path
from .layers import Params

__all__ = ["SavedModel", "load_params", "save_params"]

FORMAT = "cnn_jax 1"
SEPARATOR = "/"  # between the keys of nested dicts in a file
# Dtypes that NumPy reads from a file. Safetensors can hold some of float8 too, but NumPy reads none of them.
DTYPES = frozenset({"bool", "bfloat16", "float16", "float32", "float64", "complex64"}) | {
    f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)
}
MAX_DEPTH = 100  # of nested dicts: Python and JAX walk trees by recursion, which is limited


class SavedModel(NamedTuple):
    """The contents of a model file."""

    params: Params
    net: str
    """The name of a network in `cnn_jax.nets`."""
    options: JsonObject
    """The arguments that the network was made with, as JSON holds them."""

    def __repr__(self) -> str:
        return f"SavedModel(params=<{tree_text(self.params)}>, net={self.net!r}, options={self.options!r})"


def save_params(
    path: str | os.PathLike[str], params: Params, *, net: str = "", options: Mapping[str, object] | None = None
) -> None:
    """Writes parameters to a safetensors file, with the name and options of their network.

    Args:
      path: the file. It is written atomically.
      params: nested dicts of arrays, with text keys.
      net: the name of a function in `cnn_jax.nets` that makes the network.
      options: the arguments of that function, as JSON can hold them.

    Raises:
      OSError: the folder or the file cannot be written to.
      ValueError: path is a URL, or the statistics of a BatchNorm were never taken; `calibrate` takes them.
      TypeError: params are not nested dicts of arrays with text keys, contain empty dicts, or have a dtype that files
        do not hold (float8, 4 bits, random keys); net is not a string; options is not a JSON-serializable dict.
      ImportError: safetensors is not installed.

    Example:

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.safetensors")
    ...     save_params(path, {"dense1": {"bias": jnp.zeros(2)}}, net="xo_net", options={"features": (16, 32, 32)})
    ...     params, net, options = load_params(path)
    >>> params, net, options
    ({'dense1': {'bias': Array([0., 0.], dtype=float32)}}, 'xo_net', {'features': [16, 32, 32]})
    """
    safetensors = _import_safetensors("save_params")
    path = local_path(path)
    arrays = _flatten(params)
    check_calibrated(params)
    if not isinstance(net, str):
        raise TypeError(f"net: expected the name of a network, got {describe(net)}")
    metadata = {"format": FORMAT, "net": net, "options": _to_json({} if options is None else options)}
    with atomic_write(path) as temporary:
        try:
            safetensors.numpy.save_file(arrays, temporary, metadata)
        except safetensors.SafetensorError as error:
            raise OSError(f"{path}: cannot be written ({error})") from error


def load_params(path: str | os.PathLike[str]) -> SavedModel:
    """Reads a file that `save_params` wrote.

    Args:
      path: the file.

    Returns:
      The parameters, the name of the network and its options. Without `jax_enable_x64` arrays of 64 bits become those
      of 32 bits.

    Raises:
      OSError: the file cannot be opened.
      ValueError: the file is damaged, or is not a model file; the message names it. Or path is a URL.
      ImportError: safetensors is not installed.

    Example:

        params, net, options = load_params("model.safetensors")
        logits = getattr(cnn_jax.nets, net)(**options).apply(params, image)
    """
    safetensors = _import_safetensors("load_params")
    path = local_path(path)
    with open(path, "rb"):  # raises a plain FileNotFoundError or PermissionError
        pass
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata.get("format") != FORMAT:
            raise ValueError(f"format: expected {FORMAT!r}, got {metadata.get('format')!r}")
        options = json.loads(metadata["options"])
        if not isinstance(options, dict):
            raise ValueError(f"options: expected a dict, got {type(options).__name__}")
        return SavedModel(params=_unflatten(arrays), net=metadata["net"], options=options)
    except Exception as error:  # safetensors, NumPy and JSON raise errors of many kinds
        raise ValueError(f"{path}: not a model file that can be read ({error})") from error


def _import_safetensors(needed_by: str) -> ModuleType:
    with optional_import(needed_by=needed_by, extra="io"):
        import safetensors.numpy
    return safetensors


def _to_json(options: object) -> str:
    if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
        raise TypeError(f"options: expected a dict with text keys, got {options!r}")
    try:
        return json.dumps(dict(options), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"options: expected a JSON-serializable dict, got {error}") from error


def _flatten(params: Params) -> dict[str, np.ndarray]:
    """The arrays by path: the keys of nested dicts, joined. Raises a TypeError for what a file cannot hold."""

    def is_empty(node: object) -> bool:
        return node is None or (isinstance(node, dict | list | tuple) and not node and node is not params)

    if not isinstance(params, Mapping):
        raise TypeError(f"params: expected nested dicts with text keys, got {describe(params)}")
    arrays = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params, is_leaf=is_empty):
        keys = [getattr(entry, "key", None) for entry in path]
        name = jax.tree_util.keystr(path)
        _check_keys(keys, name)
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
            raise TypeError(f"params: expected arrays, got {leaf!r} at {name}")
        if leaf.dtype.name not in DTYPES:
            raise TypeError(f"params: expected arrays of {sorted(DTYPES)}, got {leaf.dtype} at {name}")
        arrays[SEPARATOR.join(map(str, keys))] = np.require(leaf, requirements="C")
    return arrays


def _check_keys(keys: Sequence[object], name: str) -> None:
    if len(keys) > MAX_DEPTH:
        raise TypeError(f"params: expected dicts nested at most {MAX_DEPTH} deep, got {len(keys)}")
    if not keys or not all(isinstance(key, str) and SEPARATOR not in key for key in keys):
        raise TypeError(f"params: expected nested dicts with text keys without {SEPARATOR!r}, got {name!r}")
    if list(keys) == ["__metadata__"]:
        raise TypeError("params: expected no key '__metadata__', which safetensors reserves")


def _unflatten(arrays: Mapping[str, np.ndarray]) -> Params:
    """The nested dicts of arrays. Raises a ValueError for paths that no nested dicts have."""
    params: Params = {}
    for path, array in arrays.items():
        *parents, name = path.split(SEPARATOR)
        if len(parents) >= MAX_DEPTH:
            raise ValueError(f"params: expected dicts nested at most {MAX_DEPTH} deep, got {len(parents) + 1}")
        subtree = params
        for key in parents:
            child = subtree.setdefault(key, {})
            if not isinstance(child, dict):
                raise ValueError(f"params: expected a dict of arrays in {path!r}, got an array")
            subtree = cast(Params, child)
        if name in subtree:
            raise ValueError(f"params: expected an array at {path!r}, got a dict")
        subtree[name] = jnp.asarray(array)
    return params
