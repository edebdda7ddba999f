"""Fields of recipes and measurements: their smallest value, unit and choices, and whether keys always hold them."""

import ast
import builtins
import inspect
import math
import types
import typing
from dataclasses import Field, field, fields
from functools import cache
from itertools import pairwise
from typing import Any, get_args, get_origin, get_type_hints

from ablations.errors import pick, refuse


def condition(default: Any, *, least: float | None = None, unit: str = "", in_key: bool = False) -> Any:
    """A field with its smallest value, its unit, and whether keys hold it even at its default."""
    return field(default=default, metadata={"least": least, "unit": unit, "in_key": in_key})


def check_fields(owner: Any) -> None:
    """Raises InputError for a field of a dataclass that is of another type, not finite, no choice, or too small."""
    hints = _hints(owner.__class__)
    for each in fields(owner):
        value = getattr(owner, each.name)
        if not is_of_type(value, hints[each.name]):
            raise refuse(each.name, value, _type_words(hints[each.name]))
        if hints[each.name] in (float, float | None) and type(value) is int:
            value = float(value)
            object.__setattr__(owner, each.name, value)  # 1 and 1.0 are one condition
        if isinstance(value, float) and not math.isfinite(value):
            raise refuse(each.name, value, "a finite number")
        if choices := choices_of(type(owner), each.name):
            pick(each.name, value, choices)
        least = each.metadata.get("least")
        if least is not None and value is not None and not value >= least:
            raise refuse(each.name, value, f"{least} or more")


def is_of_type(value: object, hint: Any) -> bool:
    """Whether a value is of an annotation's type; a truth is no number, and a whole number is one with a fraction."""
    match get_origin(hint):
        case typing.Literal:
            return isinstance(value, type(get_args(hint)[0]))
        case typing.Union | types.UnionType:
            return any(is_of_type(value, each) for each in get_args(hint))
        case builtins.tuple:
            of = get_args(hint)
            each = of[:1] * len(value) if isinstance(value, tuple) and ... in of else of
            return isinstance(value, tuple) and len(value) == len(each) and all(map(is_of_type, value, each))
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    return isinstance(value, hint) and (hint is not str or value.isprintable())


_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text of one line",
    types.NoneType: "None",
}


def _type_words(hint: Any) -> str:
    """Returns an annotation's type in words."""
    if hint in _WORDS:
        return _WORDS[hint]
    if get_origin(hint) is builtins.tuple:
        return "several: " + ", ".join(_type_words(each) for each in get_args(hint) if each is not ...)
    if choices := get_args(hint):
        return " or ".join(str(each) if isinstance(each, str) else _type_words(each) for each in choices)
    return str(hint)


def choices_of(kind: Any, name: str) -> tuple[str, ...]:
    """Returns the values that a field with a Literal annotation may have; none for another."""
    choices = get_args(_hints(kind).get(name))
    return choices if choices and all(isinstance(choice, str) for choice in choices) else ()


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def in_key(each: Field) -> bool:
    """Whether keys hold a field even at its default."""
    return bool(each.metadata.get("in_key"))


def field_docstrings(kind: type) -> dict[str, str]:
    """Returns the docstring below each field of a class or of one that it extends, where there is one."""
    meanings: dict[str, str] = {}
    for owner in reversed(kind.__mro__[:-1]):
        meanings |= _own_docstrings(owner)
    return meanings


@cache
def _own_docstrings(kind: type) -> dict[str, str]:
    try:
        source = inspect.getsource(kind)
    except OSError:  # a class that was made has none
        return {}
    body = ast.parse(source).body[0].body  # type: ignore[attr-defined]
    return {
        named.target.id: text.value.value
        for named, text in pairwise(body)
        if isinstance(named, ast.AnnAssign) and isinstance(named.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }
