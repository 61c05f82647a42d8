"""Model files: what goes in comes out, nothing else is taken for one, and a failed save spoils nothing."""

import json
import os
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from safetensors.numpy import save_file

from cnn_jax import load_params, nets, save_params
from cnn_jax.serialization import FORMAT

PARAMS = {"conv1": {"kernel": jnp.ones((3, 3, 1, 2)), "bias": jnp.zeros(2)}, "chain1": {"dense1": {"w": jnp.ones(4)}}}


def nested(depth):
    params = jnp.ones(2)
    for _ in range(depth):
        params = {"a": params}
    return params


def deep(depth):
    inner = []
    for _ in range(depth):
        inner = [inner]
    return inner


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def same(one, other):
    def equal(a, b):
        return a.dtype == b.dtype and np.array_equal(a, b)

    return jax.tree.structure(one) == jax.tree.structure(other) and jax.tree.all(jax.tree.map(equal, one, other))


def test_round_trip_of_nested_params(path):
    save_params(path, PARAMS)
    params, net, options = load_params(path)
    assert same(params, PARAMS)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))
    assert (net, options) == ("", {})


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int8", "int32", "uint8", "uint32", "bool", "complex64"])
def test_round_trip_of_dtypes(path, dtype):
    params = {"a": jnp.array([[0, 1], [1, 1]], dtype)}
    save_params(path, params)
    assert same(load_params(path).params, params)


def test_round_trip_of_odd_shapes(path):
    params = {"empty": jnp.zeros((0, 3)), "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T}
    save_params(path, params)
    assert same(load_params(path).params, params)


def test_round_trip_of_scalars(path):
    save_params(path, {"a": jnp.array(3.0)})
    assert load_params(path).params["a"].shape == ()


def test_round_trip_of_nothing_and_of_the_deepest(path):
    for params in ({}, nested(100)):
        save_params(path, params)
        assert same(load_params(path).params, params)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float8_e3m4", "int4", "uint2"])
def test_dtypes_that_would_not_come_back_are_refused(path, dtype):
    with pytest.raises(TypeError, match=rf"params: expected arrays of .*, got {dtype} at \['a'\]"):
        save_params(path, {"a": jnp.zeros(2, dtype)})
    assert not path.exists()


def test_writing_that_fails(path, monkeypatch):
    def full(*_):
        raise safetensors.SafetensorError("No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(OSError, match=r"model\.safetensors: cannot be written \(No space left"):
        save_params(path, PARAMS)


def test_the_file_alone_makes_the_network(path):
    options = {"features": (2, 3), "classes": 4}
    shapes = jax.eval_shape(lambda key: nets.xo_net(**options).init(key, (8, 8, 1)), jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    save_params(path, params, net="xo_net", options=options)
    saved = load_params(path)
    assert (saved.net, saved.options) == ("xo_net", {"features": [2, 3], "classes": 4})
    net = getattr(nets, saved.net)(**saved.options)
    assert jax.eval_shape(net.apply, saved.params, jnp.zeros((8, 8, 1))).shape == (4,)


def test_text_of_any_language(path):
    save_params(path, PARAMS, net="Netz-Ü", options={"名": ["é", None, True, 1.5, {"a": []}]})
    assert load_params(path)[1:] == ("Netz-Ü", {"名": ["é", None, True, 1.5, {"a": []}]})


def test_saving_makes_folders_and_replaces(tmp_path):
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
        (PARAMS, {"options": {"a": deep(100_000)}}),
    ],
)
def test_a_failed_save_keeps_the_old_file_and_leaves_no_other(path, params, options):
    save_params(path, {"old": jnp.ones(2)}, net="old")
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_params(path, params, **options)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_saving_into_what_is_no_folder(tmp_path):
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
def test_what_is_no_model_file_is_refused_by_name(path, write):
    write(path)
    with pytest.raises(ValueError, match=r"model\.safetensors: not a model file"):
        load_params(path)


def test_a_missing_file(path):
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        load_params(path)


def test_a_folder(tmp_path):
    with pytest.raises(OSError, match=tmp_path.name):
        load_params(tmp_path)
