"""Throughput against resolution, on records that are made up."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from ablations.design import Cell, Speed
from ablations.errors import InputError
from ablations.records import load_records
from ablations.report.build import list_figures
from ablations.report.library_throughput import APART, OURS, plot_throughput, throughput_values

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, write_cell: Callable[..., Path]) -> Write:
    """`write(resolution, seconds, libraries, ...)` writes a record; a library's value is its time over ours."""

    def write_timed(
        resolution: int | tuple[int, int],
        seconds: float,
        libraries: dict[str, float],
        variant: str = "b0",
        arm: str = "v1+ope+cffn",
        **conditions: object,
    ) -> None:
        references = {
            name: {
                "latency_s": ratio * seconds,
                "noisy": False,
                "relative_speed": ratio,
                "relative_speed_low": 0.5 * ratio,
                "relative_speed_high": 2 * ratio,
            }
            for name, ratio in libraries.items()
        }
        reference = "+".join(dict.fromkeys(name.partition(",")[0] for name in libraries))
        timed = Speed(resolution=resolution, **{"batch_size": 4, "reference": reference} | conditions)
        result = {
            "latency_s": seconds,
            "throughput_img_per_s": timed.batch_size / seconds,
            "iqr_over_median": 0.02,
            "noisy": False,
            "macs_per_s": 30.0,
            "peak_macs_per_s": 40.0,
            "samples": [seconds] * 4,
            "references": references,
        }
        write_cell(tmp_path, Cell(variant=variant, arm=arm, base="published", conditions=timed), result)

    return write_timed


def test_pixels_a_second_are_those_of_the_whole_batch(write: Write, tmp_path: Path) -> None:
    write(64, 0.5, {"timm": 2.0})
    (row,) = throughput_values(load_records(tmp_path)).to_dict("records")
    assert row["pixels_per_s"] == 4 * 64**2 / 0.5
    assert throughput_values(load_records(tmp_path / "nothing")).empty


def test_a_size_counts_once_with_its_largest_batch_and_most_libraries(write: Write, tmp_path: Path) -> None:
    write(64, 0.1, {"timm": 2.0}, batch_size=1)
    write(64, 0.2, {"timm": 2.0, "transformers": 3.0}, batch_size=16)
    write(64, 0.3, {"timm": 2.0}, batch_size=16)
    write(64, 0.4, {"timm": 2.0}, batch_size=16, mode="training")
    values = throughput_values(load_records(tmp_path))
    assert list(values["mode"]) == ["inference", "training"]
    assert list(values["latency_s"]) == [0.2, 0.4]


def test_a_line_each_for_us_and_the_libraries(write: Write, tmp_path: Path) -> None:
    write(64, 0.5, {"timm": 2.0, "timm, channels-last": 1.25, "transformers": 4.0}, batch_size=16)
    write(128, 0.5, {"timm": 1.0, "timm, channels-last": 0.5}, batch_size=4)
    write((64, 256), 0.5, {"timm": 1.0}, batch_size=4)
    ax = Figure().add_subplot()
    assert plot_throughput(ax, throughput_values(load_records(tmp_path))) is ax
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_ylabel() == "Throughput, million px/s"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["64\nbatch 16", "128\nbatch 4"]
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["ours", "timm", "timm, channels-last", "transformers"]
    ours, timm, channels_last, transformers = ax.lines
    million = 16 * 64**2 / 0.5 / 1e6  # at both sizes
    assert list(ours.get_xdata()) == pytest.approx([64, 128])
    assert list(ours.get_ydata()) == pytest.approx([million, million])
    assert ours.get_color() == OURS["color"] not in {line.get_color() for line in ax.lines[1:]}
    assert list(timm.get_ydata()) == pytest.approx([million / 2, million])
    assert list(channels_last.get_ydata()) == pytest.approx([million / 1.25, 2 * million])
    assert (timm.get_fillstyle(), channels_last.get_fillstyle()) == ("full", "none")
    # The three libraries stand around the size, the second on it.
    assert list(timm.get_xdata()) == pytest.approx([64 / APART, 128 / APART])
    assert list(channels_last.get_xdata()) == pytest.approx([64, 128])
    assert list(transformers.get_xdata()) == pytest.approx([64 * APART, 128 * APART])
    whiskers = ax.collections[0].get_segments()
    assert [segment[:, 1].tolist() for segment in whiskers] == [
        pytest.approx([million / 4, million]),
        pytest.approx([million / 2, 2 * million]),
    ]
    assert [bool(pd.isna(y)) for y in transformers.get_ydata()] == [False, True]


def test_a_model_has_its_modes_side_by_side(write: Write, tmp_path: Path, find_illegible: Callable) -> None:
    for arm in ("v1+ope+cffn", "v1+ope+cffn+lsra"):
        for mode in ("inference", "training"):
            for resolution in (64, 224):
                write(resolution, 0.5, {"timm": 2.0}, arm=arm, mode=mode)
    write(32, 0.5, {"timm": 2.0}, variant="nano")  # one size makes no line
    (sheet,) = (sheet for sheet in list_figures(load_records(tmp_path)) if sheet.name.startswith("throughput"))
    assert sheet.name == "throughput_cpu_float32"
    assert [(panel.conditions["arm"], panel.conditions["mode"]) for panel in sheet.panels] == [
        ("v1+ope+cffn", "inference"),
        ("v1+ope+cffn", "training"),
        ("v1+ope+cffn+lsra", "inference"),
        ("v1+ope+cffn+lsra", "training"),
    ]
    assert "It holds for this machine" in sheet.caption
    assert len(sheet.draw().legends) == 1
    assert find_illegible(sheet) == []


def test_mixed_models_are_refused(write: Write, tmp_path: Path) -> None:
    write(64, 0.5, {"timm": 2.0})
    write(64, 0.5, {"timm": 2.0}, arm="v1+ope+cffn+lsra")
    with pytest.raises(InputError, match=r"^arm is mixed, "):
        plot_throughput(Figure().add_subplot(), throughput_values(load_records(tmp_path)))
