"""Optional dependencies: a missing one is reported by one error that names the extra to install."""

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def optional_import(*, needed_by: str, extra: str) -> Iterator[None]:
    """Wraps import statements of packages that only some users need.

        with optional_import(needed_by="save_params", extra="io"):
            import safetensors.numpy

    Args:
      needed_by: the public name that needs the package.
      extra: the extra of cnn_jax that installs it.

    Raises:
      ImportError: the package is missing; the message names it, what needs it and the extra.

    >>> with optional_import(needed_by="save_params", extra="io"):
    ...     import a_missing_package.numpy
    Traceback (most recent call last):
    ImportError: save_params needs a_missing_package: pip install 'cnn_jax[io]'
    """
    try:
        yield
    except ImportError as error:
        package = (error.name or str(error)).split(".")[0]
        raise ImportError(f"{needed_by} needs {package}: pip install 'cnn_jax[{extra}]'", name=error.name) from error
