"""Tables and figures of speed: what they say and draw of made-up records."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablations.analysis.speed import (
    BETWEEN,
    library_values,
    operator_time_values,
    speed_values,
    throughput_values,
)
from ablations.cells import Cell, arm_cell
from ablations.config import ARMS
from ablations.errors import InputError
from ablations.measure import Speed
from ablations.measure.kinds import OPERATOR_KINDS
from ablations.records import load_records
from ablations.report.contents import list_figures
from ablations.report.figures import FigureSpec, arm_colour
from ablations.report.speed import (
    APART,
    KIND_COLOURS,
    OURS_STYLE,
    TABLES,
    plot_speed,
    plot_speed_libraries,
    plot_speed_operators,
    plot_throughput,
)
from ablations.report.tables import render_markdown

Write = Callable[..., Path]

CONDITIONS = Speed(reference="timm+transformers", resolution=64, batch_size=4, repeats=6)
CELL = arm_cell(variant="b0", arm="v1+ope+cffn", base="published", conditions=CONDITIONS)
LIBRARIES = {"timm": 1.5, "timm, channels-last": 1.2, "transformers": 2.0}


def at(cell: Cell = CELL, **conditions: Any) -> Cell:
    return replace(cell, conditions=replace(cell.conditions, **conditions))


def render(name: str, results: Path) -> str:
    """Returns a table of the records as Markdown."""
    (table,) = (table for table in TABLES if table.name == name)
    return render_markdown(table, table.values(load_records(results)))


def rows_of(text: str) -> list[list[str]]:
    """Returns the lines of a Markdown table as cells, the heading first."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("| --")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def figure_named(start: str, results: Path) -> FigureSpec:
    (figure,) = list_figures(load_records(results), kinds=[start])
    return figure


@pytest.fixture
def ax() -> Axes:
    return Figure().add_subplot()


def write_arms(results: Path, write_cell: Write, *, second_reference_s: float) -> None:
    """Writes v1, and v1+ope at v1's speed with an interval that holds 1, beside a v1 that takes so long."""
    for arm, v1_s, low, high in (("v1", 0.1, 1.0, 1.0), ("v1+ope", second_reference_s, 0.98, 1.03)):
        result = {
            **{"latency_s": v1_s, "iqr_over_median": 0.02, "noisy": False, "throughput_img_per_s": 8 / v1_s},
            **{"relative_speed": 1.0, "relative_speed_low": low, "relative_speed_high": high},
            **{"samples": [v1_s] * 10, "reference_samples": [v1_s] * 10, "macs_per_s": 3e9, "peak_macs_per_s": 4e10},
        }
        write_cell(results, arm_cell(variant="nano", arm=arm, base="v2", conditions=Speed()), result)


def test_arms_are_shown_by_v1_and_drift_is_flagged(tmp_path: Path, write_cell: Write) -> None:
    write_arms(tmp_path, write_cell, second_reference_s=0.15)
    text = render("speed", tmp_path)
    heading, v1, ope = rows_of(text)
    assert heading[3] == "Latency, ms, v1-normalised"
    assert v1[1:6] == ["-", "-", "100.0", "80.00", "100.0"]
    assert ope[1:6] == ["1.000", "0.980 to 1.030, unresolved", "100.0", "80.00", "150.0"]
    assert "v1 drifted: its own latency was 100.0 to 150.0 ms from row to row, 50 % apart." in text
    assert "Bold" not in text


def test_a_steady_v1_is_no_drift(tmp_path: Path, write_cell: Write) -> None:
    write_arms(tmp_path, write_cell, second_reference_s=0.105)
    assert "v1's own latency was 100.0 to 105.0 ms from row to row." in render("speed", tmp_path)


def test_the_share_of_a_peak_that_drifts_is_a_range(tmp_path: Path, write_beside_libraries: Write) -> None:
    write_beside_libraries(CELL, LIBRARIES)
    assert "|           40 |           75.0 |" in render("speed_libraries", tmp_path)
    write_beside_libraries(at(resolution=128), LIBRARIES, peak_macs_per_s=60e9)
    _, first, second = rows_of(render("speed_libraries", tmp_path))
    assert first[3:5] == second[3:5] == ["40 to 60", "50.0 to 75.0"]


def test_a_row_a_case_with_a_ratio_to_each_library(tmp_path: Path, write_beside_libraries: Write) -> None:
    write_beside_libraries(CELL, {"timm": 2.0, "transformers": 1.05})
    write_beside_libraries(at(resolution=128, batch_size=2), {"timm": 0.5})
    _, small, large = rows_of(render("speed_libraries", tmp_path))
    assert small[0] == "b0 v1+ope+cffn, 64 px, batch 4"
    assert small[5:7] == ["2.00 (1.80 to 2.20)", "1.05 (0.95 to 1.16), unresolved"]
    assert (large[0], large[5:7]) == ("b0 v1+ope+cffn, 128 px, batch 2", ["0.50 (0.45 to 0.55)", "-"])


def test_means_over_rows_have_intervals_and_counts(tmp_path: Path, write_beside_libraries: Write) -> None:
    write_beside_libraries(CELL, {"timm": 2.0})
    write_beside_libraries(at(resolution=128, batch_size=1), {"timm": 0.5})
    write_beside_libraries(at(resolution=256, batch_size=1), {"timm": 1.0})
    heading, timm, *_ = rows_of(render("speed_libraries_mean", tmp_path))
    assert heading[:5] == ["Beside", "Rows", "All rows", "Batch 1", "Larger batches"]
    assert timm[:3] == ["timm", "3", "1.000 (1.000 to 1.000), unresolved"]
    assert timm[3:] == ["0.707 (0.707 to 0.707)", "2.000 (2.000 to 2.000)", "0.50", "1 / 1 / 1"]


def test_the_table_of_operators_has_shares_of_all_steps_and_bounds_of_ours(
    tmp_path: Path, write_beside_libraries: Write
) -> None:
    write_beside_libraries(CELL, LIBRARIES)
    write_beside_libraries(at(resolution=128), {"timm": 1.0}, latency_s=0.32, uncounted=["fused::all", "fused::more"])
    text = render("speed_operators", tmp_path)
    heading, *rows = rows_of(text)
    kinds = ("Matrix products, %", "Depth-wise convolutions, %", "Copies, %", "Between operators, %")
    bounds = ("Roofline bound, ms", "Latency over roofline bound")
    peaks = ("Peak, GMAC/s", "Of the peak, %", "Of the peak at the roofline bound, %")
    beside = ("n", "Latency, ms", "Time, ours = 1", "Noisy")
    assert heading == ["Model", "Implementation", *beside, *kinds, "Profiled over timed", *bounds, *peaks]
    small, large = "b0 v1+ope+cffn, 64 px, batch 4", "b0 v1+ope+cffn, 128 px, batch 4"
    timms, transformers, equal = "1.50 (1.35 to 1.65)", "2.00 (1.80 to 2.20)", "1.00 (0.90 to 1.10), unresolved"
    assert rows == [
        [small, "ours", "6", "100.0", "-", "", *"40.0 20.0 - 40.0 1.00 80.00 1.25 40 75.0 93.8".split()],
        [small, "timm", "6", "150.0", timms, "", *"50.0 - 50.0 - 1.00 - - - - -".split()],
        [small, "transformers", "6", "200.0", transformers, "", *"50.0 - 50.0 - 1.00 - - - - -".split()],
        [large, "ours", "6", "320.0", "-", "", *"40.0 20.0 - 40.0 0.31 80.00 4.00 40 75.0 300.0".split()],
        [large, "timm", "6", "100.0", equal, "", *"50.0 - 50.0 - 1.00 - - - - -".split()],
    ]
    assert "5 profiled steps of each model. Ours take 1.25 to 4.00 times the roofline bound." in text
    assert "MACs that nobody counted may be in `fused::all, fused::more`." in text


