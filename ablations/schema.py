"""What a record may say: one check of types and sizes, which follows from what measurements declare. Needs no torch.

A record is of a model and conditions that this version would measure, and its values are of their columns' kinds,
finite and in range. Text is printable and of a bounded length, a number one of 64 bits; what nobody declares is plain.
"""

import marshal
import re
from collections.abc import Callable
from dataclasses import MISSING, fields
from datetime import datetime
from functools import cache
from typing import Any

from ablations.cells import Arm, address
from ablations.config import LARGEST_INPUT, SLOTS, VARIANTS, PVTConfig, as_pair, base_confounders, build_config
from ablations.errors import InputError, pick, refuse
from ablations.files import value_digest
from ablations.measure import MEASUREMENTS
from ablations.measure.measurement import LARGEST, NAME, Column, integer, number
from ablations.toggle_files import is_toggle_name, register_recorded

SCHEMA = 2

OF_ARM = ("measurement", "variant", "arm", "base", "config", "conditions")
OF_MODEL = ("measurement", "model", "conditions")
OF_FILES = ("file_sha256", "toggle_files")
"""What describes a model from a reader's file, or the files of an arm's toggles, where there are such."""
OUTCOME = ("key", "study", "status", "failure", "result", "environment", "started", "duration_s", "digest")
"""What each record has beside what describes its cell."""

RUN = {
    "device_name": Column("The processor or GPU; without value for a prediction, as are its threads."),
    "torch": Column("Version of torch."),
    "threads": integer("Threads of torch on the CPU.", "threads"),
    "processes": integer("Processes that trained together, each with its threads.", "processes", least=1),
    "declared_seeds": integer("How many seeds the study declared before its data; without value for another study."),
    "commit": Column("Commit of this code."),
    "study": Column("The study that the cell was measured for."),
    "key": Column("The cell's address."),
    "duration_s": number("Time that the whole cell took.", "s"),
}
"""The columns that say how and where a cell was measured."""

MACHINE = {
    **dict.fromkeys(("device", "python", "platform", "torchvision", "timm", "transformers", "cuda"), NAME),
    **dict.fromkeys(("keeps_freed_memory", "tf32"), Column("Whether it is so.", kind="boolean")),
    "cores": integer("Cores that the process might use.", least=1),
}
"""What else a record says of its environment; `data_sha256` too, where it was measured on a reader's images."""

LONGEST_TEXT = 2**17
"""Letters: a bit for each of 700,000 validation images, in base64."""

DEEPEST = 16
"""Objects within each other."""

MANY = 10_000
"""Models and conditions that are remembered to be possible."""

Check = Callable[[Any], bool]


def check_record(record: Any, *, is_as_written: bool = False) -> None:
    """Raises ValueError, saying why, for what is no undamaged record of this version.

    `is_as_written` where another digest has shown that nothing was changed.
    """
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise ValueError(f"not a record of schema {SCHEMA}")
    description = OF_MODEL if "model" in record else OF_ARM
    missing = [name for name in (*description, *OUTCOME) if name not in record]
    if missing:
        raise ValueError(f"lacks {', '.join(missing)}")
    if (record["status"], type(record["result"])) not in (("done", dict), ("failed", type(None))):
        raise ValueError("its result and its status contradict each other")
    if str(record["measurement"]) not in MEASUREMENTS or not all(
        isinstance(record.get(name, {}), dict) for name in ("config", "conditions", "environment")
    ):
        raise ValueError("its measurement is unknown, or its config, conditions or environment is no object")
    if record["key"] != address({name: record[name] for name in (*description, *OF_FILES) if name in record}):
        raise ValueError("its description was changed after it was measured")
    if not is_as_written and record["digest"] != record_digest(record):
        raise ValueError("it was changed after it was measured")
    _check_run(record)
    if "toggle_files" in record:
        if not _are_toggle_files(record["toggle_files"], str(record.get("arm", ""))):
            raise _unsuited("toggle_files")
        register_recorded(record["toggle_files"])
    _check_description(record)
    if record["status"] == "done":
        check_result(record["measurement"], record["result"])
        check_has_main_metric(record["measurement"], record["result"], record["conditions"])


def record_digest(record: dict[str, Any]) -> str:
    """Returns the SHA-256 of all that a record says, its own digest aside: it shows accidents, not intent."""
    return value_digest({name: value for name, value in record.items() if name != "digest"})


