"""Settings for every test: strict JAX, warnings are errors, and property tests that draw the same examples every time.

`pytest --hypothesis-profile=thorough` draws eight times as many.

Most programs here take longer to compile than to run, so LLVM's optimizations are off, in the scripts that tests start
too. JAX_DISABLE_MOST_OPTIMIZATIONS=0 leaves them on: `.ci/run` tests both ways.
"""

import gc
import os
from collections.abc import Iterator

os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # before JAX reads it

import jax
import pytest
from hypothesis import settings

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

collect_ignore = ["helpers/fuzz.py"]  # a script, and Atheris is no test's dependency

settings.register_profile("quick", derandomize=True, deadline=None, database=None, max_examples=25)
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=200)
settings.load_profile("quick")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "error")


# The files that take longest, which go first: so all workers end at about the same time.
LONGEST = ("scores", "killed", "experiments", "convolution", "search", "first_tries", "kinds_of_layers", "incumbents")
LONGEST += ("training", "throughput", "explain", "fields", "draw", "learning", "find", "readme", "scaling")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


def pytest_collection_finish() -> None:
    gc.freeze()  # what is loaded by now stays: the collector need not look through it again and again


@pytest.fixture
def optimized() -> Iterator[None]:
    """Programs compiled as users have them, where LLVM's optimizations could change what a test is about."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] != "0")
