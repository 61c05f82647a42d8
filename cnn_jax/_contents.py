"""Functions that compare by their contents, so that equal ones share a compiled program.

JAX finds compiled programs by the identity of a function: a closure that is made anew, such as the second of two calls
of `optax.adam(1e-3)`, is compiled again, and a function whose global variables have changed is not.
"""

import dis
import functools
from collections.abc import Hashable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Generic, TypeVar

import jax
import numpy as np

T_co = TypeVar("T_co", covariant=True)

# Packages whose functions, classes and hashable objects do not change while a program runs.
CONSTANT_PACKAGES = frozenset({"cnn_jax", "jax", "jaxlib", "optax", "builtins", "math", "functools", "inspect"})
CONSTANT_MODULES = CONSTANT_PACKAGES | {"numpy"}
NUMBERS_AND_TEXT = frozenset({bool, int, float, complex, str, bytes, type(None), type(Ellipsis)})
CONSTANTS = (jax.Array, np.dtype, np.ufunc)
ASSIGNMENTS = frozenset({"STORE_GLOBAL", "STORE_DEREF", "DELETE_GLOBAL", "DELETE_DEREF"})


class Contents(Generic[T_co]):
    """A function, or a tuple of them, that is equal to others that compute the same.

    Functions that JAX, optax or this package made are equal to others of the same code and of equal variables, partial
    functions to others of equal functions and arguments. Any other function is equal to itself only, while its
    variables keep their values: arguments with defaults, variables of enclosing functions, and global ones. A change
    inside of a list, a dict, an array or another object is not noticed.

    >>> import optax
    >>> Contents(optax.sgd(0.1)) == Contents(optax.sgd(0.1)), Contents(optax.sgd(0.1)) == Contents(optax.sgd(0.2))
    (True, False)
    """

    def __init__(self, value: T_co) -> None:
        self.value = value
        self._key = find_key(value, variables=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Contents) and self._key == other._key and self._is_unchanged(other)

    def __hash__(self) -> int:
        return hash(self._key)

    def _is_unchanged(self, other: "Contents[Any]") -> bool:
        """Whether the variables of both have their values still: a program may be traced again for other shapes."""
        return self.value is other.value or find_key(self.value, variables=True) == find_key(
            other.value, variables=True
        )


class ComparedByContents:
    """A base class of objects whose `==` compares all that they compute with."""


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


def find_key(value: object, *, variables: bool = False) -> Hashable:
    """What equal contents have in common; a value's identity, if it may change unnoticed.

    Args:
      value: any value.
      variables: whether the values of variables belong to users' functions, beside their identity.

    >>> find_key((2, "a")) == find_key((2, "a")), find_key(2) == find_key(2.0), find_key({2}) == find_key({2})
    (True, False, False)
    """
    return _key_or_identity(value, (), variables)


def _key_or_identity(value: object, inside: tuple[int, ...], variables: bool) -> Hashable:
    try:
        return _key(value, inside, variables)
    except _UnknownContentsError:
        return _Identity(value)


def _key(value: Any, inside: tuple[int, ...], variables: bool) -> Hashable:
    """What equal contents have in common. `inside` has the ids of the values that contain this one."""
    if id(value) in inside:
        return "cycle", inside.index(id(value))
    key = functools.partial(_key, inside=(*inside, id(value)), variables=variables)
    kind = type(value)
    if kind in NUMBERS_AND_TEXT:
        return kind, repr(value)  # 0.0 and -0.0 are equal, but not the same
    if isinstance(value, np.generic):
        return kind, value.dtype.str, value.tobytes()
    if kind in (tuple, list) or (issubclass(kind, tuple) and _package(kind.__module__) in CONSTANT_PACKAGES):
        return kind, tuple(key(item) for item in value)
    if kind is dict:
        return kind, tuple((key(name), key(item)) for name, item in value.items())
    if kind is functools.partial and not vars(value):
        return kind, key((value.func, value.args, value.keywords))
    if kind is MethodType:
        return kind, _key_or_identity(value.__self__, inside, variables), key(value.__func__)
    if kind is FunctionType:
        return _function_key(value, (*inside, id(value)), variables)
    if _package(kind.__module__) == "optax" and hasattr(value, "__dict__") and kind.__eq__ is object.__eq__:
        return kind, key(vars(value))
    if _is_constant(value):
        return value if kind.__eq__ is not object.__eq__ and isinstance(value, Hashable) else _Identity(value)
    raise _UnknownContentsError


def _function_key(function: FunctionType, inside: tuple[int, ...], variables: bool) -> Hashable:
    """The code and the variables of a function made by a constant package; the identity of any other function."""
    is_inner = "<" in function.__qualname__  # <locals> or <lambda>
    is_constant = _package(function.__globals__.get("__name__")) in CONSTANT_PACKAGES
    if is_constant and is_inner and not vars(function).keys() - {"__wrapped__"}:
        contents = function.__defaults__, function.__kwdefaults__, _cells(function)
        return _Identity(function.__code__), _key(contents, inside, variables)
    if is_constant or not variables or _assigns(function.__code__):
        return _Identity(function)
    # Every call may change a list or a dict.
    keys = [
        _Identity(value) if isinstance(value, list | dict) else _key_or_identity(value, inside, variables)
        for value in _variables(function)
    ]
    return _Identity(function), tuple(keys)


def _variables(function: FunctionType) -> Iterator[object]:
    """The values of a function's defaults and of the variables of enclosing functions and of the module."""
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    yield from _cells(function)
    for name in sorted(set(_global_names(function.__code__)) & function.__globals__.keys()):
        yield function.__globals__[name]


def _cells(function: FunctionType) -> tuple[object, ...]:
    """The values of the variables of enclosing functions."""
    try:
        return tuple(cell.cell_contents for cell in function.__closure__ or ())
    except ValueError as error:  # a variable that has no value yet
        raise _UnknownContentsError from error


def _assigns(code: CodeType) -> bool:
    """Whether a function assigns to variables outside of it, for example to count its calls."""
    return any(
        instruction.opname in ASSIGNMENTS and instruction.argval not in code.co_cellvars
        for instruction in dis.get_instructions(code)
    )


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
    if isinstance(value, BuiltinFunctionType):
        return value.__self__ is None or isinstance(value.__self__, ModuleType)
    if isinstance(value, (*CONSTANTS, ComparedByContents)):
        return True
    return _package(type(value).__module__) in CONSTANT_PACKAGES - {"builtins"} and isinstance(value, Hashable)


def _package(module: str | None) -> str:
    return (module or "").split(".")[0]
