"""Compiled programs of public functions: compiled once for the shapes, dtypes and static options of the arguments."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
from jax import lax

from ._mesh_axes import on_any_mesh

P = ParamSpec("P")
R = TypeVar("R")

# Programs of networks and other callables that are kept; the one unused for the longest time is dropped first.
MAX_CALLABLE_PROGRAMS = 128


def compiled(*static: str) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Decorator: `jax.jit` of a module's function. The named arguments are static: hashable, and checked by the caller.

    Arrays may also be NumPy's; the function sees JAX's. The program is inlined into an outer `jax.jit`, which so
    compiles the same program as without it.

    >>> @compiled("power")
    ... def raised(x, power):
    ...     return x**power
    >>> raised(jax.numpy.ones(2), 3)
    Array([1., 1.], dtype=float32)
    """

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        return jax.jit(on_any_mesh(function), static_argnames=static, inline=True)

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
    return jax.jit(on_any_mesh(functools.partial(function, *callables, **options)), inline=True)


def map_steps(function: Callable[[Any], Any], steps: Any) -> Any:
    """`lax.map`, without a loop for a single step.

    >>> map_steps(lambda x: x + 1, jax.numpy.arange(1))
    Array([1], dtype=int32)
    """
    if len(jax.tree.leaves(steps)[0]) > 1:
        return lax.map(function, steps)
    result = function(jax.tree.map(lambda array: array[0], steps))
    return jax.tree.map(lambda array: array[None], result)
