"""Flags: a command's dataclass as flags with help, and the words of a command line as its fields. Needs no torch.

Each field is a flag: its type says what it takes, its docstring is its help. A field with the metadata POSITIONAL is
given without a flag; one with `like` in its metadata is a condition of that measurement and has its docstring.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from ablations.conditions import field_docstrings
from ablations.errors import InputError, pick, refuse

POSITIONAL = {"positional": True}

HELP = ("-h", "--help")
HELP_ALL = "--help-all"

METAVARS = {int: "N", float: "X", Path: "PATH", str: "NAME"}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the help of a command is laid out."""

    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The fields under each heading, in order."""
    rest: str = "flags"
    """The heading over all others."""
    first: Sequence[str] = ()
    """The fields that `--help` shows; all where none is named."""

    def group(self, name: str) -> str:
        return next((title for title, names in self.groups.items() if name in names), self.rest)

    def rank(self, name: str) -> tuple[bool, bool, int]:
        """Sorts the fields: those that come first, then the others in their groups' order, `debug` last."""
        places = [*self.first, *(name for names in self.groups.values() for name in names)]
        return (name == "debug", name not in self.first, places.index(name) if name in places else len(places))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def flag_of(name: str) -> str:
    """Returns the flag of a field."""
    return "--" + name.replace("_", "-")


def refuse_given(command: Any, names: Iterable[str], allowed: str) -> None:
    """Raises InputError for the first of these flags that is not as it is by default."""
    defaults = {each.name: each.default for each in fields(command)}
    for name in names:
        if (value := getattr(command, name)) != defaults[name]:
            raise refuse(name, value, allowed)


def meanings_of(command: type) -> dict[str, str]:
    """Returns the help of each field of a command."""
    meanings = field_docstrings(command)
    for each in fields(command):
        if "like" in each.metadata:
            meanings[each.name] = field_docstrings(each.metadata["like"][0]).get(each.metadata["like"][1], "")
    return {name: " ".join(text.split()) for name, text in meanings.items()}


def like(owner: type, name: str, default: Any) -> Any:
    """A field that has the docstring of a measurement's condition."""
    return field(default=default, metadata={"like": (owner, name)})


def describe_flags(command: type, prog: str, layout: Layout, defaults: Mapping[str, Any], *, everything: bool) -> str:
    """Returns a command's help: its commonest flags by group, or `everything`."""
    shown = {each.name for each in fields(command) if everything or not layout.first or each.name in layout.first}
    parser = _build_parser(command, prog, layout, defaults, shown)
    hidden = len(fields(command)) - len(shown)
    if hidden:
        parser.epilog = f"{hidden} more flags: {prog} {HELP_ALL}"
    return parser.format_help()


def parse_flags(command: type, prog: str, words: Sequence[str], defaults: Mapping[str, Any]) -> Any:
    """Returns a command with what the words of a command line give it, and `defaults` instead of its fields' own.

    Raises InputError for a flag that there is not, with the nearest, and for a value of another type.
    """
    parser = _build_parser(command, prog, Layout(), defaults, set())
    namespace, unknown = parser.parse_known_intermixed_args(words)
    if unknown:
        raise _unknown_word(unknown, parser)
    hints = get_type_hints(command)
    given = {name: _convert(name, hints[name], value) for name, value in vars(namespace).items()}
    return command(**(dict(defaults) | given))


