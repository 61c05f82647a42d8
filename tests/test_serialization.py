"""Model files: what is saved is loaded, other files are refused, and a failed save changes nothing."""

import json
import os
import pickle
import sys
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from safetensors.numpy import save_file

from cnn_jax import load_params, nets, save_params
from cnn_jax.serialization import FORMAT

PARAMS: dict[str, Any] = {
    "conv1": {"kernel": jnp.ones((3, 3, 1, 2)), "bias": jnp.zeros(2)},
    "chain1": {"dense1": {"w": jnp.ones(4)}},
}


def nested(depth):
    params: Any = jnp.ones(2)
    for _ in range(depth):
        params = {"a": params}
    return params


def nested_lists(depth):
    lists = []
    for _ in range(depth):
        lists = [lists]
    return lists


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def assert_same(params, expected):
    """The same arrays of the same dtypes in the same tree."""
    chex.assert_trees_all_equal(params, expected, strict=True)


def test_round_trip_of_nested_params(path):
    save_params(path, PARAMS)
    params, net, options = load_params(path)
    assert_same(params, PARAMS)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))
    assert (net, options) == ("", {})


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "int32", "uint8", "uint32", "bool", "complex64"])
def test_round_trip_of_dtypes(path, dtype):
    params = {"a": jnp.array([[0, 1], [1, 1]], dtype)}
    save_params(path, params)
    assert_same(load_params(path).params, params)


