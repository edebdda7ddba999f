"""Answers about a budget prove themselves: what they name fits, and one step more does not."""

import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from ablations.cells import Cell, arm_cell, build_cell
from ablations.config import LARGEST_INPUT, Size, as_pair
from ablations.errors import InputError
from ablations.measure import Memory, budget
from ablations.measure.budget import (
    LARGEST_BATCH,
    SIDE_STEP,
    BudgetAnswer,
    Largest,
    answer_budget,
    answer_budgets,
    budget_values,
    verify_answer,
)
from ablations.measure.network import build_network_on
from ablations.measure.predict import predict_peak_memory
from ablations.measure.process import ProcessFailed

MIB = 2**20


def pico(arm: str = "v1+ope+cffn", attention: Any = "fused", **conditions: Any) -> Cell:
    return arm_cell(variant="pico", arm=arm, base="v2", attention=attention, conditions=Memory(**conditions))


@cache
def network(cell: Cell) -> nn.Module:
    return build_network_on("meta", cell).to("meta")


@cache
def predicted(cell: Cell, resolution: Size, batch_size: int) -> int:
    conditions = cell.conditions
    assert isinstance(conditions, Memory)
    return predict_peak_memory(
        network(cell),
        (batch_size, 3, *as_pair(resolution)),
        mode=conditions.mode,
        precision=conditions.precision,
        device=conditions.device,
        channels_last=conditions.channels_last,
    )["peak_memory_bytes"]


def assert_proven(answer: BudgetAnswer, cell: Cell) -> None:
    """The answer's peaks are those of direct predictions, on both sides of the budget and one step apart."""
    side = answer.largest_resolution
    assert side.size
    assert side.next_size == side.size + SIDE_STEP
    assert side.peak_memory_bytes == predicted(cell, side.size, 1) <= answer.budget_bytes
    assert side.next_peak_memory_bytes == predicted(cell, side.next_size, 1) > answer.budget_bytes
    for resolution, batch in answer.largest_batches:
        assert batch.size is not None
        assert batch.next_size == batch.size + 1
        if batch.size:
            assert batch.peak_memory_bytes == predicted(cell, resolution, batch.size) <= answer.budget_bytes
        else:
            assert batch.peak_memory_bytes is None
        assert batch.next_peak_memory_bytes == predicted(cell, resolution, batch.next_size) > answer.budget_bytes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arm", "attention", "mode"),
    [
        ("v1+ope+cffn", "explicit", "inference"),
        ("v1+ope+cffn+lsra", "fused", "training"),
        ("v1", "fused", "inference"),
        ("v1+cffn", "explicit", "training"),
    ],
)
def test_what_is_answered_fits_and_one_step_more_does_not(arm: str, attention: str, mode: str) -> None:
    cell = pico(arm, attention, mode=mode)
    assert_proven(answer_budget(cell, 20 * MIB, ((32, 96),)), cell)


@pytest.mark.slow
def test_a_resolution_at_which_no_image_fits_has_no_batch() -> None:
    answer = answer_budget(pico(), 20 * MIB, (64, 1024))
    assert_proven(answer, pico())
    batches = dict(answer.largest_batches)
    assert batches[64].size
    assert batches[1024] == Largest(
        size=0, peak_memory_bytes=None, next_size=1, next_peak_memory_bytes=predicted(pico(), 1024, 1)
    )


@pytest.mark.parametrize("attention", ["fused", "explicit"])
def test_bisection_finds_what_trying_every_size_finds(attention: str) -> None:
    cell, limit = pico(attention=attention), 3 * MIB
    answer = answer_budget(cell, limit, (64,))
    assert answer.largest_resolution.size == max(
        side for side in range(32, 225, 32) if predicted(cell, side, 1) <= limit
    )
    assert answer.largest_batches[0][1].size == max(size for size in range(1, 12) if predicted(cell, 64, size) <= limit)


