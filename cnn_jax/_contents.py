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
    variables keep their values: arguments with defaults, variables of enclosing functions, and global ones.

    >>> import optax
    >>> Contents(optax.sgd(0.1)) == Contents(optax.sgd(0.1)), Contents(optax.sgd(0.1)) == Contents(optax.sgd(0.2))
    (True, False)
    """

    def __init__(self, value: T_co) -> None:
        self.value = value
        self._key = find_key(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Contents) and self._key == other._key and self._is_unchanged(other)

    def __hash__(self) -> int:
        return hash(self._key)

    def _is_unchanged(self, other: "Contents[Any]") -> bool:
        """Whether the variables of both have their values still: a program may be traced again for other shapes."""
        return self.value is other.value or find_key(self.value) == find_key(other.value)


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


def find_key(value: object) -> Hashable:
    """What equal contents have in common; a value's identity, if it may change unnoticed.

    >>> find_key((2, "a")) == find_key((2, "a")), find_key(2) == find_key(2.0), find_key({2}) == find_key({2})
    (True, False, False)
    """
    return _key_or_identity(value, ())


def _key_or_identity(value: object, inside: tuple[int, ...]) -> Hashable:
    try:
        return _key(value, inside)
    except _UnknownContentsError:
        return _Identity(value)


def _key(value: Any, inside: tuple[int, ...]) -> Hashable:
    """What equal contents have in common. `inside` has the ids of the values that contain this one."""
    if id(value) in inside:
        return "cycle", inside.index(id(value))
    inside = (*inside, id(value))
    kind = type(value)
    if kind in NUMBERS_AND_TEXT:
        return kind, repr(value)  # 0.0 and -0.0 are equal, but not the same
    if isinstance(value, np.generic):
        return kind, value.dtype.str, value.tobytes()
    if kind in (tuple, list) or (issubclass(kind, tuple) and _package(kind.__module__) in CONSTANT_PACKAGES):
        return kind, tuple(_key(item, inside) for item in value)
    if kind is dict:
        return kind, tuple((_key(name, inside), _key(item, inside)) for name, item in value.items())
    if kind is functools.partial and not vars(value):
        return kind, _key((value.func, value.args, value.keywords), inside)
    if kind is MethodType:
        return kind, _key_or_identity(value.__self__, inside), _key(value.__func__, inside)
    if kind is FunctionType:
        return _function_key(value, inside)
    if _package(kind.__module__) == "optax" and hasattr(value, "__dict__") and kind.__eq__ is object.__eq__:
        return kind, _key(vars(value), inside)
    if _is_constant(value):
        return value if kind.__eq__ is not object.__eq__ and isinstance(value, Hashable) else _Identity(value)
    raise _UnknownContentsError


def _function_key(function: FunctionType, inside: tuple[int, ...]) -> Hashable:
    is_constant = _package(function.__globals__.get("__name__")) in CONSTANT_PACKAGES
    is_inner = "<" in function.__qualname__  # <locals> or <lambda>
    if is_constant and (not is_inner or vars(function).keys() - {"__wrapped__"}):
        return _Identity(function)
    if not is_constant and _assigns(function.__code__):
        return _Identity(function)
    try:
        cells = tuple(cell.cell_contents for cell in function.__closure__ or ())
    except ValueError:  # a variable that has no value yet
        return _Identity(function)
    if is_constant:
        return _Identity(function.__code__), _key((function.__defaults__, function.__kwdefaults__, cells), inside)
    names = sorted(set(_global_names(function.__code__)) & function.__globals__.keys())
    variables = *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *cells
    variables = *variables, *(function.__globals__[name] for name in names)
    return _Identity(function), tuple(_variable_key(variable, inside) for variable in variables)


def _variable_key(value: object, inside: tuple[int, ...]) -> Hashable:
    """The key of a variable of a user's function; the identity of a list, which may count the function's calls."""
    return _Identity(value) if isinstance(value, list) else _key_or_identity(value, inside)


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
