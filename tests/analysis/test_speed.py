"""Speed: arms beside v1, ours beside libraries, and operators' times, on made-up records; how means cover."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ablations.analysis.speed import (
    BETWEEN,
    FASTER_IN_DEFAULT,
    FASTEST,
    OURS,
    column_of,
    geometric_mean,
    holds_one,
    library_means,
    library_values,
    operator_time_values,
    speed_values,
    throughput_values,
)
from ablations.cells import Cell, arm_cell
from ablations.measure import Speed
from ablations.measure.kinds import OPERATOR_KINDS
from ablations.records import load_records

Write = Callable[..., Path]

CONDITIONS = Speed(reference="timm+transformers", resolution=64, batch_size=4, repeats=6)
CELL = arm_cell(variant="b0", arm="v1+ope+cffn", base="published", conditions=CONDITIONS)
LIBRARIES = {"timm": 1.5, "timm, channels-last": 1.2, "transformers": 2.0}


def at(cell: Cell = CELL, **conditions: Any) -> Cell:
    return replace(cell, conditions=replace(cell.conditions, **conditions))


@pytest.fixture
def write_arm(tmp_path: Path, write_cell: Write) -> Callable[..., Path]:
    """`write_arm(arm, seconds, v1_seconds, **changes)` writes the record of an arm of pico, timed beside v1."""

    def write_timed(arm: str, seconds: float, v1_seconds: float, **changes: Any) -> Path:
        cell = arm_cell(variant="pico", arm=arm, base="v2", conditions=Speed(repeats=6))
        ratio = v1_seconds / seconds
        result = {
            "latency_s": seconds,
            "iqr_over_median": 0.05,
            "noisy": False,
            "throughput_img_per_s": 8 / seconds,
            "samples": [seconds] * 6,
            "reference_samples": [v1_seconds] * 5 + [9 * v1_seconds],
            "relative_speed": ratio,
            "relative_speed_low": 0.9 * ratio,
            "relative_speed_high": 1.1 * ratio,
            "macs_per_s": 30e9,
            "peak_macs_per_s": 40e9,
        }
        return write_cell(tmp_path, cell, result | changes)

    return write_timed


def test_the_interquartile_range_is_in_seconds(tmp_path: Path, write_arm: Write) -> None:
    write_arm("v1", 0.2, 0.2)
    (row,) = speed_values(load_records(tmp_path)).to_dict("records")
    assert row["latency_iqr_s"] == pytest.approx(0.01)
    assert row["throughput_img_per_s"] == 40
    assert speed_values(load_records(tmp_path / "nothing")).empty


def test_arms_are_normalised_by_v1_as_it_was_beside_each(tmp_path: Path, write_arm: Write) -> None:
    write_arm("v1", 0.2, 0.2)
    write_arm("v1+ope", 0.2, 0.25)  # the machine was slower: v1 took a quarter longer, and the arm as long as v1 before
    values = speed_values(load_records(tmp_path)).set_index("arm")
    assert list(values["latency_s"]) == [0.2, 0.2]
    assert list(values["reference_latency_s"]) == [0.2, 0.25]
    assert list(values["reference_drift"]) == pytest.approx([0.25, 0.25])
    assert list(values["normalised_latency_s"]) == pytest.approx([0.2, 0.16])
    assert list(values["normalised_throughput_img_per_s"]) == pytest.approx([40, 50])


def test_a_share_of_the_peak_is_a_range_over_the_machine_s_peaks(tmp_path: Path, write_arm: Write) -> None:
    write_arm("v1", 0.2, 0.2)
    write_arm("v1+ope", 0.2, 0.2, peak_macs_per_s=60e9)
    values = speed_values(load_records(tmp_path))
    assert list(values["share_of_peak"]) == [0.75, 0.5]
    assert list(values["share_of_peak_low"]) == [0.5, 0.5]
    assert list(values["share_of_peak_high"]) == [0.75, 0.75]


def test_threads_are_never_mixed(tmp_path: Path, write_cell: Write) -> None:
    cell = arm_cell(variant="pico", arm="v1", base="v2", conditions=Speed())
    write_cell(tmp_path, cell)
    write_cell(tmp_path, cell.of(arm="v1+ope"), threads=1)
    values = speed_values(load_records(tmp_path))
    assert list(values["threads"]) == [2, 1]
    assert list(values["reference_drift"]) == [0, 0]


@pytest.mark.parametrize(
    ("low", "high", "held"),
    [(0.9, 1.1, True), (1.0, 1.1, True), (0.9, 1.0, True), (1.01, 1.1, False), (0.8, 0.9, False)],
)
def test_a_ratio_is_unresolved_where_its_interval_holds_1(low: float, high: float, held: bool) -> None:
    assert holds_one(low, high) is held


def test_a_geometric_mean_worked_by_hand() -> None:
    # Medians 1 and 4: the mean is 2. Steps that do not differ leave no interval.
    assert geometric_mean([[1.0, 1.0, 1.0], [4.0, 4.0]]) == pytest.approx((2, 2, 2))
    # A single row of one slow and one fast step: half of all draws have both, and the ends are each of them alone.
    assert geometric_mean([[1.0, 4.0]]) == pytest.approx((2, 1, 4))


def test_the_interval_of_a_mean_is_the_same_every_time() -> None:
    steps = np.random.default_rng(1).lognormal(0, 0.1, (5, 12)).tolist()
    assert geometric_mean(steps) == geometric_mean(steps)


@pytest.mark.parametrize("n_steps", [9, pytest.param(20, marks=pytest.mark.slow)])
def test_the_interval_of_a_mean_covers_and_is_no_wider_than_it_must(n_steps: int) -> None:
    """12 rows of 9 or 20 steps, as the committed records have; one step in twenty is slower by half, one faster."""
    draws, n_studies = np.random.default_rng(7), 150
    truths = np.linspace(0.95, 1.9, 12)
    truth = float(np.exp(np.log(truths).mean()))
    covered, errors, halves = [], [], []
    for _ in range(n_studies):
        noise = draws.lognormal(0, 0.05, (12, n_steps)) * np.where(draws.random((12, n_steps)) < 0.05, 1.5, 1)
        noise *= np.where(draws.random((12, n_steps)) < 0.05, 1 / 1.5, 1)
        mean, low, high = geometric_mean((truths[:, None] * noise).tolist())
        covered.append(low <= truth <= high)
        errors.append(np.log(mean / truth))
        halves.append(np.log(high / low) / 2)
    # 0.99: the bootstrap of a median of few steps is wide. So is it in deviations of the mean over studies, of which
    # 1.96 would cover 95 %, and 2.58 cover 99 %.
    assert np.mean(covered) >= 0.95
    assert 1.96 <= np.mean(halves) / np.std(errors) <= 3.5


def test_ratios_to_each_library_and_to_the_fastest(tmp_path: Path, write_beside_libraries: Write) -> None:
    write_beside_libraries(CELL, LIBRARIES)
    (row,) = library_values(load_records(tmp_path)).to_dict("records")
    assert row["case"] == "b0 v1+ope+cffn, 64 px, batch 4"
    assert row["timm_ratio"] == pytest.approx(1.5)
    assert (row["timm_ratio_low"], row["timm_ratio_high"]) == (pytest.approx(1.35), pytest.approx(1.65))
    assert (row["ratio"], row["strictest_ratio"]) == (pytest.approx(1.5), pytest.approx(1.2))
    assert row["share_of_peak"] == 0.75


def test_the_faster_library_is_that_of_the_lower_ratio_not_of_the_lower_latency(
    tmp_path: Path, write_beside_libraries: Write
) -> None:
    path = write_beside_libraries(CELL, {"timm": 2.0, "transformers": 2.5})
    text = path.read_text()
    assert load_records(tmp_path)["references"][0]["timm"]["latency_s"] == pytest.approx(0.2)
    drifted = load_records(tmp_path)
    drifted["references"][0]["timm"]["latency_s"] = 0.3
    (row,) = library_values(drifted).to_dict("records")
    assert (row["ratio"], row["strictest_ratio"]) == (pytest.approx(2), pytest.approx(2))
    assert path.read_text() == text


def test_a_case_that_was_timed_several_times_is_one_row(tmp_path: Path, write_beside_libraries: Write) -> None:
    write_beside_libraries(at(reference="timm"), {"timm": 9.0})
    write_beside_libraries(CELL, {"timm": 2.0, "transformers": 3.0})
    write_beside_libraries(at(reference="timm", repeats=30), {"timm": 8.0})
    write_beside_libraries(at(reference="timm", resolution=128), {"timm": 4.0})
    assert list(library_values(load_records(tmp_path))["ratio"]) == pytest.approx([2, 4])
    write_beside_libraries(at(repeats=9), {"timm": 3.0, "transformers": 7.0})
    records = load_records(tmp_path)
    values, means = library_values(records), library_means(records)
    assert (list(values["ratio"]), list(values["repeats"])) == (pytest.approx([3, 4]), [9, 6])
    assert means.set_index("beside")["n_rows"].to_dict() == {
        "timm": 2,
        "transformers": 1,
        FASTER_IN_DEFAULT: 2,
        FASTEST: 2,
    }


def test_what_is_timed_beside_libraries_is_in_no_table_of_arms(tmp_path: Path, write_beside_libraries: Write) -> None:
    write_beside_libraries(CELL, LIBRARIES)
    assert speed_values(load_records(tmp_path)).empty


def test_arms_timed_beside_v1_are_in_no_table_of_libraries(
    tmp_path: Path, write_beside_libraries: Write, write_arm: Write
) -> None:
    every = (library_values, library_means, throughput_values, operator_time_values)
    assert all(values(load_records(tmp_path)).empty for values in every)
    write_arm("v1", 0.2, 0.2)
    assert all(values(load_records(tmp_path)).empty for values in every)
    write_beside_libraries(CELL, LIBRARIES)
    records = load_records(tmp_path)
    assert list(operator_time_values(records)["implementation"]) == ["ours", "timm", "transformers"]
    assert all(values(records[records["reference"] == "v1"]).empty for values in every)


def test_means_over_rows_by_library_and_batch(tmp_path: Path, write_beside_libraries: Write) -> None:
    write_beside_libraries(at(batch_size=4), {"timm": 0.5, "timm, channels-last": 0.8})
    write_beside_libraries(at(resolution=128, batch_size=1), {"timm": 2.0, "timm, channels-last": 1.0})
    write_beside_libraries(at(resolution=512, batch_size=1), {"timm": 8.0, "transformers": 2.0})
    means = library_means(load_records(tmp_path)).set_index("beside")
    timm = means.loc["timm"]
    assert (timm["n_rows"], timm["ratio"]) == (3, pytest.approx(2))
    assert (timm["n_rows_batch_1"], timm["ratio_batch_1"]) == (2, pytest.approx(4))
    assert (timm["n_rows_larger_batches"], timm["ratio_larger_batches"]) == (1, pytest.approx(0.5))
    assert (timm["least_ratio"], timm["n_above"], timm["n_below"]) == (0.5, 2, 1)
    assert means.loc[FASTER_IN_DEFAULT, "ratio"] == pytest.approx((0.5 * 2 * 2) ** (1 / 3))
    assert means.loc[FASTEST, "ratio"] == pytest.approx((0.5 * 1 * 2) ** (1 / 3))
    last = means.loc["timm, channels-last"]
    assert (last["n_rows"], last["n_above"], last["n_below"]) == (2, 0, 1)
    assert pd.isna(means.loc["transformers", "ratio_larger_batches"])


def test_pixels_a_second_are_those_of_the_whole_batch(tmp_path: Path, write_beside_libraries: Write) -> None:
    write_beside_libraries(CELL, LIBRARIES, seconds=0.5)
    (row,) = throughput_values(load_records(tmp_path)).to_dict("records")
    assert row["pixels_per_s"] == 4 * 64**2 / 0.5


def test_a_size_counts_once_with_its_largest_batch_and_most_libraries(
    tmp_path: Path, write_beside_libraries: Write
) -> None:
    write_beside_libraries(at(batch_size=1), {"timm": 2.0}, seconds=0.1)
    write_beside_libraries(at(batch_size=16), {"timm": 2.0, "transformers": 3.0}, seconds=0.2)
    write_beside_libraries(at(batch_size=16, reference="timm"), {"timm": 2.0}, seconds=0.3)
    write_beside_libraries(at(batch_size=16, mode="training"), {"timm": 2.0}, seconds=0.4)
    values = throughput_values(load_records(tmp_path))
    assert list(values["mode"]) == ["inference", "training"]
    assert list(values["latency_s"]) == [0.2, 0.4]


def test_a_row_for_us_and_for_each_library_in_the_default_layout(tmp_path: Path, write_beside_libraries: Write) -> None:
    write_beside_libraries(CELL, LIBRARIES)
    values = operator_time_values(load_records(tmp_path))
    assert list(values["implementation"]) == ["ours", "timm", "transformers"]
    assert list(values["relative_time"]) == [1.0, 1.5, 2.0]
    assert list(values["latency_s"]) == pytest.approx([0.1, 0.15, 0.2])
    assert list(values["matrix_products_s"]) == pytest.approx([0.04, 0.075, 0.1])
    assert list(values["operators_s"]) == pytest.approx([0.06, 0.15, 0.2])
    assert list(values["between_operators_s"]) == pytest.approx([0.04, 0.0, 0.0])
    assert list(values["depth_wise_convolutions_share"]) == pytest.approx([0.2, 0.0, 0.0])
    assert list(values["between_operators_share"]) == pytest.approx([0.4, 0.0, 0.0])
    shares = values[[column_of(part, "share") for part in (*OPERATOR_KINDS, BETWEEN)]]
    assert list(shares.sum(axis="columns")) == pytest.approx([1.0, 1.0, 1.0])


def test_our_roofline_bound_and_the_share_of_the_peak_there(tmp_path: Path, write_beside_libraries: Write) -> None:
    write_beside_libraries(CELL, LIBRARIES)
    values = operator_time_values(load_records(tmp_path))
    (row,) = values[values["implementation"] == OURS].to_dict("records")
    assert row["case"] == "b0 v1+ope+cffn, 64 px, batch 4"
    assert row["bound_s"] == pytest.approx(0.08)
    assert (row["matrix_products_bound_s"], row["copies_bound_s"]) == (pytest.approx(0.035), 0.0)
    assert row["over_bound"] == pytest.approx(1.25)
    assert (row["share_of_peak"], row["share_of_peak_at_bound"]) == (pytest.approx(0.75), pytest.approx(0.9375))


def test_compiled_models_have_no_operators(tmp_path: Path, write_beside_libraries: Write) -> None:
    none = dict.fromkeys(("operators", "step_overhead_s", "step_overhead_samples", "roofline", "uncounted"))
    write_beside_libraries(at(compiled=True), {"timm, channels-last": 1.0, "timm": 1.0}, **none)
    assert operator_time_values(load_records(tmp_path)).empty
    write_beside_libraries(at(resolution=128), LIBRARIES)
    assert set(operator_time_values(load_records(tmp_path))["resolution"]) == {"128"}
