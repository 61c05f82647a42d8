"""Settings for every test: strict JAX, and property tests that draw the same examples every time.

`pytest --hypothesis-profile=thorough` draws eight times as many examples.

Most programs here take longer to compile than to run, so LLVM's optimizations are off, also in the scripts that tests
start. JAX_DISABLE_MOST_OPTIMIZATIONS=0 turns them on: `.ci/run` tests both ways.

CNN_JAX_TEST_CPU=default leaves XLA's own settings, which `configure_cpu` changes.

`.ci/run annotations` checks the annotations of cnn_jax at run time.
"""

import contextlib
import gc
import importlib
import os
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # before JAX reads it
os.environ["CNN_JAX_COSTS"] = ""  # the built-in constants, whatever was calibrated here

import jax
import jaxtyping
import pytest
from hypothesis import settings
from jax.experimental.compilation_cache import compilation_cache as jax_cache

jax.config.update("jax_num_cpu_devices", 4)  # test_transforms needs several
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Scripts: one needs Atheris, the others run on import.
collect_ignore = ["helpers/fuzz.py", "helpers/typed_user.py", "helpers/bare_install.py"]

settings.register_profile("quick", derandomize=True, deadline=None, database=None, max_examples=25)
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=200)
settings.load_profile("quick")


@pytest.hookimpl(trylast=True)  # after the hook that checks annotations
def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("CNN_JAX_TEST_CPU") != "default":
        importlib.import_module("cnn_jax").configure_cpu()
    if config.getoption("jaxtyping_packages", None):
        pytest.raises = _raises_without_annotation_checks(pytest.raises)


def _raises_without_annotation_checks(raises: Any) -> Any:
    """`pytest.raises` for calls that break annotations on purpose, to see the library's own error."""

    @contextlib.contextmanager
    def wrapped(*args: Any, **options: Any) -> Iterator[Any]:
        with raises(*args, **options) as info:
            jaxtyping.config.update("jaxtyping_disable", True)
            try:
                yield info
            finally:
                jaxtyping.config.update("jaxtyping_disable", False)

    return wrapped


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `pytest -n`, the tests of a file share a process, and so the programs that they compile."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log) if config.getvalue("dist") == "load" else None


def pytest_collection_finish() -> None:
    gc.freeze()  # the collector need not look through all imported modules again


@pytest.fixture
def optimized() -> Iterator[None]:
    """Compiles with LLVM's optimizations, as users do, where they could change the result."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] != "0")


@pytest.fixture(scope="module")
def compile_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For modules whose tests build equal programs again and again: `pytestmark = pytest.mark.usefixtures(...)`."""
    folder = str(tmp_path_factory.getbasetemp() / "compiled")
    options = {"jax_compilation_cache_dir": folder, "jax_persistent_cache_min_compile_time_secs": 0}
    before = {name: getattr(jax.config, name) for name in options}
    if before["jax_compilation_cache_dir"] is None:
        for name, value in options.items():
            jax.config.update(name, value)
        jax_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    jax_cache.reset_cache()