def test_round_trip_of_odd_shapes(path):
    params = {"empty": jnp.zeros((0, 3)), "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T}
    save_params(path, params)
    assert_same(load_params(path).params, params)


def test_round_trip_of_scalars(path):
    save_params(path, {"a": jnp.array(3.0)})
    assert load_params(path).params["a"].shape == ()


def test_round_trip_of_empty_and_of_deeply_nested_params(path):
    for params in ({}, nested(100)):
        save_params(path, params)
        assert_same(load_params(path).params, params)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float8_e3m4", "int4", "uint2"])
def test_dtypes_that_a_file_cannot_hold_are_refused(path, dtype):
    with pytest.raises(TypeError, match=rf"params: expected arrays of .*, got {dtype} at \['a'\]"):
        save_params(path, {"a": jnp.zeros(2, dtype)})
    assert not path.exists()


def test_an_error_of_safetensors_is_an_os_error(path, monkeypatch):
    def full(*_):
        raise safetensors.SafetensorError("No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(OSError, match=r"model\.safetensors: cannot be written \(No space left"):
        save_params(path, PARAMS)


def test_the_network_can_be_made_from_the_file_alone(path):
    options = {"features": (2, 3), "classes": 4}
    shapes = jax.eval_shape(lambda key: nets.xo_net(**options).init(key, (8, 8, 1)), jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    save_params(path, params, net="xo_net", options=options)
    saved = load_params(path)
    assert (saved.net, saved.options) == ("xo_net", {"features": [2, 3], "classes": 4})
    net = getattr(nets, saved.net)(**saved.options)
    assert jax.eval_shape(net.apply, saved.params, jnp.zeros((8, 8, 1))).shape == (4,)


def test_round_trip_of_text_in_any_language(path):
    save_params(path, PARAMS, net="Netz-Ü", options={"名": ["é", None, True, 1.5, {"a": []}]})
    assert load_params(path)[1:] == ("Netz-Ü", {"名": ["é", None, True, 1.5, {"a": []}]})


def test_a_network_whose_statistics_were_never_taken_is_refused(path):
    params = nets.digit_net(features=((2,),)).init(jax.random.key(0), (4, 4, 1))
    with pytest.raises(ValueError, match=r"params: expected batch_norm1/variance .* never taken; call calibrate"):
        save_params(path, params)
    assert not path.exists()


def test_saving_creates_folders_and_replaces_files(tmp_path):
    path = tmp_path / "a" / "b" / "model.safetensors"
    save_params(str(path), {"a": jnp.zeros(2)})
    save_params(str(path), {"a": jnp.ones(2)})
    np.testing.assert_array_equal(load_params(path).params["a"], 1)
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    ("params", "options"),
    [
        (PARAMS, {"options": {"a": object()}}),
        (PARAMS, {"options": {"a": np.float32(1)}}),
        (PARAMS, {"net": 3}),
        ({"a": [jnp.ones(2)]}, {}),
        ({"a": {1: jnp.ones(2)}}, {}),
        ({"a/b": jnp.ones(2)}, {}),
        (jnp.ones(2), {}),
        ({"a": "text"}, {}),
        ({"a": np.array([None])}, {}),
        ({"a": jax.random.key(0)}, {}),
        ({"a": np.zeros(2, np.complex128)}, {}),
        ({"a": {}, "b": jnp.ones(2)}, {}),
        ({"a": [], "b": jnp.ones(2)}, {}),
        ({"a": None}, {}),
        (nested(101), {}),
        (PARAMS, {"net": None}),
        (PARAMS, {"options": [1]}),
        (PARAMS, {"options": {1: 2}}),
        (PARAMS, {"options": {"a": float("nan")}}),
        (PARAMS, {"options": {"a": nested_lists(100_000)}}),
    ],
)
def test_a_failed_save_keeps_the_old_file_and_leaves_no_other(path, params, options):
    save_params(path, {"old": jnp.ones(2)}, net="old")
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_params(path, params, **options)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_saving_into_a_file_as_a_folder_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(OSError, match="file"):
        save_params(tmp_path / "file" / "model.safetensors", PARAMS)


def other_safetensors(path):
    save_file({"a": np.ones(2)}, path)


def other_options(path):
    save_file({"a": np.ones(2)}, path, {"format": FORMAT, "net": "", "options": json.dumps([1])})


def no_options(path):
    save_file({"a": np.ones(2)}, path, {"format": FORMAT})


def tensors(*names):
    def write(path):
        save_file({name: np.ones(2) for name in names}, path, {"format": FORMAT, "net": "", "options": "{}"})

    return write


def float8(path):
    arrays = {"a": np.asarray(jnp.ones(2, jnp.float8_e5m2))}
    save_file(arrays, path, {"format": FORMAT, "net": "", "options": "{}"})


def deep_options(path):
    options = '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"
    save_file({"a": np.ones(2)}, path, {"format": FORMAT, "net": "", "options": options})


def newer_format(path):
    save_file({"a": np.ones(2)}, path, {"format": FORMAT + "0", "net": "", "options": "{}"})


def truncated(path):
    save_params(path, PARAMS)
    path.write_bytes(path.read_bytes()[:-10])


def cut_header(path):
    save_params(path, PARAMS)
    path.write_bytes(path.read_bytes()[:50])


def corrupt_header(path):
    save_params(path, PARAMS)
    content = bytearray(path.read_bytes())
    content[8:40] = bytes(range(200, 232))
    path.write_bytes(content)


def huge_header(path):
    path.write_bytes(b"\xff" * 8 + b"{}")


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("not a model")


def pickled(path):
    path.write_bytes(pickle.dumps({"a": np.ones(2)}))


@pytest.mark.parametrize(
    "write",
    [
        other_safetensors,
        other_options,
        no_options,
        tensors("a", "a/b"),
        tensors("a", "a/b/c"),
        tensors("a/b", "a/b/c"),
        tensors("/".join("a" * 101)),
        tensors("/".join("a" * 100_000)),
        float8,
        deep_options,
        newer_format,
        truncated,
        cut_header,
        corrupt_header,
        huge_header,
        empty,
        text,
        pickled,
    ],
)
def test_other_files_are_refused_by_name(path, write):
    write(path)
    with pytest.raises(ValueError, match=r"model\.safetensors: not a model file"):
        load_params(path)


def test_a_missing_file_is_named(path):
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        load_params(path)


def test_a_folder_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match=tmp_path.name):
        load_params(tmp_path)


@pytest.mark.parametrize("call", [save_params, load_params])
def test_missing_safetensors_are_named_with_their_extra(monkeypatch, tmp_path, call):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=rf"{call.__name__} needs safetensors: pip install 'cnn_jax\[io\]'"):
        call(tmp_path / "a", *([{"a": jnp.zeros(1)}] if call is save_params else []))
    assert list(tmp_path.iterdir()) == []
