import ctypes
import sys

import pytest

from cnn_jax import _malloc


class Library:
    """glibc, as far as the settings go; it fails for one of them if asked to."""

    def __init__(self, fails=None):
        self.calls = []
        self.fails = fails

    def mallopt(self, parameter, value):
        self.calls.append((parameter, value))
        return int(parameter != self.fails)


def test_every_setting_is_made(monkeypatch):
    library = Library()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    assert _malloc.keep_freed_memory()
    assert dict(library.calls) == _malloc.SETTINGS


def test_a_setting_that_fails_is_reported(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library(fails=_malloc.M_TOP_PAD))
    assert not _malloc.keep_freed_memory()


@pytest.mark.parametrize("without", ["linux", "glibc", "mallopt"])
def test_nothing_happens_without_glibc(monkeypatch, without):
    def load(name):
        if without == "glibc":
            raise OSError(name)
        return object()

    monkeypatch.setattr(sys, "platform", "darwin" if without == "linux" else "linux")
    monkeypatch.setattr(ctypes, "CDLL", load)
    assert not _malloc.keep_freed_memory()
