"""Settings for every test: strict JAX, warnings are errors, and property tests that draw the same examples every time.

`pytest --hypothesis-profile=thorough` draws eight times as many.
"""

import jax
import pytest
from hypothesis import settings

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

collect_ignore = ["fuzz.py"]  # a script, and Atheris is no test's dependency

settings.register_profile("quick", derandomize=True, deadline=None, database=None, max_examples=25)
settings.register_profile("thorough", settings.get_profile("quick"), max_examples=200)
settings.load_profile("quick")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "error")
