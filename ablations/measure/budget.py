"""What fits into a memory budget: the largest image and the largest batches of a cell, from predicted peaks.

A peak grows with the image and with the batch, so one largest size of each fits. It is searched by bisection; the
answer holds what fits and the next size, which does not.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from ablations.cells import Cell
from ablations.config import LARGEST_INPUT, Size, size_text
from ablations.errors import refuse
from ablations.measure.network import REFUSALS, build_network_on, input_shape, refusal
from ablations.measure.peak_memory import measure_in_process
from ablations.measure.predict import predict_peak_memory
from ablations.measure.process import ProcessFailed, available_memory, worker_processes
from ablations.units import format_bytes

SIDE_STEP = 32
"""Pixels between the square resolutions that are tried."""

FIRST_SIDES = range(SIDE_STEP, 257, SIDE_STEP)
"""Sides in pixels among which the search looks for the smallest that a model takes. A model of one size takes 224 or
256."""

LARGEST_BATCH = 65536

CELLS_PER_WORKER = 4
"""The fewest cells for each process: starting a process takes as long as answering a few cells."""


@dataclass(frozen=True, kw_only=True)
class Largest:
    """The largest size that fits and the next one, which does not: pixels a side of a square, or images in a batch.

    Peaks are predicted, in bytes. `next_size` and its peak are None where `size` is the largest that is tried.
    """

    size: int | None = None
    """0 where not even the smallest fits; None where the model refuses a size on the way, so that none is largest."""
    peak_memory_bytes: int | None = None
    """None where `size` is 0 or None."""
    next_size: int | None = None
    next_peak_memory_bytes: int | None = None
    refused: str = ""
    """Why the model refuses, where it does."""

    @property
    def at_limit(self) -> bool:
        """Whether larger ones might fit and were not tried."""
        return self.size is not None and self.next_size is None


@dataclass(frozen=True, kw_only=True)
class BudgetAnswer:
    """What fits into `budget_bytes` for one cell."""

    subject: dict[str, Any]
    """The cell's names and its conditions without resolution and batch size, as plain values."""
    budget_bytes: int
    largest_resolution: Largest
    """Of one image: side in pixels."""
    largest_batches: tuple[tuple[Size, Largest], ...]
    """At each resolution that was asked for: images."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """One part of an answer, run: the measured peak, or why there is none."""

    resolution: Size
    batch_size: int
    predicted_bytes: int
    measured_bytes: int | None
    fits: bool | None
    """Whether it was measured to be within the budget; None where it was not measured."""
    note: str = ""
    """Why it was not measured."""


class _Refused(Exception):
    """The model does not take inputs of that size."""


def answer_budget(cell: Cell, budget_bytes: int, resolutions: Sequence[Size]) -> BudgetAnswer:
    """Returns what fits into a budget for a memory cell; the cell's own resolution and batch size do not matter.

    That is the largest square resolution of one image, in multiples of SIDE_STEP pixels from the smallest that the
    model takes to LARGEST_INPUT, and at each of `resolutions` the largest batch up to LARGEST_BATCH. A model that
    refuses a size on the way has no largest resolution. On CUDA leave room for the driver's context and for workspaces:
    predictions leave them out.

    Raises InputError for a resolution that the cell cannot have and for a budget into which no image fits.
    """
    for resolution in resolutions:
        _resized(cell, resolution)  # raises
    predictor = _Predictor(cell)
    smallest = next(filter(predictor.takes, FIRST_SIDES), None)
    taken = [size for size in (smallest, *resolutions) if size is not None and predictor.takes(size)]
    peaks = {size: predictor.predict(size, 1) for size in taken}
    if peaks:
        _check_budget(cell, budget_bytes, peaks)
    if smallest is None:
        largest_resolution = Largest(refused=predictor.refusals[FIRST_SIDES[0]])
    else:
        sides = range(smallest, LARGEST_INPUT + 1, SIDE_STEP)
        largest_resolution = _find_largest(partial(predictor.predict, batch_size=1), sides, budget_bytes)
    batches = [
        Largest(refused=predictor.refusals[resolution])
        if resolution not in peaks
        else _find_largest(partial(predictor.predict, resolution), range(1, LARGEST_BATCH + 1), budget_bytes)
        for resolution in resolutions
    ]
    return BudgetAnswer(
        subject=_subject(cell),
        budget_bytes=budget_bytes,
        largest_resolution=largest_resolution,
        largest_batches=tuple(zip(resolutions, batches, strict=True)),
    )


def answer_budgets(
    cells: Sequence[Cell], budget_bytes: int, resolutions: Sequence[Size], workers: int
) -> Iterator[BudgetAnswer]:
    """Yields `answer_budget`'s answer for each cell in order, computed by up to `workers` processes where that pays.

    Raises InputError as `answer_budget` does, at the first cell that is wrong. The processes end with the iterator,
    with an interrupt and with this process.
    """
    answer = partial(answer_budget, budget_bytes=budget_bytes, resolutions=tuple(resolutions))
    workers = min(workers, len(cells) // CELLS_PER_WORKER)
    if workers < 2:
        yield from map(answer, cells)
        return
    with worker_processes(workers, imports=[__name__]) as pool:
        futures = [pool.submit(answer, cell) for cell in cells]  # `map` cancels them on an error: see worker_processes
        yield from (future.result() for future in futures)


def verify_answer(answer: BudgetAnswer, cell: Cell) -> Iterator[Verification]:
    """Runs every part of an answer on the cell's device, each in a fresh process, and yields the measured peaks.

    Measured are tracked storages on the CPU and the allocator's peak on CUDA. A part that is predicted to need more
    than is free now is not run. Raises InputError where the device is not there.
    """
    conditions = cell.conditions
    for _, resolution, batch_size, largest in _questions(answer):
        predicted = largest.peak_memory_bytes
        if not (resolution and batch_size and predicted):
            continue
        measured, note = None, ""
        free = available_memory(conditions.device)
        if predicted > free:
            note = f"not run: predicted to need {format_bytes(predicted)}, free {format_bytes(free)}"
        else:
            build = partial(build_network_on, conditions.device, cell)
            try:
                shape = input_shape(_resized(cell, resolution), batch_size)
                result = measure_in_process(build, shape, **conditions.step)
                measured, note = result["peak_memory_bytes"], result.get("out_of_memory", "")
            except ProcessFailed as failure:
                note = str(failure)
        yield Verification(
            resolution=resolution,
            batch_size=batch_size,
            predicted_bytes=predicted,
            measured_bytes=measured,
            fits=None if measured is None else measured <= answer.budget_bytes,
            note=note,
        )


def budget_values(answers: Sequence[BudgetAnswer]) -> list[dict[str, Any]]:
    """Returns a row for each question, in the answers' order: first the largest resolution, then the batches.

    `asked` is `resolution` or `batch_size`. A row has both columns, and the one that `asked` names is the answer.
    Resolutions are text as in the records, such as `224` or `800x1280`, in pixels; `next_size` has the answer's unit.
    """
    return [
        answer.subject
        | {
            "budget_bytes": answer.budget_bytes,
            "asked": asked,
            "resolution": None if resolution is None else size_text(resolution),
            "batch_size": batch_size,
            "peak_memory_bytes": largest.peak_memory_bytes,
            "next_size": largest.next_size,
            "next_peak_memory_bytes": largest.next_peak_memory_bytes,
            "at_limit": largest.at_limit,
            "refused": largest.refused or None,
        }
        for answer in answers
        for asked, resolution, batch_size, largest in _questions(answer)
    ]


def _questions(answer: BudgetAnswer) -> Iterator[tuple[str, Size | None, int | None, Largest]]:
    """Yields what was asked for, the resolution and the batch size (one of them is the answer), and the answer."""
    yield "resolution", answer.largest_resolution.size, 1, answer.largest_resolution
    for resolution, largest in answer.largest_batches:
        yield "batch_size", resolution, largest.size, largest


class _Predictor:
    """Predicts the peaks of a cell's network, which is built once; no peak is predicted twice."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.network = build_network_on("meta", cell).to("meta")
        self.refusals: dict[Size, str] = {}
        self._peaks: dict[tuple[int, ...], int] = {}

    def takes(self, resolution: Size) -> bool:
        """Whether the model takes one image of this resolution; `refusals` says why it does not."""
        try:
            self.predict(resolution, 1)
        except _Refused as refusal:
            self.refusals[resolution] = str(refusal)
        return resolution not in self.refusals

    def predict(self, resolution: Size, batch_size: int) -> int:
        """Returns the peak in bytes; raises _Refused where the model does not take the size."""
        shape = input_shape(_resized(self.cell, resolution), batch_size)
        if shape not in self._peaks:
            try:
                result = predict_peak_memory(self.network, shape, **self.cell.conditions.step)
            except REFUSALS as error:
                why = refusal(error, self.cell, self.network, shape)
                raise _Refused(f"{'x'.join(map(str, shape[2:]))}: {why}") from error
            self._peaks[shape] = result["peak_memory_bytes"]
        return self._peaks[shape]


