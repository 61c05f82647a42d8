"""Functions that compare by their contents, so that equal ones share a compiled program.

JAX finds compiled programs by the identity of a function: a closure that is made anew, such as the second of two calls
of `optax.adam(1e-3)`, is compiled again, and a function whose global variables have changed is not.
"""

import dis
import functools
from collections.abc import Hashable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, Generic, TypeVar

import jax
import numpy as np

T_co = TypeVar("T_co", covariant=True)

# Packages whose functions, classes and hashable objects do not change while a program runs.
CONSTANT_PACKAGES = frozenset({"cnn_jax", "jax", "jaxlib", "optax", "builtins", "math", "functools", "inspect"})
CONSTANT_MODULES = CONSTANT_PACKAGES | {"numpy"}
NUMBERS_AND_TEXT = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))
CONSTANTS = (BuiltinFunctionType, jax.Array, np.generic, np.dtype, np.ufunc)
ASSIGNMENTS = frozenset({"STORE_GLOBAL", "STORE_DEREF", "DELETE_GLOBAL", "DELETE_DEREF"})


class Contents(Generic[T_co]):
    """A function, or a tuple of them, that is equal to others of the same code and of equal variables.

    Variables are arguments with defaults, variables of enclosing functions, and global ones. Where their values may
    change unnoticed, as those of a list may, the function is equal to itself only.

    >>> def scaled_by(factor):
    ...     return lambda x: factor * x
    >>> Contents(scaled_by(2)) == Contents(scaled_by(2)), Contents(scaled_by(2)) == Contents(scaled_by(3))
    (True, False)
    """

    def __init__(self, value: T_co) -> None:
        self.value = value
        self._key = _find_key(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Contents) and self._key == other._key and self._is_unchanged(other)

    def __hash__(self) -> int:
        return hash(self._key)

    def _is_unchanged(self, other: "Contents[Any]") -> bool:
        """Whether the variables of both have their values still: a program may be traced again for other shapes."""
        return self.value is other.value or _find_key(self.value) == _find_key(other.value)


class _UnknownContentsError(Exception):
    """A value may change unnoticed."""


class _Identity:
    """Compares a value by identity, and keeps it alive."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and other._value is self._value

    def __hash__(self) -> int:
        return id(self._value)


def _find_key(value: object) -> Hashable:
    try:
        return _key(value, ())
    except _UnknownContentsError:
        return _Identity(value)


def _key(value: Any, inside: tuple[int, ...]) -> Hashable:
    """What equal contents have in common. `inside` has the ids of the values that contain this one."""
    if id(value) in inside:
        return "cycle", inside.index(id(value))
    inside = (*inside, id(value))
    if isinstance(value, NUMBERS_AND_TEXT):
        return type(value), repr(value)  # 0.0 and -0.0 are equal, but not the same
    if isinstance(value, tuple):
        return type(value), tuple(_key(item, inside) for item in value)
    if isinstance(value, dict):
        return type(value), tuple((_key(name, inside), _key(item, inside)) for name, item in value.items())
    if isinstance(value, functools.partial):
        return type(value), _key((value.func, value.args, value.keywords), inside)
    if isinstance(value, FunctionType):
        return _function_key(value, inside)
    if _is_constant(value):
        return value if type(value).__eq__ is not object.__eq__ and isinstance(value, Hashable) else _Identity(value)
    raise _UnknownContentsError


def _function_key(function: FunctionType, inside: tuple[int, ...]) -> Hashable:
    is_of_constant_package = _package(function.__module__) in CONSTANT_PACKAGES
    if is_of_constant_package and "<" not in function.__qualname__:  # neither <locals> nor <lambda>
        return _Identity(function)
    try:
        variables = tuple(cell.cell_contents for cell in function.__closure__ or ())
    except ValueError as error:  # a variable that has no value yet
        raise _UnknownContentsError from error
    used: dict[str, Any] = {}
    if not is_of_constant_package:
        _check_assigns_nothing(function.__code__)
        names = sorted(set(_global_names(function.__code__)) & function.__globals__.keys())
        used = {name: function.__globals__[name] for name in names}
    contents = (function.__defaults__, function.__kwdefaults__, variables, used)
    return _Identity(function.__code__), _key(contents, inside)


def _check_assigns_nothing(code: CodeType) -> None:
    """Raises an error for a function that assigns to variables outside of it, for example to count its calls."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ASSIGNMENTS and instruction.argval not in code.co_cellvars:
            raise _UnknownContentsError


def _global_names(code: CodeType) -> Iterator[str]:
    """The names that a function and those inside of it look up elsewhere."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant)


def _is_constant(value: object) -> bool:
    """Whether a value stays as it is."""
    if isinstance(value, ModuleType):
        return _package(value.__name__) in CONSTANT_MODULES
    if isinstance(value, type):
        return _package(value.__module__) in CONSTANT_MODULES
    is_of_constant_package = _package(type(value).__module__) in CONSTANT_PACKAGES - {"builtins"}
    return isinstance(value, CONSTANTS) or (is_of_constant_package and isinstance(value, Hashable))


def _package(module: str | None) -> str:
    return (module or "").split(".")[0]
