"""What is measured: a cell is a model under one measurement's conditions, and makes one record. Needs no torch."""

import re
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from ablations.baselines.registry import MODEL_SOURCES
from ablations.conditions import in_key
from ablations.config import (
    BY_NAME,
    CONFOUNDERS,
    LARGEST_INPUT,
    PUBLISHED_MODELS,
    TOGGLES,
    PVTConfig,
    arm_toggles,
    as_pair,
    base_confounders,
    build_config,
    published_model,
    variant_name,
)
from ablations.errors import as_text, did_you_mean, pick, refuse
from ablations.files import file_digest, value_digest
from ablations.measure import MEASUREMENTS, Measurement


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A PVT by its names; `overrides` are fields of its config that differ from what the names say, in order of name.

    Raises InputError for unknown names, and for fields that are measurements' to set.
    """

    variant: str
    arm: str
    base: str
    overrides: tuple[tuple[str, Any], ...] = ()
    toggle_files: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()
    """Of the toggles that come from files, their names and the digests of the files: set by what is registered."""

    ALLOWED = ("attention", "pool_size", "stem_stride", "img_size", "num_classes", *CONFOUNDERS)
    is_arm = True
    file_digest = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "variant", variant_name(self.variant))
        base_confounders(self.base, self.arm)
        if plain := {name: value for name, value in self.overrides if value is not None}:
            for name in plain:
                pick("field", name, self.ALLOWED)
            own = build_config(self.variant, self.arm, self.base)
            plain = {name: value for name, value in sorted(plain.items()) if getattr(own, name) != value}
        object.__setattr__(self, "overrides", tuple(plain.items()))
        from_files = tuple((name, TOGGLES[name].digests) for name in arm_toggles(self.arm) if TOGGLES[name].file)
        object.__setattr__(self, "toggle_files", from_files)

    @property
    def name(self) -> str:
        """A few words for people."""
        return f"{self.variant} {self.arm}"

    @property
    def names(self) -> dict[str, str]:
        """What tells it from other models in a record."""
        return {"variant": self.variant, "arm": self.arm, "base": self.base}

    @property
    def source(self) -> str:
        """The whole name, as `build_cell` takes it."""
        return f"pvt:{self.variant}/{self.arm}/{self.base}"

    def config(self, conditions: Measurement) -> PVTConfig:
        """Returns the config of the model that the conditions measure; raises InputError where the two disagree."""
        for name, value in self.overrides:
            if conditions.config_fields.get(name, value) != value:
                raise refuse(name, value, f"{conditions.config_fields[name]}, which {conditions.name} sets here")
        pools = [name for name in arm_toggles(self.arm) if TOGGLES[name].slot == "pool"]
        if pools and conditions.config_fields.get("num_classes") == 0:
            raise refuse("arm", self.arm, f"one without {pools[0]}: it pools for a classifier, and heads read maps")
        return build_config(self.variant, self.arm, self.base, **(dict(self.overrides) | conditions.config_fields))

    def describe(self, config: PVTConfig | None) -> dict[str, Any]:
        """Returns what tells it from other models, as plain values; a toggle from a file changes with the file."""
        told = {name: TOGGLES[name].description | {"sha256": dict(digests)} for name, digests in self.toggle_files}
        return self.names | {"config": as_plain(config)} | ({"toggle_files": told} if told else {})

    @property
    def label(self) -> dict[str, Any]:
        return {"base": self.base, **dict(self.overrides)}


@dataclass(frozen=True, kw_only=True)
class NamedModel:
    """A model that is no arm, by its name (`ablations.baselines.registry`)."""

    name: str
    file: str | None = None
    """Of a user's model: the whole path of its file and the function, which the name leaves out."""

    is_arm = False

    @property
    def names(self) -> dict[str, str]:
        """What tells it from other models in a record."""
        return {"model": self.name}

    @property
    def source(self) -> str:
        """What builds the model: its name, or a user's file and function."""
        return self.file or self.name

    @cached_property
    def file_digest(self) -> str:
        """The SHA-256 of the file that the model is built by; empty where it comes from a library."""
        source = split_file_model(self.source)
        return file_digest(source[0]) if source else ""

    def config(self, conditions: Measurement) -> None:
        return None

    def describe(self, config: PVTConfig | None) -> dict[str, Any]:
        """Returns what tells it from other models, as plain values; a model from a file changes with the file."""
        return self.names | ({"file_sha256": self.file_digest} if self.file_digest else {})

    @property
    def label(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model under one measurement's conditions: what makes one record. Raises InputError for what cannot be."""

    model: Arm | NamedModel
    conditions: Any
    """A Measurement."""

    def __post_init__(self) -> None:
        conditions = self.conditions.as_released(getattr(self.model, "variant", self.name))
        if not self.model.is_arm:
            if not conditions.takes_baselines:
                raise refuse("model", self.model.name, f"an arm: {conditions.name} is measured of arms alone")
            if getattr(conditions, "checkpointing", "none") != "none":
                raise refuse("checkpointing", conditions.checkpointing, "none for a model that is no arm")
            if hasattr(conditions, "initial_weights"):
                conditions = replace(conditions, initial_weights="in_order")
        elif getattr(conditions, "initial_weights", BY_NAME) != BY_NAME:
            raise refuse("initial_weights", conditions.initial_weights, f"{BY_NAME} for an arm")
        object.__setattr__(self, "conditions", conditions)
        conditions.check()
        if self.config is not None:
            self.config.check_size("resolution", conditions.resolution)
            for side in getattr(conditions, "eval_resolutions", ()):
                self.config.check_size("eval_resolutions", side)
        elif not all(1 <= side <= LARGEST_INPUT for side in as_pair(conditions.resolution)):
            raise refuse("resolution", conditions.resolution, f"1 to {LARGEST_INPUT} pixels a side")

    @property
    def measurement(self) -> str:
        return self.conditions.name

    @cached_property
    def config(self) -> PVTConfig | None:
        """The config of an arm; None for another model."""
        return self.model.config(self.conditions)

    @property
    def arm_config(self) -> PVTConfig:
        """The config of a cell that is known to be an arm's."""
        assert self.config is not None
        return self.config

    @property
    def arm(self) -> str | None:
        return getattr(self.model, "arm", None)

    @property
    def source(self) -> str:
        """What builds the model: its whole name."""
        return self.model.source

    def of(self, **names: Any) -> "Cell":
        """Returns the cell with another arm, base, variant or overrides under the same conditions."""
        return replace(self, model=replace(self.model, **names))

    @property
    def is_from_file(self) -> bool:
        """Whether the model may be another than its record's: its file may import what has changed since."""
        return bool(self.model.file_digest)

    def describe(self) -> dict[str, Any]:
        """Returns what identifies the cell, as plain values."""
        return {
            "measurement": self.measurement,
            **self.model.describe(self.config),
            "conditions": as_plain(self.conditions),
        }

    @cached_property
    def key(self) -> str:
        """The cell's address among the records."""
        return address(self.describe())

    @property
    def name(self) -> str:
        """The model, in a few words."""
        return self.model.name

    @property
    def file_name(self) -> str:
        """Of its record, without the suffix."""
        return file_name(self.model.names, self.key)

    @property
    def label(self) -> str:
        """One line for people: the model and the conditions that differ from their defaults."""
        changed = {
            each.name: value
            for each in fields(self.conditions)
            if (value := getattr(self.conditions, each.name)) != each.default and not in_key(each)
        }
        words = [f"{name}={value}" for name, value in (self.model.label | changed).items()]
        return " ".join([self.measurement, self.name, *words])


def arm_cell(variant: str, arm: str, base: str, conditions: Measurement, **overrides: Any) -> Cell:
    """Returns the cell of an arm; `overrides` are fields of its config, None for what the names say."""
    model = Arm(variant=variant, arm=arm, base=base, overrides=tuple(sorted(overrides.items())))
    return Cell(model=model, conditions=conditions)


def build_cell(model: str, conditions: Measurement, label: str | None = None) -> Cell:
    """Returns the cell of a model by its name.

    `pvt:VARIANT/ARM/BASE` and published models such as `PVTv2-B2` are arms, all others NamedModels. One from a user's
    file is called by the `label`, or else by the names of its file and function. Raises InputError for a name that no
    source has the form of; whether the source knows it, is seen when it is built.
    """
    source, _, rest = model.partition(":")
    if source == "pvt":
        if rest.count("/") != 2:
            raise refuse("model", model, "pvt:VARIANT/ARM/BASE, such as pvt:b2/v1+ope/published")
        variant, arm, base = rest.split("/")
        return arm_cell(variant, arm, base, conditions)
    if published := published_model(model):
        variant, arm = published
        return arm_cell(variant, arm, "published", conditions)
    if file := split_file_model(model):
        path, function = file
        name = as_text(f"{path.name}:{function}") if label is None else check_label(label)
        return Cell(model=NamedModel(name=name, file=f"{path.resolve()}:{function}"), conditions=conditions)
    if not (source in MODEL_SOURCES and rest):
        sources = ", ".join(f"{name}:NAME" for name in MODEL_SOURCES)
        allowed = f"{sources}, pvt:VARIANT/ARM/BASE, FILE.py:FUNCTION, or a published model such as PVTv2-B2"
        raise refuse("model", model, allowed + did_you_mean(model, PUBLISHED_MODELS))
    return Cell(model=NamedModel(name=model), conditions=conditions)


def check_label(label: str) -> str:
    """Returns a name for tables and figures; raises InputError for one that is none, or another model's."""
    if not re.fullmatch(r"\w[\w .+()-]{0,39}", label) or published_model(label):
        allowed = "up to 40 letters, digits, spaces and .+()-_, and no published model's name"
        raise refuse("label", label, allowed)
    return label


def split_file_model(model: str) -> tuple[Path, str] | None:
    """Returns the file and the function of a model such as `nets/mine.py:build`, or None where it names no file.

    Raises InputError where the file is not there.
    """
    path, _, function = model.rpartition(":")
    if not path.endswith(".py"):
        if model.endswith(".py"):
            raise refuse("model", model, "a file and its function that returns a module, such as mine.py:build")
        return None
    with suppress(RuntimeError):  # nobody's home
        path = str(Path(path).expanduser())
    if not Path(path).is_file():
        raise refuse("model", model, "a Python file that exists, before the colon")
    return Path(path), function


def address(description: dict[str, Any]) -> str:
    """Returns the address that a cell's description gives it: 16 hex digits of a SHA-256.

    Values that are their field's default do not count, unless the field says so; a field that is added later, with a
    default that leaves everything as it was, changes no address.
    """
    kinds: dict[str, type] = {"config": PVTConfig, "conditions": MEASUREMENTS[description["measurement"]]}
    counted = description | {
        name: without_defaults(description[name], kind) for name, kind in kinds.items() if name in description
    }
    return value_digest(counted)[:16]


def without_defaults(values: dict[str, Any], kind: type) -> dict[str, Any]:
    """Returns the values that are not the default of their field in `kind`: an older record lacks newer fields."""
    defaults = defaults_of(kind, uncounted=True)
    return {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}


@cache
def defaults_of(kind: Any, *, uncounted: bool = False) -> dict[str, Any]:
    """Returns the defaults of a dataclass's fields, as JSON has them; `uncounted` leaves out those that keys hold."""
    known = [each for each in fields(kind) if each.default is not MISSING and not (uncounted and in_key(each))]
    return {each.name: _as_json(each.default) for each in known}


def as_plain(values: Any) -> dict[str, Any]:
    """Returns the fields of a dataclass as JSON has them."""
    return {each.name: _as_json(getattr(values, each.name)) for each in fields(values)}


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


LONGEST_NAME = 100
"""Letters of a model in the names of files, which have up to 255 with their key, suffix and what is added meanwhile."""


def file_name(names: dict[str, Any], key: str) -> str:
    """Returns what the files of a cell are called, without a suffix, by its model's names or its record."""
    if "model" in names:
        name = re.sub(r"[^A-Za-z0-9.-]+", "-", names["model"]).strip("-.")[:LONGEST_NAME]
    else:
        name = f"{names['variant']}_{names['base']}_{names['arm'].replace('+', '-')}"
    return f"{name}_{key}"
