"""Which arms and models a command is about: flags, and what they mean."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from ablations.cells import Cell, arm_cell, build_cell, split_file_model
from ablations.commands.measuring_command import MeasuringCommand
from ablations.config import (
    BASES,
    CONFOUNDERS,
    PAPER_TOGGLES,
    PUBLISHED_MODELS,
    TOGGLES,
    VARIANT_ALIASES,
    VARIANTS,
    AttentionKernel,
    Size,
    arm_toggles,
    arms_of,
    published_model,
    variant_name,
)
from ablations.errors import pick, refuse
from ablations.studies import parse_size
from ablations.toggle_files import take_toggles

DEFAULT_BASE = "v2"
"""What every command adds the toggles to unless it is told otherwise."""


@dataclass(frozen=True, kw_only=True)
class Arms(MeasuringCommand):
    """Which arms a single measurement takes."""

    variants: tuple[str, ...] = ()
    """Sizes; see `list`."""
    arms: tuple[str, ...] = ()
    """Toggles that are on, or published models such as PVTv2-B2; all arms of the paper's by default; see `list`."""
    bases: tuple[str, ...] = ()
    """What the toggles are added to, v2 by default; see `list`."""
    toggles: tuple[str, ...] = ()
    """Those whose arms are taken where none is named, the paper's by default; one of yours is FILE.py:NAME."""
    pool_size: int | None = None
    """P of linear SRA; the variant's own by default."""
    set: tuple[str, ...] = ()
    """Single confounders that are not the base's, such as stage_norm=every."""

    DEFAULT_VARIANT = "b2"

    def cells(self) -> list[Cell]:
        take_toggles(self.toggles)
        return list({cell.key: cell for cell in self._cells()}.values())

    def _cells(self) -> list[Cell]:
        raise NotImplementedError

    def sizes(self: Any, default: tuple[Size, ...] = ()) -> tuple[Size, ...]:
        """Returns the resolutions that are asked for."""
        return tuple(map(parse_size, self.resolutions)) or default

    @property
    def names_arms(self) -> bool:
        named = self.variants or self.arms or self.bases or self.toggles
        return bool(named or self.pool_size is not None or self.set)

    def _of_arms(self, conditions: list[Any], attention: tuple[AttentionKernel, ...] = ("fused",)) -> list[Cell]:
        changed = dict(map(_parse_setting, self.set)) | {"pool_size": self.pool_size}
        return [
            arm_cell(variant, arm, base, each, attention=kernel, **changed)
            for variant, base, arms in self._groups()
            for kernel, each, arm in product(attention, conditions, arms)
        ]

    def _groups(self) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        """Yields each variant and base with its arms."""
        for name, choices in (("base", BASES), ("variant", (*VARIANTS, *VARIANT_ALIASES))):
            for value in getattr(self, f"{name}s"):
                pick(name, value, choices)
        named, plain = split_arms(self.arms, self.variants, self.bases)
        if named and (self.set or self.pool_size is not None):
            name = "set" if self.set else "pool_size"
            raise refuse(name, getattr(self, name), f"none beside {next(iter(named))}, which is as published")
        if plain or not named:
            every = arms_of(take_toggles(self.toggles) or PAPER_TOGGLES)
            for variant, base in product(self.variants or (self.DEFAULT_VARIANT,), self.bases or (DEFAULT_BASE,)):
                yield variant, base, plain or every
        for variant, arm in named.values():
            yield variant, "published", (arm,)


@dataclass(frozen=True, kw_only=True)
class Models(Arms):
    """Which models a single measurement takes, arms or not."""

    model: tuple[str, ...] = ()
    """Models by name, instead of arms or beside named ones: PVTv2-B2, timm:NAME, transformers:cvt-13, baselines:NAME,
    pvt:VARIANT/ARM/BASE, or FILE.py:FUNCTION that returns a module."""
    label: tuple[str, ...] = ()
    """What tables and figures call the models from files, one name for each."""

    def cells(self) -> list[Cell]:
        cells = super().cells()
        sources: dict[str, str] = {}
        for cell in cells:
            if sources.setdefault(cell.name, cell.source) != cell.source and not cell.model.is_arm:
                allowed = f"models of different names, by --label: {sources[cell.name]} has this one's"
                raise refuse("model", cell.source, allowed)
        return cells

    def _of_models(self, conditions: list[Any], attention: tuple[AttentionKernel, ...] = ("fused",)) -> list[Cell]:
        """Returns the cells of the models by name, and of the arms unless only models were named."""
        from_files = [model for model in self.model if split_file_model(model)]
        if self.label and len(self.label) != len(from_files):
            raise refuse("label", self.label, f"{len(from_files)} names, one for each FILE.py:FUNCTION of --model")
        labels = dict(zip(from_files, self.label, strict=False))
        named = [build_cell(model, each, labels.get(model)) for model in self.model for each in conditions]
        if not self.names_arms and self.model:
            return named
        if self.model and not (self.variants or self.arms):
            for name in ("bases", "pool_size", "set"):
                if value := getattr(self, name):
                    raise refuse(name, value, "none beside --model without --arms or --variants: it is the arms'")
        return named + self._of_arms(conditions, attention)


def split_arms(
    arms: tuple[str, ...], variants: tuple[str, ...], bases: tuple[str, ...]
) -> tuple[dict[str, tuple[str, str]], tuple[str, ...]]:
    """Returns the variant and the arm of each published model among `arms`, and the other arms.

    Raises InputError for an unknown one, and for a variant or a base beside a model that has another.
    """
    named = {name: model for name in arms if (model := published_model(name))}
    for name, (variant, _) in named.items():
        if any(variant_name(given) != variant for given in variants):
            raise refuse("variants", variants, f"none beside {name}, which is variant {variant}")
        if any(given != "published" for given in bases):
            raise refuse("bases", bases, f"none beside {name}, which is in base published")
    plain = tuple(name for name in arms if name not in named)
    for name in plain:
        check_arm(name)
    return named, plain


def check_arm(name: str) -> None:
    """Raises InputError for a name that is no arm's; it lists those of published models too."""
    start, *toggles = name.split("+")
    if start != "v2" and not (start == "v1" and {*toggles} <= {*TOGGLES}):  # of which arm_toggles says more
        pick("arm", name, (*arms_of(TOGGLES), *PUBLISHED_MODELS))
    arm_toggles(name)


def _parse_setting(text: str) -> tuple[str, Any]:
    """Returns the name and the value of a confounder such as `stage_norm=every`."""
    name, _, value = text.partition("=")
    pick("set", name, CONFOUNDERS)
    truths = {"True": True, "False": False, "true": True, "false": False}
    return name, truths.get(value, value)
