"""The classifiers whose weights detectors and segmentation networks begin from, where a cell names their study."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ablations.cells import Cell
from ablations.errors import refuse
from ablations.measure import Accuracy
from ablations.studies import find_study, list_studies


def begins_from_study(cell: Cell) -> bool:
    """Whether a cell's backbone begins from a classifier of a study, not from scratch or from a file."""
    return getattr(cell.conditions, "init", "") in list_studies()


def classifier_of(cell: Cell) -> Cell:
    """Returns the cell of the classifier that another cell begins from: its arm, base, variant and seed in the study.

    It is trained on the device of that cell. Raises InputError where the study has none.
    """
    conditions: Any = cell.conditions
    for other in find_study(conditions.init).cells():
        names = ("variant", "arm", "base")
        if other.measurement != Accuracy.name or other.conditions.seed != conditions.seed:
            continue
        if all(getattr(other.model, name, None) == getattr(cell.model, name, "") for name in names):
            return replace(other, conditions=replace(other.conditions, device=conditions.device))
    raise refuse("init", conditions.init, f"a study with a classifier of {cell.name}, seed {conditions.seed}")


def check_classifiers(cells: Iterable[Cell]) -> None:
    """Raises InputError for a cell whose study has no such classifier, and for what is neither study nor file."""
    for cell in cells:
        if begins_from_study(cell):
            classifier_of(cell)
