"""The one kind of error that is the user's and not ours."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """A mistake in what was given: its message is one line that names the thing, its value and what is allowed.

    The command line prints the message and exits with 2; every other exception is a fault of the program.
    """


def refuse(field: str, value: object, allowed: str) -> InputError:
    """The error for a `field` whose `value` is not `allowed`."""
    return InputError(f"{field}={value!r} is not possible; allowed: {allowed}")


def pick(field: str, name: str, choices: Iterable[str]) -> str:
    """Returns `name` if it is one of `choices`; else raises InputError with all of them and the nearest."""
    known = list(choices)
    if name in known:
        return name
    near = get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise refuse(field, name, ", ".join(known) + hint)