def _check_budget(cell: Cell, budget_bytes: int, peaks: dict[Size, int]) -> None:
    """Raises InputError if none of the peaks of single images is within the budget."""
    size, least = min(peaks.items(), key=lambda peak: peak[1])
    if least > budget_bytes:
        allowed = f"{least}B ({format_bytes(least)}) or more, for one image in: {_resized(cell, size).label}"
        raise refuse("budget", f"{budget_bytes}B", allowed)


def _find_largest(predict: Callable[[int], int], sizes: range, budget_bytes: int) -> Largest:
    """Returns the largest of `sizes` that fits by bisection, below the first of doubled places that does not."""
    end = 1
    try:
        while end < len(sizes) and predict(sizes[end]) <= budget_bytes:
            end *= 2
        fitting = bisect_right(sizes, budget_bytes, end // 2, min(end, len(sizes)), key=predict)
        (size, peak), (next_size, next_peak) = (
            (sizes[place], predict(sizes[place])) if 0 <= place < len(sizes) else (None, None)
            for place in (fitting - 1, fitting)
        )
    except _Refused as refusal:
        return Largest(refused=str(refusal))
    return Largest(size=size or 0, peak_memory_bytes=peak, next_size=next_size, next_peak_memory_bytes=next_peak)


def _resized(cell: Cell, resolution: Size) -> Cell:
    return replace(cell, conditions=replace(cell.conditions, resolution=resolution, batch_size=1))


def _subject(cell: Cell) -> dict[str, Any]:
    described = cell.describe()
    names = {"model": cell.source if cell.model.is_arm else cell.name} | {
        name: described.get(name) for name in ("variant", "arm", "base")
    }
    names["attention"] = cell.config.attention if cell.config else None
    of_input = ("resolution", "batch_size", "method")
    return names | {name: value for name, value in asdict(cell.conditions).items() if name not in of_input}
