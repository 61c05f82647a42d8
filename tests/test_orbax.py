"""What is told to Orbax, and what of its noise is heard."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from cnn_jax import _orbax


def report(message, subject=None) -> Any:
    """What Python hands to the hook."""
    return SimpleNamespace(exc_value=RuntimeError(message), object=subject)


def test_abandoned_tasks_are_silent_and_all_else_is_heard(monkeypatch):
    heard = []
    monkeypatch.setattr(sys, "unraisablehook", heard.append)
    other = [report("another error"), report("Event loop is closed", subject="somebody's")]
    with _orbax.silence_abandoned_tasks():
        for unraisable in (report("Event loop is closed"), *other):
            sys.unraisablehook(unraisable)
    assert heard == other


def test_the_hook_is_restored():
    before = sys.unraisablehook
    with pytest.raises(KeyError), _orbax.silence_abandoned_tasks():  # noqa: PT012
        assert sys.unraisablehook is not before
        raise KeyError
    assert sys.unraisablehook is before


def test_a_hook_that_somebody_else_installed_stays(monkeypatch):
    def theirs(unraisable):
        pass

    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    with _orbax.silence_abandoned_tasks():
        sys.unraisablehook = theirs
    assert sys.unraisablehook is theirs


def test_a_missing_orbax_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match=r"checkpoint_dir.*pip install 'cnn_jax\[train\]'"):
        _orbax.import_orbax()