def test_speeds_have_whiskers_and_unresolved_ones_are_hollow(ax: Axes, quick_records: pd.DataFrame) -> None:
    values = speed_values(quick_records).query("mode == 'inference' and resolution == '32'")
    ends = ["relative_speed", "relative_speed_low", "relative_speed_high"]
    values.loc[values["arm"] == "v1+lsra", ends] = 1.01, 0.99, 1.03
    assert plot_speed(ax, values) is ax
    assert ax.lines[0].get_xdata() == [1, 1]
    row = values[values["arm"] == "v1+cffn"].iloc[0]
    whisker = ax.collections[list(ARMS).index("v1+cffn")].get_segments()[0]
    assert whisker[:, 0] == pytest.approx([row["relative_speed_low"], row["relative_speed_high"]])
    hollow = {line.get_color() for line in ax.lines if line.get_markerfacecolor() == "white"}
    assert hollow == {arm_colour("v1+lsra")}
    assert [label.get_text() for label in ax.get_yticklabels() if "noisy" in label.get_text()] == ["v1+ope, noisy"]


def test_the_figure_of_libraries_has_a_line_a_case_and_a_mark_a_library(
    tmp_path: Path, write_beside_libraries: Write
) -> None:
    for resolution in (32, 64, 128, 256):
        write_beside_libraries(at(resolution=resolution), {"timm": 2.0, "timm, channels-last": 1.1})
    figure = figure_named("speed_libraries", tmp_path)
    assert figure.name == "speed_libraries_cpu_float32"
    (ax,) = figure.draw().axes
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        f"b0 v1+ope+cffn\n{resolution} px, batch 4, n = 6" for resolution in (32, 64, 128, 256)
    ]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["timm", "timm, channels-last"]


def test_every_kind_of_operator_has_a_colour_of_its_own() -> None:
    assert len(set(KIND_COLOURS.values())) == len(OPERATOR_KINDS)


def test_bars_are_as_long_as_the_times_and_divided_by_kind(
    ax: Axes, tmp_path: Path, write_beside_libraries: Write
) -> None:
    write_beside_libraries(CELL, LIBRARIES)
    assert plot_speed_operators(ax, operator_time_values(load_records(tmp_path))) is ax
    assert [label.get_text() for label in ax.get_yticklabels()] == ["ours", "timm", "transformers", "roofline bound"]
    assert [text.get_text() for text in ax.texts] == ["b0 v1+ope+cffn, 64 px, batch 4"]
    legend = ax.get_legend()
    assert legend is not None
    words = [*OPERATOR_KINDS, BETWEEN, "roofline bound of our operators"]
    assert [text.get_text() for text in legend.get_texts()] == words
    *parts, bound = ax.containers
    widths = {part: [bar.get_width() for bar in bars] for part, bars in zip(words, parts, strict=False)}
    assert widths["matrix products"] == pytest.approx([0.4, 0.75, 1.0])
    assert widths["copies"] == pytest.approx([0.0, 0.75, 1.0])
    assert [bar.get_x() + bar.get_width() for bar in parts[-1]] == pytest.approx([1.0, 1.5, 2.0])
    assert [bar.get_width() for bar in bound] == pytest.approx([0.8])
    places = [bar.get_y() + bar.get_height() / 2 for bar in (*parts[0], *bound)]
    assert places == pytest.approx(list(ax.get_yticks()))


@pytest.mark.slow
def test_the_figure_of_operators_has_both_modes_and_nothing_overlaps(
    tmp_path: Path, write_beside_libraries: Write, find_illegible: Callable
) -> None:
    for arm in ("v1+ope+cffn", "v1+ope+cffn+lsra"):
        for mode in ("inference", "training"):
            for resolution in (64, 224, 1024):
                write_beside_libraries(at(CELL.of(arm=arm), mode=mode, resolution=resolution), LIBRARIES)
    figure = figure_named("speed_operators", tmp_path)
    assert figure.name == "speed_operators_b0_cpu_float32"
    assert [panel.conditions["mode"] for panel in figure.panels] == ["inference", "training"]
    assert len(figure.draw().legends) == 1
    assert find_illegible(figure) == []


def test_one_panel_of_operators_is_legible_too(
    tmp_path: Path, write_beside_libraries: Write, find_illegible: Callable
) -> None:
    write_beside_libraries(CELL, LIBRARIES)
    assert find_illegible(figure_named("speed_operators", tmp_path)) == []


