"""What a study will take: processor hours, memory and disk, estimated before anything is measured."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import median

from ablations.cells import Cell
from ablations.config import PVTConfig, size_text
from ablations.cost import count_macs, count_params, has_closed_form
from ablations.errors import refuse
from ablations.measure import Memory
from ablations.measure.measurement import Setting
from ablations.records.folder import find_record, read_records
from ablations.records.rows import conditions_of

STATE_BYTES = 12
"""Of a parameter in a checkpoint: its value and AdamW's two moments, in float32."""

WEIGHT_BYTES = 4


@dataclass(frozen=True)
class RecordedPace:
    """How fast a record says that a device trains."""

    images_per_s: float
    macs: int
    """Of an image, in the backbone."""
    device: str
    model: str
    sides: str
    precision: str
    batch_size: int
    threads: int | None
    """None where the device is no CPU."""
    is_training: bool
    """Whether it was a whole training, not single steps of one."""


@dataclass(frozen=True)
class Estimate:
    """What the trainings of a study that are not done will take."""

    cells: int
    done: int
    trainings: int
    hours: float
    source: str
    memory_bytes: int | None
    """None for detectors and segmenters, whose memory is not predicted."""
    memory_of: str
    checkpoint_bytes: int
    weights_bytes: int
    """Of all trainings together, where they are kept."""


def estimate(cells: Sequence[Cell], results: Path, device: str) -> Estimate:
    """Returns what the study's trainings take on a device, by the records of trainings and training steps on it.

    A classifier's training takes its images times its model's MACs, at the pace of the records of the nearest MACs; a
    detector's or segmenter's its images, at the pace of records of its task. Records of its precision, its variant and
    of whole trainings go before others. Validation and loading count as far as they did there. Memory is predicted for
    the model with the most MACs. Raises InputError where no record is of that device, or no training is left to
    estimate.
    """
    records = [find_record(results, cell) for cell in cells]
    left = [cell for cell, record in zip(cells, records, strict=True) if not record or record["status"] != "done"]
    trainings = [cell for cell in left if _is_counted(cell)]
    if not trainings:
        raise refuse("trainings", 0, "1 or more, of arms, that are not done; other cells take minutes")
    macs_of, params_of = cache(count_macs), cache(count_params)  # seeds share a model
    macs = [macs_of(cell.arm_config, cell.conditions.resolution) for cell in trainings]
    params = [params_of(cell.arm_config) for cell in trainings]
    known = {task: list(_paces(results, task)) for task in dict.fromkeys(map(_task, trainings))}
    choose = cache(lambda task, *like: _nearest(known[task], results, device, *like))
    seconds = 0.0
    sources: dict[str, None] = {}
    for cell, own in zip(trainings, macs, strict=True):
        (task, head), variant = _task(cell), cell.model.names["variant"]
        chosen = choose((task, head), variant, own, cell.conditions.precision, cell.conditions.batch_size)
        seconds += cell.conditions.images_seen / median(
            pace.images_per_s * (1 if head else pace.macs / own) for pace in chosen
        )
        sources |= dict.fromkeys([_words(chosen, results)])
    _, largest = max(zip(macs, trainings, strict=True), key=lambda each: each[0] * each[1].conditions.batch_size)
    return Estimate(
        cells=len(cells),
        done=len(cells) - len(left),
        trainings=len(trainings),
        hours=seconds / 3600,
        source="; ".join(sources),
        memory_bytes=predict_training_memory(largest) if is_predicted(largest) else None,
        memory_of=largest.name,
        checkpoint_bytes=STATE_BYTES * max(params),
        weights_bytes=WEIGHT_BYTES * sum(params),
    )


def is_predicted(cell: Cell) -> bool:
    """Whether the memory of a cell's training can be predicted: that of a classifier, of an arm with a closed form."""
    return _is_counted(cell) and _task(cell)[1] is None


def _is_counted(cell: Cell) -> bool:
    return bool(cell.conditions.trains and cell.config and has_closed_form(cell.config))


def _task(cell: Cell) -> tuple[str, str | None]:
    """Returns what a cell trains: its measurement and, but for a classifier, its head."""
    return cell.measurement, getattr(cell.conditions, "head", None)


def _paces(results: Path, task: tuple[str, str | None]) -> Iterator[RecordedPace]:
    """Yields how fast the finished records say that arms train for a task, by trainings and steps of trainings."""
    measurement, head = task
    for record in read_records(results).records:
        conditions = conditions_of(record)
        its_head = conditions.get("head", "classifier")
        if record["status"] != "done" or "variant" not in record or its_head != (head or "classifier"):
            continue
        result = record["result"]
        if record["measurement"] == measurement:
            images_per_s = result.get("train_img_per_s")
        elif record["measurement"] == "speed" and not head and conditions["mode"] == "training":
            images_per_s = result.get("throughput_img_per_s")
        else:
            continue
        config = PVTConfig(**record["config"])
        if images_per_s and has_closed_form(config):
            environment = record["environment"]
            yield RecordedPace(
                images_per_s,
                count_macs(config, conditions["resolution"]),
                device=environment.get("device_name") or "",
                model=record["variant"],
                sides=size_text(conditions["resolution"]),
                precision=conditions["precision"],
                batch_size=conditions["batch_size"],
                threads=environment.get("threads") if environment.get("device") == "cpu" else None,
                is_training=record["measurement"] == measurement,
            )


def _nearest(
    paces: Sequence[RecordedPace], results: Path, device: str, variant: str, macs: int, precision: str, batch_size: int
) -> tuple[RecordedPace, ...]:
    """Returns the paces of a device that are most like a training's: of equal sizes of images, batches and models."""
    chosen = [pace for pace in paces if _letters(device) in _letters(pace.device)]
    if not chosen:
        there = ", ".join(sorted({pace.device for pace in paces})) or "none"
        allowed = f"one that {results} has records of such trainings of: {there}"
        raise refuse("device", device, allowed)
    likes: tuple[Callable[[RecordedPace], bool], ...] = (
        lambda pace: pace.precision == precision,
        lambda pace: pace.model == variant,
        lambda pace: pace.is_training,
    )
    for is_like in likes:
        chosen = [pace for pace in chosen if is_like(pace)] or chosen

    def distance(pace: RecordedPace) -> tuple[float, float]:
        return abs(math.log(pace.macs / macs)), abs(math.log(pace.batch_size / batch_size))

    nearest = min(chosen, key=distance)
    of_model = [pace for pace in chosen if (pace.model, pace.sides) == (nearest.model, nearest.sides)]
    return tuple(pace for pace in of_model if (pace.batch_size, pace.threads) == (nearest.batch_size, nearest.threads))


def _words(paces: Sequence[RecordedPace], results: Path) -> str:
    names, first = ", ".join(sorted({pace.device for pace in paces})), paces[0]
    threads = f", {first.threads} thread{'s' * (first.threads > 1)}" if first.threads else ""
    how = f"batches of {first.batch_size} in {first.precision}{threads}"
    return f"{len(paces)} records of {first.model} at {first.sides} px on {names} in {results}, {how}"


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def predict_training_memory(cell: Cell) -> int:
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
