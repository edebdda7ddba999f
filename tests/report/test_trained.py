"""Accuracies of our own trainings as they are drawn: the cumulative ablation, and leads by epoch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ablations.analysis.accuracy import cumulative_accuracy_values
from ablations.cells import arm_cell
from ablations.config import ARMS, CUMULATIVE, build_config
from ablations.cost import count_macs, count_params
from ablations.errors import InputError
from ablations.measure import Accuracy
from ablations.records import load_records
from ablations.report.accuracy import plot_cumulative_accuracy, plot_difference_by_epoch
from ablations.report.contents import list_figures

CELL = arm_cell("pico", "v1", "v2", Accuracy())
KINDS = ("accuracy", "cumulative_accuracy", "difference_by_epoch")

Write = Callable[..., Path]


def write_training(results: Path, write_cell: Write, arm: str, points: list[float], **conditions: Any) -> None:
    """Writes a training of two epochs with top-1 in points after each."""
    history = [{"epoch": 1, "loss": 2.0, "top1": points[0] / 100}, {"epoch": 2, "loss": 1.0}]
    result = {"top1": points[1] / 100, "history": history, "n_eval_images": 1000, "n_train_images": 2000}
    write_cell(results, replace(CELL.of(arm=arm), conditions=Accuracy(epochs=2, **conditions)), result)


def write_study(results: Path, write_cell: Write, **conditions: Any) -> None:
    """OPE adds 2 points, CFFN 4, both together 2 less. A seed has v1 a point up or down, and the others down or up."""
    for arm in ARMS:
        ope, cffn = "ope" in arm.split("+"), "cffn" in arm.split("+")
        planted = 50 + 2 * ope + 4 * cffn - 2 * ope * cffn
        for seed, point in enumerate((-1, 0, 1) * 2):
            last = planted - point if arm == "v1" else planted + point
            write_training(results, write_cell, arm, [last / 2, last], seed=seed, **conditions)


@pytest.fixture
def records(tmp_path: Path, write_cell: Write) -> pd.DataFrame:
    write_study(tmp_path, write_cell)
    return load_records(tmp_path)


@pytest.fixture
def mixed(tmp_path: Path, write_cell: Write, records: pd.DataFrame) -> pd.DataFrame:
    """The same, and beside it larger batches."""
    write_study(tmp_path, write_cell, batch_size=32)
    return load_records(tmp_path)


def test_the_cumulative_ablation_has_costs_beside_its_steps(ax, records):
    assert plot_cumulative_accuracy(ax, cumulative_accuracy_values(records)) is ax
    assert list(ax.lines[0].get_xdata()) == pytest.approx([50, 52, 54, 54])
    # From v1 the seeds gain 0, 2 and 4 points, twice: p = 0.041, and three times that by Holm.
    assert [text.get_text() for text in ax.texts] == [
        "50.00",
        "52.00 (+2.00, unresolved)",
        "54.00 (+2.00, unresolved)",
        "54.00 (+0.00, unresolved)",
    ]
    labels = [label.get_text().splitlines() for label in ax.get_yticklabels()]
    assert [label[0] for label in labels] == list(CUMULATIVE)
    for arm, params, macs in labels:
        config = build_config("pico", arm, "v2", num_classes=10)
        for text, count, unit in ((params, count_params(config), "params"), (macs, count_macs(config, 32), "MACs")):
            number, prefix, word = text.split()
            assert float(number.replace(",", "")) * {"k": 1e3, "M": 1e6}[prefix] == pytest.approx(count, rel=1e-3)
            assert word == unit


def test_a_resolved_step_is_not_called_unresolved(ax, records):
    plot_cumulative_accuracy(ax, cumulative_accuracy_values(records).assign(top1_step_resolved=True))
    assert [text.get_text() for text in ax.texts][1] == "52.00 (+2.00)"


def ends_of_band(ax) -> set[tuple[int, float]]:
    """The corners of the first band, by epoch."""
    return {(round(x), round(y, 6)) for x, y in ax.collections[0].get_paths()[0].vertices}


def test_leads_by_epoch_are_over_v1(ax, records):
    plot_difference_by_epoch(ax, records)
    lines = {line.get_label(): list(line.get_ydata()) for line in ax.lines}
    assert lines["v1+cffn"] == pytest.approx([2, 4])
    assert lines["v1+lsra"] == pytest.approx([0, 0], abs=1e-9)
    # By seed 2 less, as much and 2 more at the end: a variance of 16 / 5, and half of all that after the first epoch.
    half = 2.570581835636314 * (16 / 5 / 6) ** 0.5
    expected = {(1, 1 - half / 2), (1, 1 + half / 2), (2, 2 - half), (2, 2 + half)}
    assert ends_of_band(ax) == {(epoch, round(end, 6)) for epoch, end in expected}


def test_one_seed_is_a_line_without_a_band(ax, records):
    plot_difference_by_epoch(ax, records[records["seed"] == 0])
    assert len(ax.lines) == len(ARMS)  # of seven arms, and of 0
    assert len(ax.collections) == 0


def draw_cumulative(ax, rows):
    plot_cumulative_accuracy(ax, cumulative_accuracy_values(rows))


@pytest.mark.parametrize("draw", [draw_cumulative, plot_difference_by_epoch])
def test_a_plot_refuses_mixed_conditions(ax, records, mixed, draw):
    draw(ax, records)
    with pytest.raises(InputError, match=r"^batch_size is mixed, 32, 64; "):
        draw(ax, mixed)


@pytest.mark.slow
def test_the_figures_are_legible(records, find_illegible):
    for spec in list_figures(records, kinds=KINDS):
        assert find_illegible(spec) == [], spec.name


def test_accuracy_at_the_end_alone_is_no_curve(records):
    first = records["history"].map(lambda history: history[:1])
    names = [spec.name for spec in list_figures(records.assign(history=first), kinds=KINDS)]
    assert names
    assert not any("epoch" in name for name in names)