def test_a_line_each_for_us_and_the_libraries(ax: Axes, tmp_path: Path, write_beside_libraries: Write) -> None:
    write_beside_libraries(at(batch_size=16), {"timm": 2.0, "timm, channels-last": 1.25, "transformers": 4.0}, 0.5)
    write_beside_libraries(at(resolution=128), {"timm": 1.0, "timm, channels-last": 0.5}, 0.5)
    write_beside_libraries(at(resolution=(64, 256)), {"timm": 1.0}, 0.5)
    assert plot_throughput(ax, throughput_values(load_records(tmp_path))) is ax
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_ylabel() == "Throughput, thousand px/s"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["64\nbatch 16", "128\nbatch 4"]
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["ours", "timm", "timm, channels-last", "transformers"]
    ours, timm, channels_last, transformers = ax.lines
    thousand = 16 * 64**2 / 0.5 / 1e3  # at both sizes
    assert list(ours.get_xdata()) == pytest.approx([64, 128])
    assert list(ours.get_ydata()) == pytest.approx([thousand, thousand])
    assert ours.get_color() == OURS_STYLE["color"] not in {line.get_color() for line in ax.lines[1:]}
    assert list(timm.get_ydata()) == pytest.approx([thousand / 2, thousand])
    assert list(channels_last.get_ydata()) == pytest.approx([thousand / 1.25, 2 * thousand])
    assert (timm.get_marker(), channels_last.get_marker()) == ("o", "x")
    # The three libraries stand around the size, the second on it.
    assert list(timm.get_xdata()) == pytest.approx([64 / APART, 128 / APART])
    assert list(channels_last.get_xdata()) == pytest.approx([64, 128])
    assert list(transformers.get_xdata()) == pytest.approx([64 * APART, 128 * APART])
    whiskers = ax.collections[0].get_segments()
    assert [segment[:, 1].tolist() for segment in whiskers] == [
        pytest.approx([thousand / 2.2, thousand / 1.8]),
        pytest.approx([thousand / 1.1, thousand / 0.9]),
    ]
    assert [bool(pd.isna(y)) for y in transformers.get_ydata()] == [False, True]


def test_a_model_has_its_modes_side_by_side(
    tmp_path: Path, write_beside_libraries: Write, find_illegible: Callable
) -> None:
    for arm in ("v1+ope+cffn", "v1+ope+cffn+lsra"):
        for mode in ("inference", "training"):
            for resolution in (64, 224):
                write_beside_libraries(at(CELL.of(arm=arm), mode=mode, resolution=resolution), LIBRARIES)
    write_beside_libraries(at(CELL.of(variant="nano"), resolution=32), LIBRARIES)  # one size makes no line
    figure = figure_named("throughput", tmp_path)
    assert figure.name == "throughput_cpu_float32"
    assert [(panel.conditions["arm"], panel.conditions["mode"]) for panel in figure.panels] == [
        ("v1+ope+cffn", "inference"),
        ("v1+ope+cffn", "training"),
        ("v1+ope+cffn+lsra", "inference"),
        ("v1+ope+cffn+lsra", "training"),
    ]
    assert len(figure.draw().legends) == 1
    assert find_illegible(figure) == []


@pytest.mark.parametrize(
    ("plot", "values_of", "changes", "condition"),
    [
        (plot_speed_libraries, library_values, {"mode": "training"}, "mode"),
        (plot_speed_operators, operator_time_values, {"mode": "training"}, "mode"),
        (plot_throughput, throughput_values, {"precision": "bf16"}, "precision"),
    ],
)
def test_a_plot_refuses_mixed_conditions(
    plot: Callable,
    values_of: Callable,
    changes: dict[str, Any],
    condition: str,
    ax: Axes,
    tmp_path: Path,
    write_beside_libraries: Write,
) -> None:
    write_beside_libraries(CELL, LIBRARIES)
    write_beside_libraries(at(**changes), LIBRARIES)
    with pytest.raises(InputError, match=rf"^{re.escape(condition)} is mixed, "):
        plot(ax, values_of(load_records(tmp_path)))


def test_a_plot_of_arms_refuses_mixed_sizes(ax: Axes, quick_records: pd.DataFrame) -> None:
    with pytest.raises(InputError, match=r"^resolution is mixed, "):
        plot_speed(ax, speed_values(quick_records))
