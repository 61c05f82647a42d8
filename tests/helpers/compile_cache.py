"""Programs that several tests compile are compiled once: JAX's persistent cache, in the session's temporary folder."""

from collections.abc import Iterator

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache as jax_cache


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
