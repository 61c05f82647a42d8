"""Options of layers: in one form that can be hashed, as they are printed, and as they are pickled."""

import pkgutil
import types
from collections.abc import Sequence

from ._padding import explicit_padding
from ._typing import Padding, Pair
from ._validation import as_pair


def check_window(
    name: str, window: int | Sequence[int], stride: int | Sequence[int], padding: Padding
) -> tuple[Pair, Pair, Padding]:
    """A window and a stride as pairs, and a padding that can be hashed, checked when the layer is made.

    >>> check_window("window", 2, [1, 2], [[0, 1], [0, 0]])
    ((2, 2), (1, 2), ((0, 1), (0, 0)))
    """
    window = as_pair(name, window)
    stride = as_pair("stride", stride)
    pads = explicit_padding(padding, window, window, stride, names=("image", name))
    return window, stride, padding if isinstance(padding, str) else pads


class _Reference(str):
    """The name of an object, "module:qualified.name", in place of it in a pickle."""


def to_pickle(value: object) -> object:
    """A name in place of a compiled function such as `jax.nn.relu`, which cannot be pickled itself.

    >>> import jax
    >>> to_pickle(jax.numpy.tanh)
    'jax.numpy:tanh'
    """
    if not callable(value) or isinstance(value, types.FunctionType | type):
        return value
    reference = f"{getattr(value, '__module__', None)}:{getattr(value, '__qualname__', None)}"
    try:
        is_found = pkgutil.resolve_name(reference) is value
    except (ValueError, ImportError, AttributeError):
        is_found = False
    return _Reference(reference) if is_found else value


def from_pickle(value: object) -> object:
    """The value that `to_pickle` replaced by a name.

    >>> import jax
    >>> from_pickle(to_pickle(jax.nn.relu)) is jax.nn.relu
    True
    """
    return pkgutil.resolve_name(value) if isinstance(value, _Reference) else value


def text_of(value: object) -> str:
    """An option as it is printed: functions by name, equal pairs as one number.

    >>> text_of(max), text_of((3, 3)), text_of("SAME")
    ('max', '3', "'SAME'")
    """
    if isinstance(value, tuple) and len(value) == 2 and type(value[0]) is int and value[0] == value[1]:
        return repr(value[0])
    return getattr(value, "__name__", repr(value)) if callable(value) else repr(value)
