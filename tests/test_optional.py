"""Optional dependencies: what is missing, who needs it, and how to install it."""

import importlib
import sys

import pytest

from cnn_jax import data
from cnn_jax._optional import optional_import
from cnn_jax.data import image_io


def test_installed_packages_are_imported():
    with optional_import(needed_by="a test", extra="test"):
        import json
    assert json.loads("1") == 1


@pytest.mark.parametrize("module", ["missing_package", "missing_package.part"])
def test_a_missing_package_is_named_with_its_user_and_its_extra(module):
    with (
        pytest.raises(
            ImportError, match=r"^find_things needs missing_package: pip install 'cnn_jax\[things\]'$"
        ) as caught,
        optional_import(needed_by="find_things", extra="things"),
    ):
        importlib.import_module(module)
    assert caught.value.name == "missing_package"
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_other_errors_pass_unchanged():
    with pytest.raises(ZeroDivisionError), optional_import(needed_by="a test", extra="test"):
        _ = 1 / 0


@pytest.mark.parametrize(
    ("module", "needed_by", "missing"),
    [
        ("image_io", "cnn_jax.data.image_io", "PIL"),
        ("letters", "cnn_jax.data.letters", "PIL"),
        ("letters", "cnn_jax.data.letters", "scipy"),
        ("_download", "cnn_jax.data", "pooch"),
    ],
)
def test_data_modules_name_their_extra(monkeypatch, module, needed_by, missing):
    monkeypatch.delitem(sys.modules, f"cnn_jax.data.{module}", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"^{needed_by} needs {missing}: pip install 'cnn_jax\[data\]'$"):
        importlib.import_module(f"cnn_jax.data.{module}")


def test_image_files_are_read_without_scipy(monkeypatch):
    monkeypatch.setattr(data, "image_io", image_io)  # restores the module after the test
    monkeypatch.delitem(sys.modules, "cnn_jax.data.image_io")
    monkeypatch.setitem(sys.modules, "scipy", None)
    importlib.import_module("cnn_jax.data.image_io")
