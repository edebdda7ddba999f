"""Studies: files that list cells in order of value. Each is TOML, checked against the measurements' own fields.

A study's head says its question and its cost; each `[[grid]]` is a measurement and the values that its cells combine:

    question = "What does each change cost?"
    time = "a minute on two CPU cores"

    [[grid]]
    measurement = "memory"
    variants = ["b2"]
    bases = ["v2"]
    attention = ["fused", "explicit"]
    resolution = [224, "800x1280"]
    mode = ["inference", "training"]

`toggles` in the head may be from files, as `my_attention.py:window`. `arms` are all of these unless they are named;
`models` are baseline models, or groups of them, instead of arms. Every field of the measurement, of an arm that may
differ from its names, and of a recipe is a key; a list combines its values. Needs no torch.
"""

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.resources import files
from itertools import chain, product
from pathlib import Path
from typing import Any

from ablations.baselines.registry import GROUPS
from ablations.cells import Arm, Cell, arm_cell, build_cell
from ablations.conditions import choices_of
from ablations.config import PAPER_TOGGLES, TOGGLES, Size, Toggle, arms_of, is_int
from ablations.errors import InputError, did_you_mean, pick, refuse
from ablations.measure import MEASUREMENTS, Evaluation, Measurement
from ablations.measure.measurement import Device
from ablations.recipes import recipe_values
from ablations.toggle_files import take_toggles

HEAD = ("question", "time", "portable", "toggles", "grid")
"""The keys of a study file."""

NAMES = ("variants", "arms", "bases", "models")
"""The keys of a grid that name its models."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A named list of cells, in order of value."""

    name: str
    question: str
    time: str
    """About how long it takes, in words."""
    toggles: tuple[str, ...]
    """Those that its arms vary."""
    portable: bool
    """Whether its cells mean something on any device, or only where the study has them."""
    grids: tuple[tuple[Cell, ...], ...]

    def cells(self) -> list[Cell]:
        """Returns every cell once, in order; trainings of one seed come before those of the next."""
        cells = list({cell.key: cell for grid in self.grids for cell in grid}.values())
        trainings = iter(
            sorted((cell for cell in cells if cell.conditions.trains), key=lambda cell: cell.conditions.seed)
        )
        return [next(trainings) if cell.conditions.trains else cell for cell in cells]

    def seeds(self) -> int:
        """Returns how many seeds the study declares for its trainings; 0 where it has none."""
        return len({cell.conditions.seed for grid in self.grids for cell in grid if cell.conditions.trains})


def list_studies() -> list[str]:
    """Returns the names of the studies that come with the package."""
    folder = files("ablations.studies")
    return sorted(Path(str(entry)).stem for entry in folder.iterdir() if entry.name.endswith(".toml"))


def find_study(name: str, toggles: tuple[str, ...] = ()) -> Study:
    """Returns a study by its name, or by the path of its file; raises InputError for an unknown or faulty one.

    Its arms vary `toggles`, by their short names, instead of its own where some are given.
    """
    if name.endswith(".toml"):
        return _read_own(Path(name), toggles)
    known = tuple((each, TOGGLES[each]) for each in toggles)  # what is registered may change
    return _read_packaged(pick("study", name, list_studies()), known)


@cache
def _read_packaged(name: str, toggles: tuple[tuple[str, Toggle], ...]) -> Study:
    text = (files("ablations.studies") / f"{name}.toml").read_text(encoding="utf-8")
    return parse_study(text, name, f"{name}.toml", toggles=tuple(each for each, _ in toggles))