def check_result(measurement: str, result: dict[str, Any]) -> None:
    """Raises ValueError for a value of a result that is not what its column may have; None may be all but truths."""
    checks, columns = _checks(measurement), MEASUREMENTS[measurement].columns
    for name, value in result.items():
        if value is None and (name not in columns or columns[name].kind != "boolean"):
            continue
        if not checks.get(name, is_plain)(value):
            raise _unsuited(name, columns[name].kind if name in columns else "")
    MEASUREMENTS[measurement].check_result(result)


def check_has_main_metric(measurement: str, result: dict[str, Any], conditions: dict[str, Any]) -> None:
    """Raises ValueError for a result that lacks what was to be measured, or says nothing without, and not why."""
    kind = MEASUREMENTS[measurement]
    if any(result.get(name) for name in ("refused", "out_of_memory")):
        return
    for name in (kind.main_metric, *kind.needed_with(conditions)):
        if result.get(name) is None:
            raise ValueError(f"its result has no {name}")


def check_environment(environment: dict[str, Any]) -> None:
    """Raises ValueError for an environment whose values are not what their columns may have."""
    checks = _checks("")
    for name, value in environment.items():
        if isinstance(value, dict | list) or (value is not None and not checks.get(name, is_plain)(value)):
            raise _unsuited(name)


def _unsuited(name: str, kind: str = "") -> ValueError:
    return ValueError(f"it has no {name} of the kind that it should be{kind and f' ({kind})'}")


def _check_run(record: dict[str, Any]) -> None:
    """Raises ValueError where what a record says of its run is not what it may say."""
    _once(check_environment, record["environment"])
    checks = _checks("")
    for name in ("study", "key", "duration_s"):
        if not checks[name](record[name]):
            raise _unsuited(name)
    if record["status"] == "failed" and not is_text(record["failure"]):
        raise _unsuited("failure")
    if "file_sha256" in record and not is_digest(record["file_sha256"]):
        raise _unsuited("file_sha256")
    if record.get("declared_seeds") is not None and not checks["declared_seeds"](record["declared_seeds"]):
        raise _unsuited("declared_seeds")
    try:
        datetime.fromisoformat(record["started"])
    except (TypeError, ValueError):
        raise _unsuited("started") from None


def _check_description(record: dict[str, Any]) -> None:
    """Raises ValueError for a model or conditions that cannot be measured."""
    conditions = record["conditions"]
    if "seed" in conditions:  # by itself: all else is equal in many records
        if not _checks("")["seed"](conditions["seed"]):
            raise _unsuited("seed")
        conditions = conditions | {"seed": 0}
    if "model" in record:
        _once(_check_conditions, record["measurement"], conditions)
        if not record["model"] or not is_text(record["model"]):
            raise _unsuited("model")
        return
    names = [record[name] for name in ("variant", "arm", "base")]
    _once(_check_arm, *names, record["config"], record["measurement"], conditions)


def _are_toggle_files(told: Any, arm: str) -> bool:
    """Whether this is what `Toggle.description` gives, of toggles that the arm has and the package has not."""
    toggle = {"title": NAME, "slot": NAME, "excludes": [NAME], "file": NAME, "sha256": {"*": NAME}}
    return _compile({"*": toggle})(told) and all(
        name in arm.split("+") and is_toggle_name(name) and entry["slot"] in SLOTS for name, entry in told.items()
    )


_possible: set[bytes] = set()
"""What `_once` need not check anew in this process."""


def _once(check: Callable[..., None], *values: Any) -> None:
    """Checks values, unless the same ones have passed before."""
    try:
        seen = marshal.dumps((check.__name__, values), 2)  # fast, and tells 1, 1.0 and True apart
    except ValueError:
        raise ValueError("it is too deep") from None
    if seen not in _possible:
        check(*values)
        if len(_possible) > MANY:
            _possible.clear()
        _possible.add(seen)


def _check_fields(part: str, values: dict[str, Any], kind: Any) -> None:
    # What this version does not know, it would not keep apart either.
    if unknown := values.keys() - {each.name for each in fields(kind)}:
        raise ValueError(f"this version does not know {', '.join(sorted(unknown))} of its {part}")
    if wrong := [name for name, value in values.items() if not is_plain(value)]:
        raise _unsuited(wrong[0])


