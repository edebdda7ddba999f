"""Fields of recipes and measurements: their smallest value, unit and choices, and whether keys always hold them."""

import ast
import inspect
import math
from dataclasses import Field, field, fields
from functools import cache
from itertools import pairwise
from typing import Any, get_args, get_type_hints

from ablations.errors import pick, refuse


def condition(default: Any, *, least: float | None = None, unit: str = "", in_key: bool = False) -> Any:
    """A field with its smallest value, its unit, and whether keys hold it even at its default."""
    return field(default=default, metadata={"least": least, "unit": unit, "in_key": in_key})


def check_fields(owner: Any) -> None:
    """Raises InputError for a field of a dataclass that is no finite number, none of its choices, or too small."""
    hints = _hints(owner.__class__)
    for each in fields(owner):
        value = getattr(owner, each.name)
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
        body = ast.parse(inspect.getsource(owner)).body[0].body  # type: ignore[attr-defined]
        meanings |= {
            named.target.id: text.value.value
            for named, text in pairwise(body)
            if isinstance(named, ast.AnnAssign) and isinstance(named.target, ast.Name)
            if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
        }
    return meanings
