"""The package as a whole: the cost of importing it, its public names, and which modules may import which."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

import cnn_jax

ROOT = Path(cnn_jax.__file__).parent
HEAVY = ("matplotlib", "PIL", "pooch", "safetensors", "rich", "scipy.ndimage", "orbax", "grain", "chex")

# A module imports only from modules before it.
LEVELS = {
    0: (
        "_typing _dtypes _errors _reprs _optional files progress _malloc _cpu _mesh_axes _programs _contents "
        "_validation _object_checks _padding _reduce_windows _geometry _xla"
    ),
    1: "_cost_model _machine_costs _faults _shift _im2col _fft _tpu_conv _lax_conv _group_costs _group_sums warping",
    2: "_algorithms _grouped _correlate _window_pools",
    3: "convolution _upsampling pooling _patch_statistics _score_inputs",
    4: "_score_formulas matching _visible_scores _mixup augment data",
    5: (
        "_layer_options initializers _params _layer_functions _layer _chain _kernel_layers _conv_variants layers "
        "_calibration norms _search_inputs _region _feature_groups _poses _peaks _pose_scores _pose_maxima _pyramid "
        "_aligned_scores _pose_refinement _disk_search _range_plan _range_pyramids _template_texture _search_options "
        "_top_candidates _coarse_to_fine _rectangles _matches _range_groups _non_max_suppression _candidates search"
    ),
    6: (
        "nets _function_or_net receptive_field _jaxpr_work costs _summary _figure_style _image_figures _chart_figures "
        "figures _logits _activations _attribution explain"
    ),
    7: (
        "_checksums _fit_arguments optimizers _hyperparameters _processes _orbax _sharding _train_state _signals "
        "_batch_loaders _batches _metrics evaluation _train_step _run_steps _history _run_checkpoint _load_checkpoint "
        "_train_loop _run_calibration _run_setup training serialization _export"
    ),
}
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT.parent)}
ORDER = [module for modules in LEVELS.values() for module in modules.split()]
# Reports name the processor as calibration does, which measures the cost model's constants. The benchmarks compare the
# methods that conv chooses from, and the settings of the CPU. Matches of tiles are merged as find merges candidates.
MAY_IMPORT_INTERNALS = {"cli", "conv_methods", "cpu_settings", "calibrate", "cost_fit", "cost_probes", "find_tiles"}


def test_importing_is_light():
    code = "import json, sys; import cnn_jax; print(json.dumps(sorted(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
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


def imported_modules(path, root=ROOT):
    """The names below cnn_jax that a file imports from, anywhere in it."""
    package = (root.name, *path.relative_to(root).parent.parts)
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
def test_modules_import_only_from_modules_before_them(path):
    module = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if module == "__init__":
        return
    for imported in imported_modules(path):
        inside_data = imported == module == "data"
        assert inside_data or ORDER.index(imported) < ORDER.index(module), f"{module} imports {imported}"


def test_every_module_has_a_level():
    names = {path.name.removesuffix(".py") for path in ROOT.iterdir() if path.suffix == ".py" or path.name == "data"}
    assert names - {"__init__"} == set(ORDER)


@pytest.mark.parametrize(
    ("code", "tests"),
    [
        (("cnn_jax",), "tests"),
        (("cnn_jax/data",), "tests/data"),
        (("experiments", "experiments/_lib"), "tests/experiments"),
    ],
)
def test_every_module_has_a_test_file_of_its_name(code, tests):
    modules = {path.stem for folder in code for path in (ROOT.parent / folder).glob("*.py")} - {"__init__"}
    tested = {path.stem.removeprefix("test_") for path in (ROOT.parent / tests).glob("test_*.py")}
    assert {name.removeprefix("_") for name in modules} <= tested


def test_contributing_has_the_same_levels():
    text = (ROOT.parent / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| (\d) \| (.*?) \|", text, re.MULTILINE)
    assert {int(level): modules.replace("`", "").replace(",", "") for level, modules in rows} == LEVELS


def test_imports_are_seen():
    assert set(imported_modules(ROOT / "training.py")) >= {"layers", "progress"}
    assert set(imported_modules(ROOT / "data" / "omniglot.py")) >= {"data"}
    assert "experiments" not in set(imported_modules(ROOT / "__init__.py"))


def test_scripts_import_no_internal_module():
    experiments = ROOT.parent / "experiments"
    for path in experiments.rglob("*.py"):
        internal = {name for name in imported_modules(path, experiments) if name.startswith("_")}
        assert path.stem in MAY_IMPORT_INTERNALS or not internal, f"{path.name} imports {internal}"


def test_no_public_module_has_the_name_of_a_public_function():
    public = {path.stem for path in ROOT.glob("*.py") if not path.stem.startswith("_")}
    functions = {name for name in cnn_jax.__all__ if callable(getattr(cnn_jax, name))}
    assert public & functions == {"receptive_field"}  # cnn_jax.receptive_field is the function


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("figures", "matplotlib.figure", "figures"),
        ("data.image_io", "PIL", "data"),
        ("data.letters", "scipy", "data"),
        ("data._download", "pooch", "data"),
    ],
)
def test_modules_name_the_extra_to_install(module, package, extra):
    """In a process of its own: modules that are imported stay as they are here."""
    code = f"""
import sys
sys.modules[{package!r}] = None
try:
    import cnn_jax.{module}
except ImportError as error:
    print(error)
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert f"{package.split('.')[0]}: pip install 'cnn_jax[{extra}]'" in answer.stdout


def test_functions_say_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r"safetensors: pip install 'cnn_jax\[io\]'"):
        cnn_jax.save_params(tmp_path / "a", {"a": jnp.zeros(1)})
    with pytest.raises(ImportError, match=r"safetensors: pip install 'cnn_jax\[io\]'"):
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
    for path in [*ROOT.rglob("*.py"), *ROOT.parent.joinpath("experiments").rglob("*.py")]:
        assert not list(dangers(path.read_text())), path


def is_public(path):
    return not any(part.startswith("_") for part in path.relative_to(ROOT).parts)


def top_level_names(tree):
    """The names that a module defines or imports, also below a `with` or an `if`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
    yield from (node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef))


@pytest.mark.parametrize("path", sorted(filter(is_public, ROOT.rglob("*.py"))), ids=lambda path: path.stem)
def test_every_public_module_lists_its_names(path):
    """Read from the source: some modules need packages that may be missing."""
    tree = ast.parse(path.read_text())
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    (listed,) = [ast.literal_eval(node.value) for node in assigned if ast.unparse(node.targets[0]) == "__all__"]
    assert listed == sorted(set(listed))
    assert not [name for name in listed if name.startswith("_")]
    assert set(listed) <= set(top_level_names(tree))


def test_figures_and_data_are_imported_when_they_are_used():
    code = """
import sys, cnn_jax
print("cnn_jax.figures" in sys.modules, "matplotlib" in sys.modules)
print(cnn_jax.figures.__name__, cnn_jax.data.__name__)
print(getattr(cnn_jax, "figure", "no figure"))
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert answer.stdout.splitlines() == ["False False", "cnn_jax.figures cnn_jax.data", "no figure"]
