"""The package as a whole: what importing it costs, what it hands on, and which rooms may import which."""

import ast
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

import cnn_jax

ROOT = Path(cnn_jax.__file__).parent
HEAVY = ("matplotlib", "PIL", "pooch", "safetensors", "rich", "scipy.ndimage", "orbax")

# The floors of the house: a room imports from floors below its own alone.
FLOORS = {
    0: ("windows", "fourier", "im2col", "files", "memory", "parallel", "progress"),
    1: ("sliding", "pooling", "warping", "figures", "initializers", "optimizers", "feeding"),
    2: ("convolution", "poses"),
    3: ("patches",),
    4: ("matching", "augment", "data"),
    5: ("layers", "search"),
    6: ("fields", "norms", "resuming"),
    7: ("nets", "costs", "explain", "training", "checkpoint"),
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}


def test_importing_is_light():
    code = "import json, sys; import cnn_jax; print(json.dumps(sorted(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": str(ROOT.parent)}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert answer.stderr == ""
    loaded = json.loads(answer.stdout)
    assert "cnn_jax.layers" in loaded
    assert [name for name in loaded if name.startswith(HEAVY)] == []


@pytest.mark.parametrize("name", cnn_jax.__all__)
def test_public_names_are_there_and_explained(name):
    assert len(getattr(cnn_jax, name).__doc__.strip()) > 20


def test_names_are_listed_once_and_in_order():
    assert list(cnn_jax.__all__) == sorted(set(cnn_jax.__all__))


def test_types_are_marked():
    assert (ROOT / "py.typed").is_file()


def rooms_imported(path):
    """The rooms of the package that a file imports from, wherever in it."""
    package = ("cnn_jax", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            start = ".".join((*base, *([node.module] if node.module else [])))
            names = [f"{start}.{alias.name}" for alias in node.names] if start else []
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("cnn_jax."))


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_room_imports_from_its_floor_or_above(path):
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if room == "__init__":
        return
    for other in rooms_imported(path):
        assert other == room == "data" or FLOOR[other] < FLOOR[room], f"{room} imports {other}"


def test_imports_are_seen():
    assert set(rooms_imported(ROOT / "training.py")) >= {"layers", "progress"}
    assert set(rooms_imported(ROOT / "data" / "omniglot.py")) == {"data"}
    assert "experiments" not in set(rooms_imported(ROOT / "__init__.py"))


@pytest.mark.parametrize(
    ("room", "missing"), [("figures", "matplotlib.figure"), ("data.images", "PIL"), ("data.cache", "pooch")]
)
def test_rooms_say_what_to_install(monkeypatch, room, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, f"cnn_jax.{room}", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'cnn_jax\[experiments\]'"):
        importlib.import_module(f"cnn_jax.{room}")


def test_functions_say_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"safetensors: pip install 'cnn_jax\[experiments\]'"):
        cnn_jax.save_params(tmp_path / "a", {"a": jnp.zeros(1)})
    with pytest.raises(ImportError, match=r"safetensors: pip install 'cnn_jax\[experiments\]'"):
        cnn_jax.load_params(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def dangers(text):
    """What in a source could run what a file says, or write where it says."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            yield from {name.split(".")[0] for name in names} & {"pickle", "marshal", "shelve", "cloudpickle"}
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield from {name} & {"exec", "extract", "extractall"}
            yield from ["eval"] * (isinstance(node.func, ast.Name) and name == "eval")
            allowed = [option.value for option in node.keywords if option.arg == "allow_pickle"]
            yield from ["allow_pickle" for value in allowed if ast.unparse(value) != "False"]


def test_nothing_unpickles_executes_or_unpacks_what_it_reads():
    assert set(dangers("import pickle; eval(x); tar.extractall(); np.load(f, allow_pickle=True)")) == {
        "pickle",
        "eval",
        "extractall",
        "allow_pickle",
    }
    for path in [*ROOT.rglob("*.py"), *ROOT.parent.joinpath("experiments").glob("*.py")]:
        assert not list(dangers(path.read_text())), path
