"""Texts of errors: those that other libraries raise, and wrong arguments in a few words."""

import inspect


def one_line(error: BaseException) -> str:
    """The start of an error's message on one line, for a log or for another error's message.

    >>> one_line(ValueError("first\\n  second"))
    'first second'
    """
    return " ".join(str(error).split())[:200]


def describe(value: object) -> str:
    """A wrong argument in a few words: numbers and texts as they are, other values by their type.

    >>> describe(0.1), describe({"kernel": [0.0]}), describe(sum)
    ('0.1', 'dict', 'sum, which is to be called')
    """
    if inspect.isroutine(value) or inspect.isclass(value):
        return f"{value.__name__}, which is to be called"
    if value is None or isinstance(value, str | bytes | int | float | complex):
        return repr(value)[:80]
    return type(value).__name__
