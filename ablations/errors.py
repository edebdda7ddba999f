"""The one kind of error that is the user's and not ours."""

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
    near = get_close_matches(str(name), known, n=5, cutoff=0.5)
    if len(known) > FEW:
        raise refuse(field, name, f"one of {len(known)} names; nearest: {', '.join(near) or 'none'}")
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise refuse(field, name, ", ".join(known) + hint)


def first_line(error: BaseException) -> str:
    """Returns the kind of an error and the first line of its message."""
    return f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}"
