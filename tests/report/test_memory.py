"""Tables and figures of peak memory: what they say and draw of made-up records."""

import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablations.analysis.memory import memory_values
from ablations.cells import arm_cell, build_cell
from ablations.config import ARMS
from ablations.errors import InputError
from ablations.measure import Memory
from ablations.records import load_records
from ablations.report.contents import FIGURES, list_figures
from ablations.report.figures import _spread, arm_colour, arm_line, legend_below, share_legend
from ablations.report.memory import TABLES, plot_memory, render_budget
from ablations.report.tables import render_markdown

PREDICTED = arm_cell(variant="nano", arm="v1", base="v2", conditions=Memory(method="predicted", resolution=64))
FIXED = {"parameters": 600, "gradients": 200, "optimizer": 150, "input": 50}


def render(name, results):
    """Returns a table of the records as Markdown, spaces that only align left out."""
    (table,) = (table for table in TABLES if table.name == name)
    return re.sub(" +", " ", render_markdown(table, table.values(load_records(results))))


def headings(text):
    return [line.rpartition(", ")[2] for line in text.splitlines() if line.startswith("## ")]


@pytest.fixture
def ax() -> Axes:
    return Figure().add_subplot()


def write_prediction(results, write_cell, cell, growing_bytes):
    """Writes a prediction of 1,000 fixed bytes and so many that grow."""
    peak = sum(FIXED.values()) + growing_bytes
    kinds = FIXED | {"temporaries": growing_bytes}
    result = {"peak_memory_bytes": peak, "memory_method": "predicted_storages", "bytes_at_peak": kinds}
    write_cell(results, cell, result | {"parameter_bytes": 600, "input_bytes": 50, "peak_operator": "aten.gelu"})


def measure(results, write_cell, cell, environment=None, **result):
    conditions = replace(cell.conditions, method="measured")
    tracked = {"memory_method": "tracked_storages", "parameter_bytes": 600, "input_bytes": 50}
    write_cell(results, replace(cell, conditions=conditions), tracked | result, **(environment or {}))


def test_models_are_drawn_without_arms_too(tmp_path, write_cell):
    for side in (64, 128):
        sized = build_cell("timm:resnet50", replace(PREDICTED.conditions, resolution=side))
        write_prediction(tmp_path, write_cell, sized, 3 * side**2)
    (sheet,) = list_figures(load_records(tmp_path), kinds=["memory_models"])
    assert sheet.name == "memory_models_cpu_predicted"
    (ax,) = sheet.draw().axes
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["ResNet50 (exponent 1.00)"]


def test_what_did_not_fit_says_so_and_has_no_change(tmp_path, write_cell):
    measure(tmp_path, write_cell, PREDICTED, peak_memory_bytes=2**20)
    told = {"peak_memory_bytes": None, "out_of_memory": "asked for 2 MiB, free 1 MiB"}
    measure(tmp_path, write_cell, PREDICTED.of(arm="v1+ope"), **told)
    rows = render("memory", tmp_path).splitlines()
    assert [row.split("|")[2].strip() for row in rows if row.startswith("| v1")] == ["1.000", "out of memory"]


@pytest.fixture
def memory(quick_records):
    values = memory_values(quick_records).query("mode == 'inference'").copy()
    plain = (values["attention"] == "fused") | values["arm"].str.contains("lsra")
    values["peak_memory_bytes"] = values["pixels"] * np.where(plain, 400, values["pixels"] / 2) * 1.0
    values.loc[values["arm"].str.contains("cffn"), "peak_memory_bytes"] *= 1.5
    values.loc[values["arm"].str.contains("ope"), "peak_memory_bytes"] *= 1.02  # alike
    return values


def test_arms_that_are_alike_share_a_line_and_are_all_named(ax, memory):
    assert plot_memory(ax, memory) is ax
    assert [(line.get_color(), line.get_linestyle()) for line in ax.lines] == [
        (arm_colour("v1"), "-"),
        (arm_colour("v1+cffn"), "-"),
        (arm_colour("v1"), "--"),
        (arm_colour("v1+cffn"), "--"),
    ]
    labels = [" ".join(text.get_text().split()) for text in ax.texts if text.get_text()]
    assert labels == [
        "fused: v1, v1+ope, v1+lsra, v1+ope+lsra explicit: v1+lsra, v1+ope+lsra",
        "fused: v1+cffn, v1+ope+cffn, v1+cffn+lsra, v1+ope+cffn+lsra explicit: v1+cffn+lsra, v1+ope+cffn+lsra",
        "explicit: v1, v1+ope",
        "explicit: v1+cffn, v1+ope+cffn",
    ]
    assert list(ax.lines[0].get_xdata()) == [32, 128]
    assert ax.lines[0].get_ydata()[0] == pytest.approx(32**2 * 400 / 2**10)  # KiB


