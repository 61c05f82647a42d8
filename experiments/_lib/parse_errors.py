"""Errors of the options' parser as one line. tyro prints a box: a title, a message, a rule, the option's help."""

import itertools
import re
from collections.abc import Sequence

SIDES = "│╰─╯ "
RULE = re.compile("[─-]*")  # or an empty line
COLOR = re.compile(r"\x1b\[[\d;]*m")  # on terminals
OPTION = re.compile(r"(--\w[\w-]*)\S*")
OPTIONAL = "{None}|"  # tyro's prefix of values that may be left out
KINDS = {"INT": "a whole number", "FLOAT": "a number"}  # tyro's names of single values


def describe_parse_error(box: str, words: Sequence[str]) -> str:
    """What is wrong with a command line; `--option: expected X, got Y` if a value cannot be parsed.

    Args:
      box: what tyro printed.
      words: the command line without the script's name.
    """
    message, usage = read_box(box)
    named = re.match(rf"Error parsing {OPTION.pattern}: ", message)
    if named and usage:
        metavar = usage.partition(" ")[2].removeprefix(OPTIONAL)
        got = " ".join(option_values(named[1], words)) or "none"
        return f"{named[1]}: expected {KINDS.get(metavar, metavar)}, got {got}"
    about = re.search(rf" for argument '{OPTION.pattern}'", message)
    if about:
        return f"{about[1]}: {message.replace(about[0], '').rstrip('.')}"
    return f"{message.rstrip('.')}{f'; perhaps {usage}' if usage else ''}"


def read_box(box: str) -> tuple[str, str]:
    """The message in a box of tyro's on one line, and the first option in its help as `--option VALUE`, or ""."""
    _, *lines = COLOR.sub("", box).splitlines() or [""]  # the title
    rows = [line.strip(SIDES) for line in lines]
    rows = list(itertools.dropwhile(RULE.fullmatch, rows))
    message = list(itertools.takewhile(lambda row: not RULE.fullmatch(row), rows))
    usage = next((row for row in rows[len(message) :] if OPTION.match(row)), "")
    return " ".join(message), usage


def option_values(option: str, words: Sequence[str]) -> list[str]:
    """The words after the last occurrence of an option, up to the next option."""
    values: list[str] = []
    is_open = False
    for word in words:
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            is_open = name.replace("_", "-") == option
            values = ([value] if equals else []) if is_open else values
        elif is_open:
            values.append(word)
    return values
