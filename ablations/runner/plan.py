"""What a study will take: processor hours, memory and disk, estimated before anything is measured."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from ablations.cells import Arm, Cell
from ablations.config import PVTConfig
from ablations.cost import count_macs, count_params, has_closed_form
from ablations.data.registry import count_train_images
from ablations.errors import refuse
from ablations.measure import Memory
from ablations.measure.measurement import Setting
from ablations.records import find_record, iterate_records

STATE_BYTES = 12
"""Of a parameter in a checkpoint: its value and AdamW's two moments, in float32."""

WEIGHT_BYTES = 4


@dataclass(frozen=True)
class Rate:
    """How many forward MACs of training a second a device does, by the records that tell it."""

    macs_per_s: float
    source: str


@dataclass(frozen=True)
class Estimate:
    """What the trainings of a study that are not done will take."""

    cells: int
    done: int
    trainings: int
    hours: float
    source: str
    memory_bytes: int
    memory_of: str
    checkpoint_bytes: int
    weights_bytes: int
    """Of all trainings together, where they are kept."""


def estimate(cells: Sequence[Cell], results: Path, device: str) -> Estimate:
    """Returns what the study's trainings take on a device, by the records of trainings and training steps on it.

    A training takes its images times its model's MACs, at the pace of the records; validation and loading count as far
    as they did there. Memory is predicted for the model with the most MACs. Raises InputError where no record is of
    that device, or no training is left to estimate.
    """
    records = [find_record(results, cell) for cell in cells]
    left = [cell for cell, record in zip(cells, records, strict=True) if not record or record["status"] != "done"]
    trainings = [cell for cell in left if cell.conditions.trains and cell.config and has_closed_form(cell.config)]
    if not trainings:
        raise refuse("study", cells[0].measurement, "one with trainings of arms that are not done: others take minutes")
    variants = [cell.model.variant for cell in trainings if isinstance(cell.model, Arm)]
    rates = {variant: _find_rate(results, device, variant) for variant in dict.fromkeys(variants)}
    macs_of, params_of = cache(count_macs), cache(count_params)  # seeds share a model
    macs = [macs_of(cell.arm_config, cell.conditions.resolution) for cell in trainings]
    params = [params_of(cell.arm_config) for cell in trainings]
    seconds = sum(
        _images(cell) * own / rates[variant].macs_per_s
        for cell, own, variant in zip(trainings, macs, variants, strict=True)
    )
    _, largest = max(zip(macs, trainings, strict=True), key=lambda each: each[0] * each[1].conditions.batch_size)
    return Estimate(
        cells=len(cells),
        done=len(cells) - len(left),
        trainings=len(trainings),
        hours=seconds / 3600,
        source="; ".join(dict.fromkeys(rate.source for rate in rates.values())),
        memory_bytes=_predict_memory(largest),
        memory_of=largest.name,
        checkpoint_bytes=STATE_BYTES * max(params),
        weights_bytes=WEIGHT_BYTES * sum(params),
    )


def _images(cell: Cell) -> int:
    return cell.conditions.total_epochs * (cell.conditions.train_images or count_train_images(cell.conditions.data))


def _find_rate(results: Path, device: str, variant: str) -> Rate:
    """Returns the pace of a device, by the records of the variant where there are any, else of all."""
    paces: dict[str, list[tuple[float, str]]] = {}
    devices = set()
    for record, images_per_s in _training_paces(iterate_records(results)):
        name = record["environment"].get("device_name") or ""
        devices.add(name)
        if _letters(device) in _letters(name):
            values: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in record["config"].items()
            }
            config = PVTConfig(**values)
            macs = count_macs(config, record["conditions"]["resolution"])
            paces.setdefault(record["variant"], []).append((images_per_s * macs, name))
    own = paces.get(variant)
    chosen = own or [each for every in paces.values() for each in every]
    if not chosen:
        there = ", ".join(sorted(devices)) or "none"
        allowed = f"one that {results} has records of trainings or training steps of: {there}"
        raise refuse("device", device, allowed)
    names = ", ".join(sorted({name for _, name in chosen}))
    of = f"of {variant}" if own else "of other variants"
    return Rate(median(pace for pace, _ in chosen), f"{len(chosen)} records {of} on {names} in {results}")


def _training_paces(records: Iterable[dict[str, Any]]) -> Iterable[tuple[dict[str, Any], float]]:
    """Yields the records of arms that tell how many images a second were trained on, and that."""
    for record in records:
        if record["status"] != "done" or "variant" not in record or record["conditions"].get("head"):
            continue
        result = record["result"]
        if record["measurement"] == "accuracy" and "train_img_per_s" in result:
            yield record, result["train_img_per_s"]
        elif record["measurement"] == "speed" and record["conditions"]["mode"] == "training":
            yield record, result["throughput_img_per_s"]


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _predict_memory(cell: Cell) -> int:
    """Returns the predicted peak memory in bytes of a training's step on a GPU."""
    conditions = Memory(
        mode="training",
        method="predicted",
        device="cuda",
        resolution=cell.conditions.resolution,
        batch_size=cell.conditions.batch_size,
        precision=cell.conditions.precision,
    )
    result = conditions.run(replace(cell, conditions=conditions), Setting())
    return int(result["peak_memory_bytes"])
