"""Compiled programs of public functions: compiled once for the shapes, dtypes and static options of the arguments."""

import functools
import types
import weakref
from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast, overload

import jax
from jax import lax

from ._mesh_axes import on_any_mesh

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

# Programs of networks and other callables that are kept; the one unused for the longest time is dropped first.
MAX_CALLABLE_PROGRAMS = 128
MEMORY = "_shared_memory"  # the attribute that holds it


def compiled(*static: str) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Decorator: `jax.jit` of a module's function. The named arguments are static: hashable, and checked by the caller.

    Arrays may also be NumPy's; the function sees JAX's. The option `inline` of `jax.jit` stays off: with it, a gradient
    outside of `jax.jit` would run operation by operation, and compile loops and conditionals at every call.

    >>> @compiled("power")
    ... def raised(x, power):
    ...     return x**power
    >>> raised(jax.numpy.ones(2), 3)
    Array([1., 1.], dtype=float32)
    """

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        return jax.jit(on_any_mesh(function), static_argnames=static)

    return decorate


def cached(maxsize: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: `functools.lru_cache` of a function of callables and options; those not hashable are not cached.

    >>> @cached(maxsize=1)
    ... def made(x):
    ...     return object()
    >>> made(1) is made(1), made([1]) is made([1])
    (True, False)
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        cache = functools.lru_cache(maxsize, typed=True)(function)

        @functools.wraps(function)
        def lookup(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                hash((*args, *kwargs.values()))
            except TypeError:
                return function(*args, **kwargs)
            return cache(*args, **kwargs)

        return lookup

    return decorate


@cached(MAX_CALLABLE_PROGRAMS)
def program_of(function: Callable[..., R], *callables: object, **options: object) -> Callable[..., R]:
    """A program of a function whose first arguments are callables, such as a network: `jax.jit` of the rest of it.

    The same function, callables and options give the same program, until MAX_CALLABLE_PROGRAMS others were used. With a
    callable that is new at every call, such as a lambda, every call compiles.

    Args:
      function: a function of callables, arrays and options.
      *callables: its first arguments.
      **options: its static options.

    >>> def applied(function, x, *, times):
    ...     for _ in range(times):
    ...         x = function(x)
    ...     return x
    >>> program_of(applied, jax.numpy.negative, times=3)(jax.numpy.ones(1))
    Array([-1.], dtype=float32)
    """
    return jax.jit(on_any_mesh(functools.partial(function, *callables, **options)))


def map_steps(function: Callable[[Any], Any], steps: Any) -> Any:
    """`lax.map`, without a loop for a single step.

    >>> map_steps(lambda x: x + 1, jax.numpy.arange(1))
    Array([1], dtype=int32)
    """
    if len(jax.tree.leaves(steps)[0]) > 1:
        return lax.map(function, steps)
    result = function(jax.tree.map(lambda array: array[0], steps))
    return jax.tree.map(lambda array: array[None], result)


class shared_method(Generic[P, R]):
    """Decorator: a method that is one object for all equal instances, so that `jax.jit` of it is compiled once.

    JAX finds the programs of a function by the function itself. A plain method is a new object at every access.

    >>> class Scale:
    ...     @shared_method
    ...     def apply(self, x):
    ...         return 2 * x
    >>> scale = Scale()
    >>> scale.apply is scale.apply
    True
    """

    def __init__(self, function: Callable[Concatenate[Any, P], R]) -> None:
        self.function = function
        wrapper: Any = self  # it has the name and the docstring of the function, but is not called
        functools.update_wrapper(wrapper, function)

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Callable[Concatenate[Any, P], R]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> Callable[P, R]: ...
    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., R]:
        if instance is None:
            return self.function
        memory = shared_memory(instance)
        if self not in memory:
            memory[self] = types.MethodType(self.function, _first_of_equals(instance))
        return memory[self]


def shared_memory(instance: object) -> dict[Any, Any]:
    """A dict that all equal instances share. It lives as long as the first of them.

    >>> class Scale:
    ...     pass
    >>> scale = Scale()
    >>> shared_memory(scale)["factor"] = 2
    >>> shared_memory(scale)
    {'factor': 2}
    """
    return vars(_first_of_equals(instance)).setdefault(MEMORY, {})


def _first_of_equals(instance: T) -> T:
    """The first of the equal instances that live, which takes no part in keeping them alive."""
    first = _firsts[instance]() if instance in _firsts else None
    if first is None:
        _firsts[instance] = weakref.ref(instance)
        return instance
    return cast(T, first)


_firsts: weakref.WeakKeyDictionary[Any, weakref.ref[Any]] = weakref.WeakKeyDictionary()
