"""The one kind of error that is the user's and not ours."""

import re
import warnings
from collections.abc import Iterable
from difflib import get_close_matches

FEW = 40
"""Choices that an error lists in full, at most."""


class InputError(ValueError):
    """A mistake in what was given: its message is one line that names the thing, its value and what is allowed.

    The command line prints the message and exits with 2; every other exception is a fault of the program.
    """


def refuse(field: str, value: object, allowed: str) -> InputError:
    """The error for a `field` whose `value` is not `allowed`."""
    return InputError(f"{field}={value!r} is not possible; allowed: {allowed}")


def pick(field: str, name: str, choices: Iterable[str]) -> str:
    """Returns `name` if it is one of `choices`; else raises InputError with the nearest and, if few, with all."""
    known = list(choices)
    if name in known:
        return name
    if len(known) > FEW:
        near = get_close_matches(str(name), known, n=5, cutoff=0.5)
        raise refuse(field, name, f"one of {len(known)} names; nearest: {', '.join(near) or 'none'}")
    raise refuse(field, name, ", ".join(known) + did_you_mean(str(name), known))


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Returns the nearest of the choices as a question in brackets; nothing where none is near."""
    known = {choice.casefold(): choice for choice in choices}
    near = get_close_matches(name.casefold(), known, n=1, cutoff=0.5)
    return f" (did you mean {known[near[0]]!r}?)" if near else ""


def as_text(text: str) -> str:
    """Returns a text in one line that can be written and shown.

    Line breaks, control and direction characters, and the bytes of names that are no Unicode, become escapes.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


_FOLDERS = re.compile(r"(?<![\w.~/])/(?:[\w.+@-]+/)+(?=[\w.+@-])")


def without_folders(text: str) -> str:
    """Returns a text with the absolute paths in it cut down to the names of the files."""
    return _FOLDERS.sub("", text)


def first_line(error: BaseException) -> str:
    """Returns the kind of an error and the first line of its message that says something.

    Of an error that came out of another process or a compiler with its traceback, that is the last line: the cause.
    """
    lines = [line for line in str(error).splitlines() if line.strip()] or ["no message"]
    if any("Traceback (most recent call last)" in line or line.startswith("Original Traceback") for line in lines):
        return lines[-1].strip()
    return f"{type(error).__name__}: {next((line for line in lines if not line.endswith(' raised:')), lines[0])}"


def warn_in_one_line() -> None:
    """Has Python print a warning as its message in one line, without the place in a library that it comes from."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {' '.join(str(message).split())}\n"
