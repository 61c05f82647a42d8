"""The check of `cost` and `receptive_field`, which take a function or a `Layer`."""

from collections.abc import Callable

from ._errors import describe


def check_function(function_or_net: object) -> Callable[..., object]:
    """Returns the function; raises a TypeError for a value that cannot be called."""
    if not callable(function_or_net):
        raise TypeError(f"function_or_net: expected a function or a Layer, got {describe(function_or_net)}")
    return function_or_net
