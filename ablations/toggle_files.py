"""Toggles from files of the reader's: `my_attention.py:window` is registered beside the package's own. Needs no torch.

A file declares a toggle as an object:

    from ablations.toggle_files import NewToggle

    window = NewToggle(name="window", title="Window attention", slot="attn", build=build_window)

What the file imports may need torch; nothing here does. A record holds the digests of the file and of what it imports
from its own folder, so a changed file makes new cells.
"""

import ast
import hashlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

from ablations.config import SLOTS, TOGGLES, Toggle
from ablations.errors import InputError, did_you_mean, first_line, pick, refuse

OPTION = "FILE.py:NAME"
NAME = r"[a-z][a-z0-9_]{0,23}"


@dataclass(frozen=True, kw_only=True)
class NewToggle:
    """A toggle that a file declares. Raises InputError for a name or a slot that cannot be."""

    name: str
    """Its short name in arms: `window` makes `v1+window`. Lower-case letters, digits and underscores."""
    slot: str
    """The part of the model that it fills: one of `ablations.config.SLOTS`."""
    build: Callable[..., Any]
    """A function of (PVTConfig, stage from 0) that returns the module, with the signature of the slot's."""
    title: str = ""
    """What tables and figures call it; by default its short name."""
    excludes: tuple[str, ...] = ()
    """Short names of toggles that no arm has beside it; those of its own slot need not be named."""
    cost: Callable[..., Any] | None = None
    """A function of (PVTConfig, stage, map size in tokens) that yields `ablations.cost.ModuleCost` rows; without one
    the traced count stands alone."""
    rounds_up: bool = False
    """Of a patch embedding: whether a map that its stride does not divide gives one token more, or drops the rest."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(NAME, self.name):
            raise refuse("name", self.name, "up to 24 lower-case letters, digits and underscores, a letter first")
        pick("slot", self.slot, SLOTS)
        if isinstance(self.excludes, str) or not all(isinstance(name, str) for name in self.excludes):
            raise refuse("excludes", self.excludes, "a tuple of toggles' short names")
        for field in ("build", *(["cost"] if self.cost is not None else [])):
            if not callable(getattr(self, field)):
                raise refuse(field, getattr(self, field), "a function")
        object.__setattr__(self, "title", self.title or self.name)
        object.__setattr__(self, "excludes", tuple(self.excludes))


def is_toggle_name(text: str) -> bool:
    """Whether a text can be the short name of a toggle from a file: no other than the package's have it."""
    taken = text == "v1" or (text in TOGGLES and not TOGGLES[text].file)
    return not taken and bool(re.fullmatch(NAME, text))


def take_toggles(words: Iterable[str], folder: Path | None = None) -> tuple[str, ...]:
    """Returns the short names of toggles, in the order of TOGGLES; those in files are registered first.

    Paths are relative to `folder`, else to the working directory. Raises InputError for a file or an object that is
    not there, for one that is no toggle, and for a name that is taken.
    """
    names = [_register(word, folder) if ".py:" in word or word.endswith(".py") else word for word in words]
    for name in names:
        if name not in TOGGLES:
            pick("toggle", name, TOGGLES)
    return tuple(name for name in TOGGLES if name in names)


def _register(word: str, folder: Path | None) -> str:
    path_text, _, variable = word.rpartition(":")
    if not path_text:
        raise refuse("toggle", word, f"{OPTION}, a file and the name of a toggle in it")
    path = (folder or Path()) / path_text
    if not path.is_file():
        raise refuse("toggle", word, f"{OPTION}: a Python file that exists, before the colon")
    path = path.resolve()
    digests = file_digests(path)
    declared = _find_declared(path, variable, digests)
    known = TOGGLES.get(declared.name)
    taken_by = None if is_toggle_name(declared.name) else known.title if known else "the arm without toggles"
    if known and known.path and known.path != str(path):
        taken_by = f"the toggle of {known.file} in another folder" if known.file == path.name else known.file
    if taken_by:
        raise refuse("toggle", word, f"one with a name that is not taken; {declared.name} is {taken_by}")
    toggle = Toggle(
        title=declared.title,
        slot=declared.slot,
        excludes=declared.excludes,
        builder=f"{path}:{variable}.build",
        cost=f"{path}:{variable}.cost" if declared.cost else None,
        rounds_up=declared.rounds_up,
        file=path.name,
        path=str(path),
        digests=tuple(sorted(digests.items())),
    )
    _insert(declared.name, toggle)
    return declared.name