def _check_conditions(measurement: str, conditions: dict[str, Any]) -> None:
    _check_fields("conditions", conditions, MEASUREMENTS[measurement])
    try:
        whole = MEASUREMENTS[measurement](**_tupled(conditions))
        whole.check()
        if not all(1 <= side <= LARGEST_INPUT for side in as_pair(whole.resolution)):
            raise refuse("resolution", whole.resolution, f"1 to {LARGEST_INPUT} pixels a side")
    except InputError as error:
        raise ValueError(f"its conditions cannot be: {error}") from error


def _check_arm(
    variant: Any, arm: Any, base: Any, config: dict[str, Any], measurement: str, conditions: dict[str, Any]
) -> None:
    _check_conditions(measurement, conditions)
    for name, value in {"variant": variant, "arm": arm, "base": base}.items():
        if not is_text(value):
            raise _unsuited(name)
    _check_fields("config", config, PVTConfig)
    if missing := [each.name for each in fields(PVTConfig) if each.default is MISSING and each.name not in config]:
        raise ValueError(f"its config lacks {', '.join(missing)}")
    try:
        pick("variant", variant, VARIANTS)
        base_confounders(base, arm)
        model = PVTConfig(**config)
        if "resolution" in conditions:
            model.check_size("resolution", conditions["resolution"])
        # A table has one model of a name: what cells may not choose is what the names and the conditions say.
        named = build_config(variant, arm, base)
        said = {each.name: getattr(named, each.name) for each in fields(model) if each.name not in Arm.ALLOWED}
        for name, value in (said | MEASUREMENTS[measurement](**_tupled(conditions)).config_fields).items():
            if name in config and getattr(model, name) != value:  # an older record lacks newer fields
                raise refuse(name, getattr(model, name), f"{value}, of {variant} {arm} in these conditions")
    except InputError as error:
        raise ValueError(f"its model cannot be: {error}") from error


def _tupled(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


# Values --------------------------------------------------------------------------------------------------------------


@cache
def _checks(measurement: str) -> dict[str, Check]:
    """Returns the check of each column of a measurement's results; without one, of the run's."""
    if measurement:
        return {name: _compile(column) for name, column in MEASUREMENTS[measurement].columns.items()}
    columns = RUN | MACHINE | {"seed": integer("A seed.")}
    return {name: _compile(column) for name, column in columns.items()} | {"data_sha256": is_digest}


def _compile(shape: Any) -> Check:
    """Returns whether a value is what a column, or an object as `Column.of` declares it, may have."""
    if isinstance(shape, Column):
        return _compile_column(shape)
    if isinstance(shape, list | tuple):
        each, shortest = _compile(shape[0]), int(isinstance(shape, tuple))
        return lambda value: isinstance(value, list) and len(value) >= shortest and all(map(each, value))
    if set(shape) == {"*"}:
        each = _compile(shape["*"])
        return lambda value: isinstance(value, dict) and all(map(is_text, value)) and all(map(each, value.values()))
    parts = {name.removesuffix("?"): _compile(part) for name, part in shape.items()}
    needed = {name for name in shape if not name.endswith("?")}

    def is_row(value: Any) -> bool:
        if not isinstance(value, dict) or not needed <= value.keys():
            return False
        for name, part in value.items():  # noqa: SIM110 (a generator takes a tenth of the time of reading records)
            if not parts.get(name, is_plain)(part):
                return False
        return True

    return is_row


def _compile_column(column: Column) -> Check:
    match column.kind:
        case "text":
            return is_text
        case "boolean":
            return lambda value: isinstance(value, bool)
        case "object":
            return is_plain if column.of is None else _compile(column.of)
    types = (int,) if column.kind == "integer" else (int, float)
    least, most = column.least, column.most
    return lambda value: type(value) in types and least <= value <= most  # truths are no numbers, nan is in no range


def is_text(value: Any) -> bool:
    """Whether a value is text of one line that can be written and shown."""
    return isinstance(value, str) and len(value) <= LONGEST_TEXT and value.isprintable()


def is_digest(value: Any) -> bool:
    """Whether a value is a SHA-256 as text."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def is_plain(value: Any, depth: int = DEEPEST) -> bool:
    """Whether a value is made of text, truths, finite numbers and nothing, and not too deep."""
    match value:
        case dict():
            return depth > 0 and all(is_text(name) and is_plain(each, depth - 1) for name, each in value.items())
        case list():
            return depth > 0 and all(is_plain(each, depth - 1) for each in value)
        case int() | float():
            return -LARGEST <= value <= LARGEST
    return value is None or is_text(value)
