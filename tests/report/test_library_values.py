"""Ratios to libraries' models, on records that are made up."""

from dataclasses import replace

import pandas as pd
import pytest

from ablations.design import Cell, Speed
from ablations.records import load_records
from ablations.report.build import list_figures
from ablations.report.library_values import geometric_mean, library_values
from ablations.report.speed_tables import SPEED_TABLES
from ablations.report.tables import render_markdown
from ablations.report.values import speed_values

CONDITIONS = Speed(reference="timm+transformers", resolution=64, repeats=6)
CELL = Cell(variant="b0", arm="v1+ope+cffn", base="published", conditions=CONDITIONS)


def timed(seconds, noisy=False):
    ratio = seconds / 0.1
    ends = {"relative_speed": ratio, "relative_speed_low": 0.9 * ratio, "relative_speed_high": 1.1 * ratio}
    return {"latency_s": seconds, "noisy": noisy, "samples": [seconds] * 6, **ends}


def write(results, write_cell, cell, **seconds):
    """Writes a record of a step of 0.1 s beside those of libraries."""
    references = {
        name.replace("_", ", ").replace("channels, last", "channels-last"): timed(each)
        for name, each in seconds.items()
    }
    result = {
        "latency_s": 0.1,
        "throughput_img_per_s": 80.0,
        "iqr_over_median": 0.02,
        "noisy": False,
        "macs_per_s": 30.0,
        "peak_macs_per_s": 40.0,
        "samples": [0.1] * 6,
        "references": references,
    }
    write_cell(results, cell, result)


def table_of(results):
    (table,) = (table for table in SPEED_TABLES if table.name == "speed_libraries")
    return render_markdown(table, table.values(load_records(results)))


def test_ratios_to_each_library_and_to_the_fastest(tmp_path, write_cell):
    write(tmp_path, write_cell, CELL, timm=0.2, timm_channels_last=0.11, transformers=0.15)
    (row,) = library_values(load_records(tmp_path)).to_dict("records")
    assert row["case"] == "b0 v1+ope+cffn, 64 px, batch 8"
    assert row["timm_ratio"] == pytest.approx(2)
    assert (row["timm_ratio_low"], row["timm_ratio_high"]) == (pytest.approx(1.8), pytest.approx(2.2))
    assert (row["ratio"], row["strictest_ratio"]) == (pytest.approx(1.5), pytest.approx(1.1))
    assert row["share_of_peak"] == 0.75


def test_the_faster_library_is_that_of_the_lower_ratio_not_of_the_lower_latency(tmp_path, write_cell):
    drifted = {"timm": timed(0.2) | {"latency_s": 0.3}, "transformers": timed(0.25) | {"latency_s": 0.26}}
    result = {"latency_s": 0.1, "macs_per_s": 3.0, "peak_macs_per_s": 4.0, "noisy": False, "references": drifted}
    write_cell(tmp_path, CELL, result)
    (row,) = library_values(load_records(tmp_path)).to_dict("records")
    assert (row["ratio"], row["strictest_ratio"]) == (pytest.approx(2), pytest.approx(2))


def test_a_case_that_was_timed_several_times_is_one_row(tmp_path, write_cell):
    alone = replace(CELL, conditions=replace(CONDITIONS, reference="timm"))
    write(tmp_path, write_cell, alone, timm=0.9)
    write(tmp_path, write_cell, CELL, timm=0.2, transformers=0.3)
    more = replace(CONDITIONS, reference="timm", repeats=30)
    write(tmp_path, write_cell, replace(CELL, conditions=more), timm=0.8)
    elsewhere = replace(alone, conditions=replace(alone.conditions, resolution=128))
    write(tmp_path, write_cell, elsewhere, timm=0.4)
    values = library_values(load_records(tmp_path))
    assert list(values["ratio"]) == pytest.approx([2, 4])
    write(tmp_path, write_cell, replace(CELL, conditions=replace(CONDITIONS, repeats=9)), timm=0.3, transformers=0.7)
    values = library_values(load_records(tmp_path))
    assert (list(values["ratio"]), list(values["repeats"])) == (pytest.approx([3, 4]), [9, 6])
    assert "Geometric mean of 2 rows" in table_of(tmp_path)


def test_the_table_has_a_row_a_model_and_the_mean_of_all(tmp_path, write_cell):
    write(tmp_path, write_cell, CELL, timm=0.2)
    large = replace(CELL, conditions=replace(CONDITIONS, resolution=128, batch_size=2))
    write(tmp_path, write_cell, large, timm=0.05)
    text = table_of(tmp_path)
    rows = [line for line in text.splitlines() if line.startswith("| b0")]
    assert "64 px, batch 8" in rows[0]
    assert "2.00 (1.80 to 2.20)" in rows[0]
    assert "128 px, batch 2" in rows[1]
    # 2 and 1/2 cancel out.
    assert (
        "Geometric mean of 2 rows: 1.00 times as fast as the faster library in the default layout (least 0.50)" in text
    )


def test_one_row_is_no_mean(tmp_path, write_cell):
    write(tmp_path, write_cell, CELL, timm=0.2)
    assert "without gradients. One row: 2.00" in table_of(tmp_path)


def test_what_is_timed_beside_libraries_is_in_no_table_of_arms(tmp_path, write_cell):
    write(tmp_path, write_cell, CELL, timm=0.2)
    assert speed_values(load_records(tmp_path)).empty
    assert library_values(load_records(tmp_path / "nothing")).empty


def test_other_records_of_a_folder_that_has_some_beside_libraries(tmp_path, write_cell):
    write(tmp_path, write_cell, CELL, timm=0.2)
    beside_v1 = replace(CELL, arm="v1", conditions=replace(CONDITIONS, reference="v1"))
    write_cell(tmp_path, beside_v1, {"latency_s": 0.1, "samples": [0.1] * 6})
    records = load_records(tmp_path)
    others = records[records["reference"] == "v1"]
    assert len(others) == 1
    assert others["references"].isna().all()
    assert library_values(others).empty


def test_the_geometric_mean():
    assert geometric_mean(pd.Series([1.0, 4.0])) == pytest.approx(2)


def test_the_figure_has_a_line_a_case_and_a_mark_a_library(tmp_path, write_cell):
    for resolution in (32, 64, 128, 256):
        cell = replace(CELL, conditions=replace(CONDITIONS, resolution=resolution))
        write(tmp_path, write_cell, cell, timm=0.2, timm_channels_last=0.11)
    sheet, _throughput = list_figures(load_records(tmp_path))
    assert sheet.name == "speed_libraries_cpu_float32"
    (ax,) = sheet.draw().axes
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        f"b0 v1+ope+cffn\n{resolution} px, batch 8, n = 6" for resolution in (32, 64, 128, 256)
    ]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["timm", "timm, channels-last"]
