"""The classifiers whose weights trainings begin from, by their study or their record."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from ablations.cells import Cell, file_name
from ablations.errors import refuse
from ablations.measure import Accuracy
from ablations.records.folder import read_records
from ablations.studies import find_study, list_studies

WEIGHTS = "weights"
"""The folder of trained weights below a results folder."""


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


def find_trained_weights(key: str, results: Path) -> Path:
    """Returns the file of the weights whose training made the record of a key.

    Raises InputError where there is no such record of accuracy, and where its weights were not kept.
    """
    found = read_records(results).records
    trained = (each for each in found if each["measurement"] == Accuracy.name and each["key"] == key)
    if (record := next(trained, None)) is None:
        raise refuse("init", key, f"a file of weights, or the key of a record of accuracy in {results}")
    path = results / WEIGHTS / f"{file_name(record, key)}.safetensors"
    if not path.is_file():
        raise refuse("init", key, f"a record whose weights are kept: {path} is not there, and --save-weights writes it")
    return path