def test_one_line_can_stand_for_all_arms(ax, memory):
    fused = memory[memory["attention"] == "fused"].assign(peak_memory_bytes=memory["pixels"] * 400)
    plot_memory(ax, fused)
    assert [text.get_text() for text in ax.texts if text.get_text()] == ["fused: all arms"]


def test_kernels_of_the_same_arms_are_named_together(ax, memory):
    plot_memory(ax, memory[memory["arm"].isin(["v1+lsra", "v1+ope+lsra"])])
    assert [" ".join(text.get_text().split()) for text in ax.texts if text.get_text()] == [
        "fused and explicit: all arms"
    ]


def test_panels_have_one_scale_a_mode_and_no_line_of_one_point(quick_records):
    (sheet,) = (sheet for sheet in FIGURES["memory"](quick_records) if sheet.name == "memory_pico_v2_cpu_measured")
    shown = [panel.conditions["shown"] for panel in sheet.panels]
    assert shown == ["without lsra", "with lsra"] * 2
    axes = sheet.draw().axes
    assert [ax.get_ylim() for ax in axes[::2]] == [ax.get_ylim() for ax in axes[1::2]]
    of_v1 = (quick_records["measurement"] == "memory") & (quick_records["arm"] == "v1")
    alone = of_v1 & (quick_records["resolution"] == "32")
    (sheet,) = (one for one in FIGURES["memory"](quick_records[~alone]) if one.name == sheet.name)
    assert all(len(line.get_xdata()) > 1 for ax in sheet.draw().axes for line in ax.lines)


def test_few_arms_have_no_figure(quick_records):
    assert FIGURES["memory"](quick_records[quick_records["arm"].isin(["v1", "v1+lsra"])]) == []


def test_labels_keep_apart_inside_the_panel():
    places = _spread([0.99, 0.98, 0.2], [0.1, 0.1, 0.1])
    assert places == pytest.approx([0.95, 0.85, 0.2])
    assert _spread([0.5, 0.52], [0.1, 0.2]) == pytest.approx([0.5, 0.65])


def test_arms_further_apart_have_lines_of_their_own(ax, memory):
    memory.loc[(memory["arm"] == "v1+ope") & (memory["resolution"] == "128"), "peak_memory_bytes"] *= 1.1
    plot_memory(ax, memory)
    assert len(ax.lines) == 6


def test_a_shared_legend_has_the_lines_of_the_panels():
    one = Figure(figsize=(7, 4), layout="constrained")
    for place in (1, 2):
        ax = one.add_subplot(1, 2, place)
        for arm in ("v1", "v1+ope"):
            ax.plot([1, 2], **arm_line(arm, label=arm))
        legend_below(ax)
    before = [text.get_text() for text in one.axes[0].get_legend().get_texts()]
    markers = [line.get_marker() for line in one.axes[0].get_legend().get_lines()]
    share_legend(one)
    assert [ax.get_legend() for ax in one.axes] == [None, None]
    assert [text.get_text() for text in one.legends[0].get_texts()] == before
    assert [line.get_marker() for line in one.legends[0].get_lines()] == markers
    assert one.get_figheight() < 4


def test_a_plot_refuses_mixed_modes(ax, quick_records):
    with pytest.raises(InputError, match=r"^mode is mixed, "):
        plot_memory(ax, memory_values(quick_records))


def test_the_note_says_how_far_apart_both_attentions_are(tmp_path, write_cell):
    for arm, side, peak in (("v1", 64, 120), ("v1+lsra", 64, 100), ("v1", 128, 90), ("v1+lsra", 128, 120)):
        measure(tmp_path, write_cell, build_cell(f"pvt:nano/{arm}/v2", Memory(resolution=side)), peak_memory_bytes=peak)
    assert "v1 against v1+lsra: +20.0 % at 64 px, -25.0 % at 128 px." in render("memory", tmp_path)