def _read_own(path: Path, toggles: tuple[str, ...]) -> Study:
    if not path.is_file():
        raise refuse("study", str(path), f"a file that exists, or one of {', '.join(list_studies())}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise refuse("study", str(path), f"a text file in UTF-8 that can be read ({error})") from error
    return parse_study(text, path.stem, path.name, path.parent, toggles)


def parse_study(text: str, name: str, place: str, folder: Path | None = None, toggles: tuple[str, ...] = ()) -> Study:
    """Returns the study of a file's text; raises InputError that names the file by `place`, the grid and the key.

    Files of toggles are looked for in `folder`. `toggles`, where some are given, stand for the study's own.
    """
    where, cells = place, []
    try:
        content = tomllib.loads(text)
        for key in content:
            pick("key", key, HEAD)
        head = {
            "question": _typed(content, "question", str, ""),
            "time": _typed(content, "time", str, ""),
            "portable": _typed(content, "portable", bool, True),
        }
        own = _typed(content, "toggles", list, list(PAPER_TOGGLES))
        if not all(isinstance(word, str) for word in own):
            raise refuse("toggles", own, "names as texts")
        own = take_toggles(own, folder)
        grids = content.get("grid")
        if not isinstance(grids, list) or not grids:
            raise refuse("grid", grids, "one [[grid]] or more")
        for number, grid in enumerate(grids, start=1):
            where = f"{place}, grid {number}"
            cells.append(tuple(_cells(grid, toggles or own)))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{place}: not TOML: {error}") from error
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return Study(name=name, toggles=toggles or own, grids=tuple(cells), **head)


def _typed(content: dict[str, Any], key: str, kind: type, default: Any) -> Any:
    value = content.get(key, default)
    if not isinstance(value, kind):
        raise refuse(key, value, {str: "a text", bool: "true or false", list: "a list"}[kind])
    return value


def _cells(grid: dict[str, Any], toggles: tuple[str, ...]) -> Iterator[Cell]:
    """Yields the cells of a grid: seeds vary slowest and arms fastest, so that what is there is comparable early."""
    if not isinstance(grid, dict):
        raise refuse("grid", grid, "a table, under [[grid]]")
    kind = MEASUREMENTS[pick("measurement", str(grid.get("measurement", "")), MEASUREMENTS)]
    if kind is Evaluation:
        raise refuse("measurement", kind.name, "one that needs no file of weights: use the command evaluate")
    known = {each.name for each in fields(kind)}
    for key, given in grid.items():
        pick("key", key, ["measurement", *NAMES, *(["recipe"] if kind.trains else []), *Arm.ALLOWED, *known])
        if given == [] and key not in known:
            raise refuse(key, given, "one value or more")
    for key in NAMES:
        if not all(isinstance(name, str) for name in _listed(grid.get(key, ""))):
            raise refuse(key, grid[key], "names as texts")
    recipe: dict[str, Any] = recipe_values(grid["recipe"], kind.recipes) if "recipe" in grid else {}
    conditions = vary(
        replace(kind(), **recipe),  # type: ignore[call-arg]
        **{name: _values(kind, name, grid[name]) for name in grid if name in known},
    )
    allowed = [name for name in Arm.ALLOWED if name not in known]
    overrides = {name: _listed(grid[name]) for name in allowed if name in grid}
    seeds: dict[int, list[Measurement]] = {}
    for each in conditions:
        seeds.setdefault(getattr(each, "seed", 0), []).append(each)
    for own in seeds.values():
        if "models" in grid:
            for name in ("variants", "arms", "bases", *overrides):
                if name in grid:
                    raise refuse(name, grid[name], "no such key beside models, which are no arms")
            models = chain.from_iterable(GROUPS.get(name, (name,)) for name in _listed(grid["models"]))
            yield from (build_cell(model, each) for model in models for each in own)
            continue
        arms = _listed(grid.get("arms", list(arms_of(toggles))))
        chosen = product(
            _listed(grid.get("variants", ["b2"])), _listed(grid.get("bases", ["v2"])), product(*overrides.values()), own
        )
        for variant, base, values, each in chosen:
            changed = dict(zip(overrides, values, strict=True))
            yield from (arm_cell(variant, arm, base, each, **changed) for arm in arms)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _values(kind: type[Measurement], name: str, given: Any) -> tuple[Any, ...]:
    """Returns the values of a field that a grid combines; raises InputError for one that is not of the field's type."""
    default = next(each.default for each in fields(kind) if each.name == name)
    if isinstance(default, tuple):
        if not isinstance(given, list) or not all(is_int(value) for value in given):
            raise refuse(name, given, "a list of whole numbers")
        return (tuple(given),)
    if given == []:
        raise refuse(name, given, "one value or more")
    return tuple(_value(kind, name, default, value) for value in _listed(given))


def _value(kind: type[Measurement], name: str, default: Any, value: Any) -> Any:
    if name == "resolution":
        size = parse_size(str(value))
        if not isinstance(size, int) and kind.trains:
            raise refuse(name, value, "one side in pixels")
        return size
    if choices := choices_of(kind, name):
        return pick(name, value, choices)
    if isinstance(default, bool):
        allowed, fits = "true or false", isinstance(value, bool)
    elif isinstance(default, int):
        allowed, fits = "a whole number", is_int(value)
    elif isinstance(default, str):
        allowed, fits = "a text", isinstance(value, str)
    else:
        allowed, fits = "a number", is_int(value) or isinstance(value, float)
        value = float(value) if fits else value
    if not fits:
        raise refuse(name, value, allowed)
    return value


def parse_size(text: str) -> Size:
    """Returns the size that `224` or `800x1280` (height x width) means; raises InputError for anything else."""
    height, _, width = text.partition("x")
    if not height.isdecimal() or ("x" in text and not width.isdecimal()):
        raise refuse("resolution", text, "pixels such as 224, or height x width such as 800x1280")
    return int(height) if not width or int(width) == int(height) else (int(height), int(width))


def vary(conditions: Any, **values: Sequence[Any]) -> list[Any]:
    """Returns `conditions` with every combination of the given `values` of its fields; the last varies fastest."""
    return [replace(conditions, **dict(zip(values, row, strict=True))) for row in product(*values.values())]


def select(cells: list[Cell], **wanted: tuple) -> list[Cell]:
    """Returns the cells whose fields have one of the `wanted` values; an empty tuple wants all.

    Fields are those of the model and of its conditions; a cell without such a field (a cost has no seed) stays. Raises
    InputError for a value that no cell has.
    """
    for name, values in wanted.items():
        present = list(dict.fromkeys(_field(cell, name) for cell in cells if _field(cell, name) is not None))
        for value in values:
            if value not in present:
                known = list(map(str, present))
                allowed = ", ".join(known) + did_you_mean(str(value), known)
                raise refuse(name, value, allowed or "nothing: no cell is left to choose from")
        if values:
            cells = [cell for cell in cells if _field(cell, name) in (None, *values)]
    return cells


def on_devices(cells: list[Cell], devices: tuple[Device, ...]) -> list[Cell]:
    """Returns the cells that depend on a device once for each of `devices`, and the others as they are."""
    placed = [
        cell
        if _field(cell, "device") in (None, "", device)
        else replace(cell, conditions=replace(cell.conditions, device=device))
        for device in devices
        for cell in cells
    ]
    return list({cell.key: cell for cell in placed}.values())


def _field(cell: Cell, name: str) -> Any:
    for owner in (cell, cell.model, cell.conditions):
        if hasattr(owner, name):
            return getattr(owner, name)
    return None
