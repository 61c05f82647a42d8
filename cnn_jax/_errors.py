"""Texts of errors that other libraries raise."""


def one_line(error: BaseException) -> str:
    """The start of an error's message on one line, for a log or for another error's message.

    >>> one_line(ValueError("first\\n  second"))
    'first second'
    """
    return " ".join(str(error).split())[:200]