def _insert(name: str, toggle: Toggle) -> None:
    """Puts a toggle of a file behind the others, in order of name: so arms' names do not depend on who came first."""
    TOGGLES[name] = toggle
    own = sorted(each for each, entry in TOGGLES.items() if entry.file)
    for each in own:
        TOGGLES[each] = TOGGLES.pop(each)


def register_recorded(told: Mapping[str, Any]) -> None:
    """Has the toggles of a record known that are not: their arms are shown, though nothing can be built of them.

    `told` is what `Toggle.description` gave, by short name. The title says what became of the file.
    """
    for name, entry in told.items():
        if name not in TOGGLES:
            words = "an earlier" if "@" in name else "not at hand:"
            toggle = Toggle(
                title=f"{entry['title']} ({words} {entry['file']})",
                slot=entry["slot"],
                excludes=tuple(entry["excludes"]),
                builder="",
                file=entry["file"],
                digests=tuple(sorted(entry["sha256"].items())),
            )
            _insert(name, toggle)


def find_function(reference: str) -> Callable[..., Any]:
    """Returns what `module:function`, or `FILE.py:NAME.build` of a registered toggle, names."""
    place, _, name = reference.rpartition(":")
    if not place.endswith(".py"):
        return attrgetter(name)(import_module(place))
    path, (variable, part) = Path(place), name.split(".")
    digests = next(dict(toggle.digests) for toggle in TOGGLES.values() if toggle.path == place)
    function = getattr(_find_declared(path, variable, digests), part)

    def call(*args: Any) -> Any:
        with importing_from(path.parent):
            return function(*args)

    return call


def _find_declared(path: Path, variable: str, digests: Mapping[str, str]) -> NewToggle:
    module = _load(path, hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()[:12])
    declared = {name: value for name, value in vars(module).items() if isinstance(value, NewToggle)}
    if variable not in declared:
        allowed = f"{', '.join(declared) or 'none'}: the toggles that it declares, each a NewToggle"
        raise refuse(f"toggle of {path.name}", variable, allowed + did_you_mean(variable, declared))
    return declared[variable]


@cache
def _load(path: Path, digest: str) -> Any:
    """Returns a file as a module; `digest` is of its text and its neighbours', which another text makes another."""
    name = f"toggle_file_{digest}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise refuse("toggle", str(path), "a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look their annotations up
    try:
        with importing_from(path.parent):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        if isinstance(error, InputError):
            raise InputError(f"{path.name}: {error}") from error
        raise InputError(f"toggle={path.name!r} cannot be loaded: {first_line(error)}") from error
    return module


@contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """Lets code import its neighbours in a folder, which are forgotten then: another may have some of these names."""
    place, known = str(folder.resolve()), set(sys.modules)
    sys.path.insert(0, place)
    try:
        yield
    finally:
        sys.path.remove(place)
        for name in set(sys.modules) - known:
            if not name.startswith("toggle_file_") and is_neighbour(name, Path(place)):
                del sys.modules[name]


def is_neighbour(module: str, folder: Path) -> bool:
    """Whether an imported module is a user's in a folder: neither an installed one nor this package's.

    The package may lie in that folder; a second copy of it would have other classes of the same names.
    """
    file = getattr(sys.modules[module], "__file__", None)
    if not file or module.partition(".")[0] == __name__.partition(".")[0]:
        return False
    return Path(file).is_relative_to(folder) and "site-packages" not in Path(file).parts


def file_digests(path: Path) -> dict[str, str]:
    """Returns the SHA-256 of a Python file and of all that it imports from its own folder, by name in that folder.

    Imports are read from the text, wherever they stand in it, and followed. Raises InputError for what is no Python.
    """
    folder, digests, waiting = path.parent, dict[str, str](), [path]
    while waiting:
        file = waiting.pop()
        name = file.relative_to(folder).as_posix()
        if name in digests:
            continue
        text = file.read_bytes()
        digests[name] = hashlib.sha256(text).hexdigest()
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError) as error:
            raise refuse("toggle", name, f"a file of Python ({first_line(error)})") from error
        for module in _imported(tree, file.parent.relative_to(folder).parts):
            waiting += _files_of(folder, module)
    return digests


def _imported(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yields the modules that a syntax tree imports, as the parts of their names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (tuple(each.name.split(".")) for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            module = (*start, *(node.module.split(".") if node.module else ()))
            yield module
            yield from ((*module, each.name) for each in node.names)


def _files_of(folder: Path, module: tuple[str, ...]) -> Iterator[Path]:
    """Yields the files in a folder that importing a module runs: its own, and those of the packages around it."""
    for count in range(1, len(module) + 1):
        place = folder.joinpath(*module[:count])
        yield from (file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file())
