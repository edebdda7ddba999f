"""Finished weights by test resolution: a row and a curve for each checkpoint."""

import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablations.analysis.accuracy import evaluation_values
from ablations.cells import arm_cell
from ablations.errors import InputError
from ablations.measure import Evaluation
from ablations.records import load_records
from ablations.report.accuracy import TABLES, plot_evaluation
from ablations.report.contents import list_figures
from ablations.report.figures import arm_colour
from ablations.report.tables import render_markdown

TOP1 = {("v1", "a" * 64): (0.3, 0.2), ("v1+ope+cffn", "b" * 64): (0.4, 0.42), ("v1+ope+cffn", "c" * 64): (0.41, 0.4)}
"""Of an arm's checkpoints at 64 and at 96 px."""


@pytest.fixture
def ax() -> Axes:
    return Figure().add_subplot()


@pytest.fixture
def write_scores(tmp_path, write_cell):
    """Writes the scores of all; they are made for `img_size`."""

    def write(img_size=64):
        for (arm, checkpoint), scores in TOP1.items():
            for resolution, top1 in zip((64, 96), scores, strict=True):
                conditions = Evaluation(
                    checkpoint=checkpoint,
                    data="pets",
                    resolution=resolution,
                    num_classes=10,
                    img_size=img_size,
                )
                cell = arm_cell(variant="pico", arm=arm, base="published", conditions=conditions)
                result = {"top1": top1, "top5": 0.9, "loss": 1.5, "ece": 0.05, "n_images": 100, "skipped": []}
                write_cell(tmp_path, cell, result | {"classes": "ten", "n_classes": 10, "expected_top1": None})
        return load_records(tmp_path)

    return write


def curves(ax: Axes) -> dict[str, tuple[list[float], str, str]]:
    """Points, colour and style of the lines, by their names in the legend."""
    return {
        str(line.get_label()): (list(line.get_ydata()), str(line.get_color()), str(line.get_linestyle()))
        for line in ax.lines
    }


def test_each_checkpoint_has_a_curve_in_its_arm_s_colour_and_a_style_of_its_own(ax, write_scores):
    assert plot_evaluation(ax, evaluation_values(write_scores())) is ax
    shown = curves(ax)
    assert list(shown) == ["made for 64 px", "v1, aaaaaaaa", "v1+ope+cffn, bbbbbbbb", "v1+ope+cffn, cccccccc"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(shown)
    (v1, colour, style), (second, *look), (third, *other_look) = list(shown.values())[1:]
    assert (v1, colour, style) == (pytest.approx([30, 20]), arm_colour("v1"), "-")
    assert second == pytest.approx([40, 42])
    assert third == pytest.approx([41, 40])
    assert (look, other_look) == ([arm_colour("v1+ope+cffn"), "-"], [arm_colour("v1+ope+cffn"), "--"])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["64", "96"]
    assert list(ax.lines[0].get_xdata()) == [64, 64]


def test_curves_of_models_made_for_two_sizes_are_refused_and_drawn_apart(ax, write_scores, find_illegible):
    write_scores()
    records = write_scores(img_size=96)
    with pytest.raises(InputError, match=r"^img_size is mixed, 64, 96; "):
        plot_evaluation(ax, evaluation_values(records))
    (sheet,) = list_figures(records, kinds=["evaluation"])
    assert sheet.name == "evaluation_pets_pico_published"
    assert [panel.conditions["img_size"] for panel in sheet.panels] == [64, 96]
    assert find_illegible(sheet) == []


def test_one_size_is_no_curve(write_scores):
    records = write_scores()
    assert list_figures(records[records["resolution"] == "64"]) == []


def test_the_table_has_a_row_for_each_checkpoint_and_the_best_of_each_size(write_scores):
    (table,) = (table for table in TABLES if table.name == "evaluation")
    lines = render_markdown(table, evaluation_values(write_scores())).splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| `")]
    assert [[row[0], row[1], row[4]] for row in rows] == [
        ["`v1, aaaaaaaa`", "30.00", "20.00"],
        ["`v1+ope+cffn, bbbbbbbb`", "40.00", "42.00"],
        ["`v1+ope+cffn, cccccccc`", "41.00", "40.00"],
    ]
    assert "position embeddings made for 64 px" in lines[-1]


def test_without_records_there_are_no_values(tmp_path):
    assert evaluation_values(load_records(tmp_path)).equals(pd.DataFrame())