def _build_parser(
    command: type, prog: str, layout: Layout, defaults: Mapping[str, Any], shown: set[str]
) -> argparse.ArgumentParser:
    """Returns a parser that leaves out what is not given, and whose help shows the fields that are `shown`."""
    positional = [each for each in fields(command) if each.metadata.get("positional")]
    usage = " ".join([prog, *(each.name.upper() for each in positional), "[FLAGS]"])
    parser = _Parser(
        prog=prog,
        usage=usage,
        description=" ".join((command.__doc__ or "").split()),
        add_help=False,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    titles = dict.fromkeys((*layout.groups, layout.rest))
    groups = {title: parser.add_argument_group(title) for title in titles}
    hints, meanings = get_type_hints(command), meanings_of(command) if shown else {}
    for each in sorted(fields(command), key=lambda each: layout.rank(each.name)):
        default = defaults.get(each.name, each.default)
        group = layout.group(each.name)
        text = argparse.SUPPRESS
        if each.name in shown:
            # None says nothing, but in a recipe, where it is a value; a switch is named by what it changes.
            says_nothing = default is MISSING or isinstance(default, bool) or default == ()
            says_nothing |= default is None and group != "recipe"
            text = meanings.get(each.name, "") + ("" if says_nothing else f" (default: {_as_words(default)})")
            text = text.replace("%", "%%")
        _add_flag(groups[group], each, hints[each.name], default, text)
    return parser


def _as_words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else repr(value) if value == "" else str(value)


def _add_flag(group: Any, each: Any, annotation: Any, default: Any, text: str) -> None:
    """Adds a field to a group of a parser, which takes its words as they are."""
    if annotation is bool:
        names = (flag_of(each.name), flag_of(f"no_{each.name}"))
        for name, value in zip(names, (True, False), strict=True):
            # The help has the one that changes something.
            shown = argparse.SUPPRESS if value == default else text
            group.add_argument(name, dest=each.name, action="store_const", const=value, help=shown)
        return
    several = get_origin(annotation) is tuple
    options: dict[str, Any] = {"help": text, "metavar": _metavar(annotation)}
    if several:
        options |= {"nargs": "*"}
    if each.metadata.get("positional"):
        if not several and default is not MISSING:
            options["nargs"] = "?"
        group.add_argument(each.name, **(options | {"metavar": each.name.upper()}))
    else:
        if several:
            options["action"] = "extend"
        group.add_argument(flag_of(each.name), required=default is MISSING, **options)


def _metavar(annotation: Any) -> str:
    kind = _inner(annotation)
    return "{" + ",".join(get_args(kind)) + "}" if get_origin(kind) is Literal else METAVARS[kind]


def _inner(annotation: Any) -> Any:
    """Returns the type of one value: of a tuple's entries, or of what may be None."""
    arguments = [each for each in get_args(annotation) if each not in (NoneType, Ellipsis)]
    return annotation if get_origin(annotation) is Literal or not arguments else arguments[0]


def _convert(name: str, annotation: Any, value: Any) -> Any:
    """Returns what was given as the field's type; raises InputError for what is none."""
    if isinstance(value, bool):
        return value
    if isinstance(value, list):
        if not value:
            raise refuse(name, (), "one or more values")
        return tuple(_convert(name, _inner(annotation), each) for each in value)
    kind = _inner(annotation)
    if value == "None" and NoneType in get_args(annotation):
        return None
    if get_origin(kind) is Literal:
        return pick(name, value, get_args(kind))
    try:
        return kind(value).expanduser() if kind is Path else kind(value)
    except RuntimeError:
        raise refuse(name, value, "a path; the home that ~ stands for is not known") from None
    except ValueError:
        raise refuse(name, value, {int: "a whole number", float: "a number"}[kind]) from None


def _unknown_word(unknown: Sequence[str], parser: argparse.ArgumentParser) -> InputError:
    """The error for words that a command does not know, of which it names the first flag."""
    word = next((word for word in unknown if word.startswith("-")), unknown[0])
    flags = [name for action in parser._actions for name in action.option_strings]
    near = _nearest_flag(word.partition("=")[0], flags) if word.startswith("-") else ""
    hint = f" (did you mean {near!r}?)" if near else ""
    return refuse("flag", word, f"those that {parser.prog} {HELP_ALL} lists{hint}")


def _nearest_flag(word: str, flags: Sequence[str]) -> str:
    """Returns the flag that has a word in it, begins with it, or is spelt nearly like it; nothing where none does."""
    word = word.replace("_", "-")
    plain = word.strip("-")
    having = [flag for flag in flags if plain in flag.strip("-").split("-") or flag.startswith(word)]
    return next(iter(get_close_matches(word, having or flags, n=1, cutoff=0.0 if having else 0.6)), "")