@pytest.mark.slow
@pytest.mark.parametrize(
    "conditions",
    [
        {"device": "cuda"},
        {"device": "cuda", "precision": "bf16", "mode": "training"},
        {"channels_last": False},
        {"checkpointing": "1+2", "mode": "training"},
    ],
)
def test_the_cells_conditions_are_those_of_the_answer(conditions: dict[str, Any]) -> None:
    cell = pico(**conditions)
    answer = answer_budget(cell, 20 * MIB, ())
    assert_proven(answer, cell)
    assert answer.subject.items() >= conditions.items()


def test_a_cells_own_resolution_and_batch_size_make_no_difference() -> None:
    answers = [
        answer_budget(pico(resolution=resolution, batch_size=batch_size), 10 * MIB, (64,))
        for resolution, batch_size in ((32, 1), ((64, 96), 7))
    ]
    assert answers[0] == answers[1]


@pytest.mark.slow
def test_answers_grow_with_the_budget() -> None:
    answers = [answer_budget(pico(), size * MIB, (64,)) for size in (2, 3, 10, 1000)]
    sides = [answer.largest_resolution.size or 0 for answer in answers]
    batches = [answer.largest_batches[0][1].size or 0 for answer in answers]
    assert sides == sorted(set(sides))
    assert batches == sorted(set(batches))


