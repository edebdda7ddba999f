"""Other people's counts beside the true ones: what stands in the table, and in which words."""

from pathlib import Path

import pytest

from ablations.analysis.counters import counter_values
from ablations.cells import arm_cell
from ablations.measure import Counters
from ablations.records import load_records
from ablations.report.counters import TABLES
from ablations.report.tables import render_latex, render_markdown

LAYERS = {
    **{"convolution": 1.0, "depth-wise convolution": 1.0, "linear layer": 1.0},
    **{"fused attention": 0.0, "explicit attention": 1.0, "bias": 0.0, "layer norm": 5.0, "GELU": 0.0},
}
NO_ATTENTION = LAYERS | {"explicit attention": 0.0, "layer norm": 0.0}
ONE_TOKEN = NO_ATTENTION | {"linear layer": 1 / 49}


@pytest.fixture
def results(tmp_path, write_cell) -> Path:
    """Counts of 1,000 M true MACs at 64 px and 4,000 M at 128 px, by three tools."""
    for attention, fvcore in (("fused", 0.9), ("explicit", 1.02)):
        for resolution, macs in ((64, 10**9), (128, 4 * 10**9)):
            for tool, share, layers in (
                ("fvcore", fvcore, LAYERS),
                ("calflops", 0.9, NO_ATTENTION),
                ("torchinfo", 0.1, ONE_TOKEN),
            ):
                cell = arm_cell("pico", "v1", "v2", Counters(resolution=resolution, tool=tool), attention=attention)
                counted = {"macs": macs, "macs_counted": round(share * macs), "counted_of_layers": layers}
                write_cell(tmp_path, cell, counted | {"tool_version": "1.0"})
    return tmp_path


def test_each_tool_stands_beside_the_true_count_with_both_kernels(results):
    values = counter_values(load_records(results))
    assert list(values["tool"]) == ["true count", "fvcore", "calflops", "torchinfo"] * 2
    first = values[values["resolution"] == "64"].set_index("tool")
    assert list(first["macs_fused"]) == [10**9, 9e8, 9e8, 1e8]
    assert first.loc["fvcore", "macs_explicit"] == 1.02e9
    assert first.loc["fvcore", "macs_fused_off_percent"] == pytest.approx(-10)
    assert first.loc["fvcore", "macs_explicit_off_percent"] == pytest.approx(2)
    assert first.loc["fvcore", ["leaves_out", "counts_beside"]].tolist() == ["fused attention", "layer norm 5"]
    assert first.loc["calflops", ["leaves_out", "counts_beside"]].tolist() == ["attention's products", ""]
    assert first.loc["torchinfo", "leaves_out"] == "linear layer (all but 1 of 49 tokens), attention's products"


def test_a_kernel_that_was_not_asked_for_leaves_its_column_out(tmp_path, write_cell):
    counted = {"macs": 10, "macs_counted": 9, "counted_of_layers": LAYERS, "tool_version": "1.0"}
    write_cell(tmp_path, arm_cell("pico", "v1", "v2", Counters()), counted)
    values = counter_values(load_records(tmp_path))
    assert list(values["macs_fused"]) == [10, 9]
    text = render_markdown(TABLES[0], values)
    assert "224 px, fused attention" in text
    assert "explicit attention: GMACs" not in text


def test_the_table_shows_the_count_and_how_far_it_is_off(results):
    text = render_markdown(TABLES[0], counter_values(load_records(results)))
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in text.splitlines() if "fvcore " in line]
    shown = ["fvcore", "fused attention", "layer norm 5"]
    assert rows[-1] == [*shown, "0.9000 (-10.0 %)", "1.020 (+2.0 %)", "3.600 (-10.0 %)", "4.080 (+2.0 %)"]
    assert r"\toprule" in render_latex(TABLES[0], counter_values(load_records(results)))


def test_without_records_there_is_no_table(quick_records):
    assert counter_values(quick_records).empty