def test_the_note_of_validation_counts_what_is_equal_and_what_misses(tmp_path, write_cell):
    for arm, resident in zip(ARMS[:3], (2001, 2200, 2300), strict=True):
        cell = PREDICTED.of(arm=arm)
        write_prediction(tmp_path, write_cell, cell, 1000)
        measure(tmp_path, write_cell, cell, peak_memory_bytes=2000, resident_peak_bytes=resident)
    text = render("memory_validation", tmp_path)
    assert "| tracked, inference, float32 | 1 | 3 | 3 |" in text
    assert "Tracked: predictions equal all 3 cells to the byte, at batch 1." in text
    missed = "2 of 3 cells of inference in float32 miss by over 0.5 % (the furthest by 13.0 %)"
    assert f"Resident, at batch 1: {missed}." in text
    assert render("memory_validation_cells", tmp_path).count("| beyond |") == 2


def test_two_machines_make_two_sections(tmp_path, write_cell):
    for threads, side in ((2, 64), (1, 128)):
        for name in ("pvt:nano/v1/v2", "timm:resnet50"):
            cell = build_cell(name, replace(PREDICTED.conditions, resolution=side))
            write_prediction(tmp_path, write_cell, cell, 1000)
            measure(tmp_path, write_cell, cell, {"threads": threads}, peak_memory_bytes=side)
    assert headings(render("memory_validation", tmp_path)) == ["2 threads", "1 thread"]
    measured = [line for line in headings(render("memory_models", tmp_path)) if "thread" in line]
    assert measured == ["2 threads", "1 thread"]


def test_parts_name_the_operator_of_the_peak(tmp_path, write_cell):
    result = {
        "peak_memory_bytes": 1007,
        "memory_method": "predicted_storages",
        "bytes_at_peak": FIXED | {"activations": 7, "temporaries": 9},
    }
    result |= {"activations_by_stage": {"stages.0": 7}, "peak_operator": "aten.gelu", "peak_phase": "forward"}
    write_cell(tmp_path, PREDICTED, result | {"parameter_bytes": 600, "input_bytes": 50})
    assert "gelu, forward" in render("memory_parts", tmp_path)


def test_a_library_s_memory_has_our_difference_in_brackets(tmp_path, write_cell):
    for name, channels_last, peak, resident in (
        ("pvt:b0/v1+ope+cffn/published", True, 90, 99),
        ("timm:pvt_v2_b0", False, 100, 110),
        ("timm:pvt_v2_b0", True, 90, 99),
    ):
        cell = build_cell(name, Memory(channels_last=channels_last))
        sizes = {"peak_memory_bytes": peak * 2**20, "resident_peak_bytes": resident * 2**20}
        write_cell(tmp_path, cell, {"memory_method": "tracked_storages", **sizes})
    text = render("memory_libraries", tmp_path)
    assert "100.0 (-10.00 %) | 90.00 (equal)" in text
    assert "110.0 (-10.00 %) | 99.00 (equal)" in text


def test_a_budget_is_answered_by_group_and_model():
    of_group = {"attention": "fused", "mode": "training", "budget_bytes": 2**30, "at_limit": False, "refused": None}
    of_arm = {"model": "pvt:b0/v1/v2", "variant": "b0", "base": "v2", "arm": "v1", "peak_memory_bytes": 2**29}
    of_model = {"model": "timm:resnet18", "variant": None, "base": None, "arm": None, "peak_memory_bytes": None}
    text = render_budget(
        [
            of_group | of_arm | {"asked": "resolution", "resolution": "512", "batch_size": 1},
            of_group | of_arm | {"asked": "batch_size", "resolution": "224", "batch_size": 9, "at_limit": True},
            of_group | of_model | {"asked": "resolution", "resolution": None, "batch_size": 1, "refused": "too small"},
            of_group | of_model | {"asked": "batch_size", "resolution": "224", "batch_size": 0},
        ],
        width=80,
    )
    rows = [re.split(r" {2,}", line) for line in text.splitlines()]
    assert ["Model", "Largest image, px", "Largest batch at 224 px"] in rows
    assert ["v1", "512 (512.0 MiB)", "at least 9 (512.0 MiB)"] in rows
    assert ["timm:resnet18", "-", "none"] in rows
    assert "timm:resnet18 refuses a size on the way: too small" in text