@pytest.mark.slow
def test_few_predictions_of_one_network(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"build_network_on": 0, "predict_peak_memory": 0}

    def counted(name: str) -> Any:
        function = getattr(budget, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return function(*args, **kwargs)

        return call

    for name in counts:
        monkeypatch.setattr(budget, name, counted(name))
    answer = answer_budget(pico("v1", "explicit"), 1000 * MIB, (64, 256, 512))
    assert counts["build_network_on"] == 1
    # Doubling and bisection take two for each binary digit of the answer's place, and the two ends are predicted.
    sides = (answer.largest_resolution.size or 0) // SIDE_STEP
    places = [sides, *(batch.size or 0 for _, batch in answer.largest_batches)]
    assert 0 < counts["predict_peak_memory"] <= sum(2 * place.bit_length() + 1 for place in places)
    assert answer_budget(pico(), 1000 * MIB, ()).largest_batches == ()


@pytest.mark.parametrize(
    ("largest_input", "largest_batch"),
    [(96, 3), pytest.param(LARGEST_INPUT, LARGEST_BATCH, marks=pytest.mark.slow)],
)
def test_what_is_not_tried_any_more_is_said(
    monkeypatch: pytest.MonkeyPatch, largest_input: int, largest_batch: int
) -> None:
    monkeypatch.setattr(budget, "LARGEST_INPUT", largest_input)
    monkeypatch.setattr(budget, "LARGEST_BATCH", largest_batch)
    answer = answer_budget(pico(), 2**50, (32,))
    side, batch = answer.largest_resolution, answer.largest_batches[0][1]
    assert (side.size, side.at_limit) == (largest_input, True)
    assert (batch.size, batch.at_limit) == (largest_batch, True)
    assert batch.next_size is batch.next_peak_memory_bytes is None
    assert batch.peak_memory_bytes == predicted(pico(), 32, largest_batch)


@pytest.mark.parametrize("mode", ["inference", "training"])
def test_the_least_budget_is_named_and_would_do(mode: str) -> None:
    cell = pico(mode=mode)
    least = predicted(cell, 32, 1)
    with pytest.raises(InputError) as caught:
        answer_budget(cell, least - 1, (64,))
    message = str(caught.value)
    assert message.startswith(f"budget='{least - 1}B' is not possible; allowed: {least}B ")
    assert "resolution=32" in message
    answer = answer_budget(cell, least, (64,))
    assert (answer.largest_resolution.size, answer.largest_resolution.peak_memory_bytes) == (32, least)
    assert answer.largest_batches[0][1].size == 0


def test_weights_gradients_and_state_alone_are_more_than_a_budget() -> None:
    cell = pico(mode="training")
    weights = sum(parameter.nbytes for parameter in build_network_on("meta", cell).parameters())
    with pytest.raises(InputError, match="mode=training"):
        answer_budget(cell, 4 * weights, (64,))


def test_resolutions_that_the_cell_cannot_have_are_refused() -> None:
    with pytest.raises(InputError, match=r"resolution=16 "):
        answer_budget(pico(), 40 * MIB, (64, 16))


PICKY = """
import torch
from torch import nn

class Picky(nn.Module):
    def __init__(self, sides):
        super().__init__()
        self.sides = sides
        self.layer = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        if self.sides and x.shape[-1] not in self.sides:
            raise ValueError(f"a side of {x.shape[-1]}")
        return self.layer(x).mean((2, 3))

def takes_none():
    return Picky([1])

def takes_one():
    return Picky([96])

def takes_larger():
    return Picky(range(96, 2**16 + 1))

def computes():
    return Reads([])

class Reads(Picky):
    def forward(self, x):
        return super().forward(x) * x.sum().item()
"""


@pytest.fixture
def picky(tmp_path: Path) -> Path:
    path = tmp_path / "picky.py"
    path.write_text(PICKY)
    return path


def test_a_model_of_one_size_has_no_largest_resolution(picky: Path) -> None:
    cell = build_cell(model=f"{picky}:takes_one", conditions=Memory())
    answer = answer_budget(cell, 40 * MIB, (96, 128))
    assert answer.largest_resolution.size is None
    assert "ValueError: a side of " in answer.largest_resolution.refused
    batches = dict(answer.largest_batches)
    assert batches[96].size
    assert predicted(cell, 96, batches[96].size) <= 40 * MIB < predicted(cell, 96, batches[96].size + 1)
    assert batches[128] == Largest(
        size=None,
        peak_memory_bytes=None,
        next_size=None,
        next_peak_memory_bytes=None,
        refused="128x128: ValueError: a side of 128",
    )
    assert not batches[128].at_limit
    # Where there is no room for a larger one, none is tried.
    assert answer_budget(cell, predicted(cell, 96, 1), (96,)).largest_resolution.refused == (
        "128x128: ValueError: a side of 128"
    )
    with pytest.raises(InputError, match="resolution=96"):
        answer_budget(cell, predicted(cell, 96, 1) - 1, (128,))


def test_an_error_at_every_size_is_no_refusal(picky: Path) -> None:
    with pytest.raises(ValueError, match="a side of 32"):
        answer_budget(build_cell(model=f"{picky}:takes_none", conditions=Memory()), 1, (64,))


def test_a_model_that_refuses_small_images_has_a_largest(picky: Path) -> None:
    cell = build_cell(model=f"{picky}:takes_larger", conditions=Memory())
    assert_proven(answer_budget(cell, 40 * MIB, (96,)), cell)


def test_what_is_wrong_with_a_model_is_no_refusal_of_a_size(picky: Path) -> None:
    with pytest.raises(RuntimeError, match="meta"):
        answer_budget(build_cell(model=f"{picky}:computes", conditions=Memory()), 40 * MIB, (64,))


@pytest.mark.slow
def test_side_by_side_is_as_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "CELLS_PER_WORKER", 1)
    large = pico(mode="training")
    cells = [pico("v1", "explicit"), pico(), *[large] * 40]  # the first takes longest
    asked = (2 * MIB, (64, (32, 96)))
    found = answer_budgets(cells, *asked, workers=2)
    answers = [next(found), next(found)]
    assert len(multiprocessing.active_children()) == 2
    with pytest.raises(InputError, match="budget='2097152B'"):  # too little for training
        next(found)
    assert multiprocessing.active_children() == []
    assert answers == [answer_budget(cell, *asked) for cell in cells[:2]]
    with pytest.raises(InputError, match="budget='2097152B'"):
        list(answer_budgets([large], *asked, workers=1))


def test_few_cells_start_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(budget, "worker_processes")
    assert len(list(answer_budgets([pico()] * 2, 2 * MIB, (64,), workers=2))) == 2


@pytest.mark.slow
def test_answers_hold_for_real() -> None:
    cell = pico(mode="training")
    answer = answer_budget(cell, 4 * MIB, (64, 512))
    runs = list(verify_answer(answer, cell))
    side, batch = answer.largest_resolution, answer.largest_batches[0][1]
    assert answer.largest_batches[1][1].size == 0  # and so there is nothing to run
    assert [(run.resolution, run.batch_size) for run in runs] == [(side.size, 1), (64, batch.size)]
    assert [run.measured_bytes for run in runs] == [side.peak_memory_bytes, batch.peak_memory_bytes]
    assert [run.measured_bytes for run in runs] == [run.predicted_bytes for run in runs]
    assert all(run.fits and not run.note for run in runs)


