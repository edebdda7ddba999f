"""Where the time of a step goes, on records that are made up."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

from ablations.design import Cell, Speed
from ablations.errors import InputError
from ablations.measure.operators import KINDS
from ablations.records import load_records
from ablations.report.operator_values import (
    BETWEEN,
    KIND_COLOURS,
    OURS,
    operator_time_values,
    plot_operator_times,
)
from ablations.report.build import list_figures
from ablations.report.speed_tables import SPEED_TABLES
from ablations.report.tables import render_markdown

Write = Callable[..., None]

CELL = Cell(
    variant="b0",
    arm="v1+ope+cffn",
    base="published",
    conditions=Speed(reference="timm+transformers", resolution=64, batch_size=4, repeats=6),
)


def operators(**seconds: float) -> list[dict[str, Any]]:
    """Rows of the kinds by their first words; each operator is there twice, under different names."""
    rows = []
    for word, each in seconds.items():
        (kind,) = (kind for kind in KINDS if kind.startswith(word))
        rows += [
            {"kind": kind, "operator": name, "calls": 3, "seconds": each / 2, "samples": [each / 2] * 5}
            for name in ("one", "two")
        ]
    return rows


def profiled(overhead_s: float, **seconds: float) -> dict[str, Any]:
    overheads = {"step_overhead_s": overhead_s, "step_overhead_samples": [overhead_s] * 5}
    return {"operators": operators(**seconds), **overheads}


def reference(ratio: float, **timed: Any) -> dict[str, Any]:
    ends = {f"relative_speed{end}": ratio * factor for end, factor in {"": 1, "_low": 0.9, "_high": 1.1}.items()}
    return {"latency_s": 0.1 * ratio, "noisy": False, "samples": [0.1 * ratio] * 6, **ends, **timed}


@pytest.fixture
def write(tmp_path: Path, write_cell: Callable[..., Path]) -> Write:
    """`write(cell, **changes)` writes a record of a step of 0.1 s whose operators take 0.06 s when it is profiled."""

    def write_timed(cell: Cell = CELL, **changes: Any) -> None:
        result = {
            "latency_s": 0.1,
            "throughput_img_per_s": 40.0,
            "iqr_over_median": 0.02,
            "noisy": False,
            "macs_per_s": 30e9,
            "peak_macs_per_s": 50e9,
            "samples": [0.1] * 4,
            **profiled(0.04, matrix=0.04, depth=0.02),
            "roofline": [
                {"kind": "matrix products", "calls": 3, "macs": 900, "bytes": 10, "bound_s": 0.035},
                {"kind": "depth-wise convolutions", "calls": 3, "macs": 90, "bytes": 80, "bound_s": 0.015},
                {"kind": "other", "calls": 1, "macs": 0, "bytes": 80, "bound_s": 0.03},
            ],
            "uncounted": [],
            "references": {
                "timm": reference(1.5, **profiled(0.1, matrix=0.05, copies=0.05)),
                "timm, channels-last": reference(1.2),
                "transformers": reference(2.0, noisy=True, **profiled(0.0, other=0.3)),
            },
        }
        write_cell(tmp_path, cell, {name: value for name, value in (result | changes).items() if value is not None})

    return write_timed


def test_the_report_knows_every_kind() -> None:
    assert tuple(KIND_COLOURS) == KINDS
    assert len(set(KIND_COLOURS.values())) == len(KINDS)


def test_a_row_for_us_and_for_each_library_as_it_comes(write: Write, tmp_path: Path) -> None:
    write()
    values = operator_time_values(load_records(tmp_path))
    assert list(values["implementation"]) == ["ours", "timm", "transformers"]
    assert list(values["relative_time"]) == [1.0, 1.5, 2.0]
    assert list(values["latency_s"]) == pytest.approx([0.1, 0.15, 0.2])
    assert list(values["matrix_products_s"]) == pytest.approx([0.04, 0.05, 0.0])
    assert list(values["operators_s"]) == pytest.approx([0.06, 0.1, 0.3])
    assert list(values["between_operators_s"]) == pytest.approx([0.04, 0.1, 0.0])
    assert list(values["depth_wise_convolutions_share"]) == pytest.approx([0.2, 0.0, 0.0])
    assert list(values["between_operators_share"]) == pytest.approx([0.4, 0.5, 0.0])
    assert list(values.filter(like="_share").drop(columns="share_of_peak", errors="ignore").sum(axis="columns")) == (
        pytest.approx([1.0, 1.0, 1.0])
    )


def test_our_floor_and_the_share_of_the_peak_there(write: Write, tmp_path: Path) -> None:
    write()
    values = operator_time_values(load_records(tmp_path))
    (row,) = values[values["implementation"] == OURS].to_dict("records")
    assert row["case"] == "b0 v1+ope+cffn, 64 px, batch 4"
    assert row["bound_s"] == pytest.approx(0.08)
    assert (row["matrix_products_floor_s"], row["copies_floor_s"]) == (0.035, 0.0)
    assert row["over_bound"] == pytest.approx(1.25)
    assert (row["share_of_peak"], row["share_of_peak_at_bound"]) == (pytest.approx(0.6), pytest.approx(0.75))


def test_records_without_operators_are_left_out(write: Write, tmp_path: Path) -> None:
    older = replace(CELL, conditions=replace(CELL.conditions, resolution=128))
    write(older, step_overhead_samples=None)
    assert operator_time_values(load_records(tmp_path)).empty
    assert operator_time_values(load_records(tmp_path / "nothing")).empty
    assert not any(sheet.name.startswith("speed_operators") for sheet in list_figures(load_records(tmp_path)))
    write()
    assert set(operator_time_values(load_records(tmp_path))["resolution"]) == {"64"}


def test_arms_timed_beside_v1_are_left_out(write: Write, tmp_path: Path) -> None:
    beside_v1 = replace(CELL, conditions=replace(CELL.conditions, reference="v1"))
    write(beside_v1, references=None)
    write()
    assert list(operator_time_values(load_records(tmp_path))["implementation"]) == ["ours", "timm", "transformers"]


def lines_of(results: Path) -> tuple[str, list[list[str]]]:
    """The table of operators, and its lines as cells."""
    (table,) = (table for table in SPEED_TABLES if table.name == "speed_operators")
    text = render_markdown(table, table.values(load_records(results)))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return text, [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_has_shares_of_all_steps_and_floors_of_ours(write: Write, tmp_path: Path) -> None:
    write()
    large = replace(CELL, conditions=replace(CELL.conditions, resolution=128))
    write(large, latency_s=0.32, uncounted=["fused::all", "fused::more"], references={"timm": reference(1.0)})
    text, (heading, _, *rows) = lines_of(tmp_path)
    kinds = ("Matrix products, %", "Depth-wise convolutions, %", "Copies, %", "Other, %", "Between operators, %")
    of_ours = ("Roofline bound, ms", "Latency over roofline bound", "Peak, GMAC/s", "Of the peak, %", "Of the peak at the roofline bound, %")
    beside = ("n", "Latency, ms", "Time, ours = 1", "Noisy")
    assert heading == ["Model", "Implementation", *beside, *kinds, "Profiled over timed", *of_ours]
    timms = "1.50 (1.35 to 1.65)"
    transformers = "2.00 (1.80 to 2.20)"
    small, large_one = "b0 v1+ope+cffn, 64 px, batch 4", "b0 v1+ope+cffn, 128 px, batch 4"
    assert rows == [
        [small, "ours", "6", "100.0", "-", "", *"40.0 20.0 - - 40.0 1.00 80.00 1.25 50 60.0 75.0".split()],
        [small, "timm", "6", "150.0", timms, "", *"25.0 - 25.0 - 50.0 1.33 - - - - -".split()],
        [small, "transformers", "6", "200.0", transformers, "noisy", *"- - - 100.0 - 1.50 - - - - -".split()],
        [large_one, "ours", "6", "320.0", "-", "", *"40.0 20.0 - - 40.0 0.31 80.00 4.00 50 60.0 240.0".split()],
    ]
    assert "5 profiled steps of each model. Geometric" in text
    # The root of 1.25 times 4.
    assert "Geometric mean of 2 rows of ours: 2.24 times the roofline bound." in text
    assert "MACs that nobody counted may be in `fused::all, fused::more`." in text


def test_one_row_is_no_mean(write: Write, tmp_path: Path) -> None:
    write()
    assert "One row of ours: 1.25 times the roofline bound." in lines_of(tmp_path)[0]


def test_bars_are_as_long_as_the_times_and_divided_by_kind(write: Write, tmp_path: Path) -> None:
    write()
    ax = Figure().add_subplot()
    values = operator_time_values(load_records(tmp_path))
    assert plot_operator_times(ax, values) is ax
    assert [label.get_text() for label in ax.get_yticklabels()] == ["ours", "timm", "transformers", "roofline bound"]
    assert [text.get_text() for text in ax.texts] == ["b0 v1+ope+cffn, 64 px, batch 4"]
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [*KINDS, BETWEEN, "roofline bound of our operators"]
    *kinds, roofline bound = ax.containers
    bars = {kind: [bar.get_width() for bar in bars] for kind, bars in zip([*KINDS, BETWEEN], kinds, strict=True)}
    assert bars["matrix products"] == pytest.approx([0.4, 1.5 * 0.25, 0.0])
    assert bars["copies"] == pytest.approx([0.0, 1.5 * 0.25, 0.0])
    assert bars["other"] == pytest.approx([0.0, 0.0, 2.0])
    ends = [bar.get_x() + bar.get_width() for bar in kinds[-1]]
    assert ends == pytest.approx([1.0, 1.5, 2.0])
    assert [bar.get_width() for bar in roofline bound] == pytest.approx([0.8])
    places = [bar.get_y() + bar.get_height() / 2 for bar in (*kinds[0], *roofline bound)]
    assert places == pytest.approx(list(ax.get_yticks()))


def test_the_figure_has_both_modes_and_nothing_overlaps(write: Write, tmp_path: Path, find_illegible: Callable) -> None:
    for arm in ("v1+ope+cffn", "v1+ope+cffn+lsra"):
        for mode in ("inference", "training"):
            for resolution in (64, 224, 1024):
                conditions = replace(CELL.conditions, mode=mode, resolution=resolution)
                write(replace(CELL, arm=arm, conditions=conditions))
    (sheet,) = (sheet for sheet in list_figures(load_records(tmp_path)) if sheet.name.startswith("speed_operators"))
    assert sheet.name == "speed_operators_b0_cpu_float32"
    assert [panel.conditions["mode"] for panel in sheet.panels] == ["inference", "training"]
    assert len(sheet.draw().legends) == 1
    assert find_illegible(sheet) == []


def test_one_panel_is_legible_too(write: Write, tmp_path: Path, find_illegible: Callable) -> None:
    write()
    (sheet,) = (sheet for sheet in list_figures(load_records(tmp_path)) if sheet.name.startswith("speed_operators"))
    assert find_illegible(sheet) == []


def test_mixed_modes_are_refused(write: Write, tmp_path: Path) -> None:
    write()
    write(replace(CELL, conditions=replace(CELL.conditions, mode="training")))
    values: pd.DataFrame = operator_time_values(load_records(tmp_path))
    with pytest.raises(InputError, match=r"^mode is mixed, "):
        plot_operator_times(Figure().add_subplot(), values)
