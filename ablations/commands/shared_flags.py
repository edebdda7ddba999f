"""What commands share: flags that several have, and how a measurement's conditions become flags."""

# No torch or pandas is imported in this package before something runs, so that help and lists answer at once.
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, fields, make_dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, get_type_hints

from ablations.data.registry import DATA_SETS
from ablations.errors import as_text, refuse
from ablations.flags import like
from ablations.launch import Worker
from ablations.measure import Measurement


@dataclass(frozen=True, kw_only=True)
class Command:
    """What every command takes."""

    debug: bool = False
    """Print full tracebacks."""

    FIRST: ClassVar[tuple[str, ...]] = ()
    """The flags that `--help` shows, in this order; all where none is named."""

    @classmethod
    def defaults(cls, words: Sequence[str]) -> dict[str, Any]:
        """Returns what flags are by default where that depends on others among the words."""
        return {}

    def run(self, words: Sequence[str], worker: Worker | None, /) -> int:
        """Does what the command is for, and returns the exit code: 0, or 1 for failed cells or stale files.

        `words` are the command line's. A `worker` of a launch measures, and leaves tables and figures to others.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class DataFolder:
    """Where images are."""

    data_dir: Path | None = None
    """Folder of the data sets; else the environment variable ABLATIONS_DATA_DIR, else `data`."""


@dataclass(frozen=True, kw_only=True)
class Force:
    """For measured memory."""

    force: bool = False
    """Measure memory even where a prediction says that there is not enough, and again where there was not."""


@dataclass(frozen=True, kw_only=True)
class TrainingRuns:
    """How trainings run, and what is kept of them."""

    jobs: int | None = None
    """Trainings side by side on the CPU, one thread each; by default one a core."""
    tensorboard: bool = False
    """Write TensorBoard's events to RESULTS/tensorboard; the history is in the records and RESULTS/logs anyway."""
    save_weights: bool = False
    """Write the trained weights to RESULTS/weights; `evaluate` takes them."""


def with_flags_of(
    kind: type[Measurement], plural: Mapping[str, tuple[str, Any]] = MappingProxyType({}), leave_out: Container = ()
) -> Any:
    """Makes of a class a command that has the conditions of a measurement as flags, too.

    `plural` are those of which a command takes several: the flag's name and its default values. The command knows the
    measurement as MEASURES and the conditions that have one value as SINGLE.
    """
    hints, flags = get_type_hints(kind), []
    for each in fields(kind):
        if each.name in leave_out:
            continue
        name, annotation, default = each.name, hints[each.name], each.default
        if each.name in plural:
            name, default = plural[each.name]
            kind_of_value = str if each.name == "resolution" else annotation
            annotation = tuple[kind_of_value, ...]  # type: ignore[valid-type]
        flags.append((name, annotation, like(kind, each.name, default)))

    single = [name for name, *_ in flags if name not in [new for new, _ in plural.values()]]

    def extend(behaviour: type) -> Any:
        known = {"MEASURES": kind, "SINGLE": single}
        made = make_dataclass(behaviour.__name__, flags, bases=(behaviour,), namespace=known, frozen=True, kw_only=True)
        made.__doc__ = behaviour.__doc__
        return made

    return extend


def given_conditions(command: Any, **others: Any) -> Any:
    """Returns a measurement with the conditions of which a command's flags give one value, and with the others."""
    return command.MEASURES(**{name: getattr(command, name) for name in command.SINGLE}, **others)


def with_data_by_name(command: Any) -> Any:
    """Returns the command with an image folder's path as its name and the folder that it lies in."""
    data = getattr(command, "data", None)
    if not data or Path(data).name == data:
        return command
    if command.data_dir:
        if Path(data).is_absolute() or ".." in Path(data).parts or not (command.data_dir / data).is_dir():
            raise refuse("data", data, f"the name of a folder in --data-dir {command.data_dir}")
        return command  # a set that lies deeper has its whole path there as its name
    if not Path(data).is_dir():
        raise refuse("data", data, f"an image folder that exists, or one of {', '.join(DATA_SETS)}")
    path = Path(data).resolve()
    return replace(command, data=path.name, data_dir=path.parent)


def check_has_records(results: Path) -> None:
    if not (results / "records").is_dir():
        there = sorted({as_text(file.parts[0]) for file in Path().glob("*/records/**/*.json*")})
        hint = f"; here: {', '.join(there)}" if there else ""
        raise refuse("results", str(results), f"a folder that holds records{hint}")