@pytest.fixture
def no_measurement(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What would be measured is 5 MiB; how often it was, is the list's length."""
    calls: list[Any] = []

    def measure(*args: Any, **kwargs: Any) -> dict[str, Any]:
        calls.append(args)
        return {"peak_memory_bytes": 5 * MIB}

    monkeypatch.setattr(budget, "measure_in_process", measure)
    return calls


def test_more_than_the_budget_does_not_fit(no_measurement: list[Any]) -> None:
    answer = answer_budget(pico(), 4 * MIB, (64,))
    runs = list(verify_answer(answer, pico()))
    assert [(run.measured_bytes, run.fits) for run in runs] == [(5 * MIB, False)] * 2
    assert [run.fits for run in verify_answer(replace(answer, budget_bytes=5 * MIB), pico())] == [True] * 2


def test_more_than_is_free_is_not_run(no_measurement: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    answer = answer_budget(pico(), 4 * MIB, (64,))
    side, batch = answer.largest_resolution, answer.largest_batches[0][1]
    assert side.peak_memory_bytes is not None
    assert batch.peak_memory_bytes is not None
    free = min(side.peak_memory_bytes, batch.peak_memory_bytes)
    assert free < max(side.peak_memory_bytes, batch.peak_memory_bytes)
    monkeypatch.setattr(budget, "available_memory", lambda device: free)
    runs = list(verify_answer(answer, pico()))
    assert len(no_measurement) == 1
    (left_out,) = (run for run in runs if run.predicted_bytes > free)
    assert (left_out.measured_bytes, left_out.fits) == (None, None)
    assert left_out.note.startswith("not run: predicted to need ")


@pytest.mark.parametrize("outcome", ["out_of_memory", "failure"])
def test_a_run_that_ends_without_a_peak_says_why(outcome: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(*_: Any, **__: Any) -> dict[str, Any]:
        if outcome == "failure":
            raise ProcessFailed("said why")
        return {"peak_memory_bytes": None, "out_of_memory": "said why"}

    monkeypatch.setattr(budget, "measure_in_process", measure)
    runs = list(verify_answer(answer_budget(pico(), 4 * MIB, (64,)), pico()))
    assert [(run.measured_bytes, run.fits, run.note) for run in runs] == [(None, None, "said why")] * 2


def test_a_row_for_each_question(picky: Path) -> None:
    cell = pico(mode="training")
    answers = [
        answer_budget(cell, 4 * MIB, ((32, 96), 512)),
        answer_budget(build_cell(model=f"{picky}:takes_one", conditions=Memory()), 4 * MIB, (64,)),
    ]
    rows = budget_values(answers)
    assert len({tuple(row) for row in rows}) == 1  # the same columns
    assert [(row["asked"], row["resolution"], row["batch_size"]) for row in rows] == [
        ("resolution", str(answers[0].largest_resolution.size), 1),
        ("batch_size", "32x96", answers[0].largest_batches[0][1].size),
        ("batch_size", "512", 0),
        ("resolution", None, 1),
        ("batch_size", "64", None),
    ]
    first = rows[0]
    assert {name: first[name] for name in ("model", "arm", "attention", "mode", "budget_bytes", "at_limit")} == {
        "model": "pvt:pico/v1+ope+cffn/v2",
        "arm": "v1+ope+cffn",
        "attention": "fused",
        "mode": "training",
        "budget_bytes": 4 * MIB,
        "at_limit": False,
    }
    assert first["peak_memory_bytes"] <= 4 * MIB < first["next_peak_memory_bytes"]
    assert [bool(row["refused"]) for row in rows] == [False] * 3 + [True] * 2
    assert rows[3]["model"] == f"{picky.name}:takes_one"
    assert rows[3]["arm"] is None
