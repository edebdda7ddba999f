"""The plots of cost that go beyond one comparison of arms: one mark for each thing, all named, none on another."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablations.catalogue import MODELS, SCALED
from ablations.config import ARMS
from ablations.design import Cost, ModelCell
from ablations.records import load_records
from ablations.report.comparison import operator_values
from ablations.report.cost_figures import (
    OPERATOR_COLOURS,
    OPERATOR_WORDS,
    PART_COLOURS,
    PEER_LINES,
    plot_complexity,
    plot_operators,
    plot_parts,
    plot_scaling,
)
from ablations.report.figures import ALIKE, COLOURS, GREY, MARKERS
from ablations.report.growth import PARTS, complexity_values, part_values, scaling_values
from ablations.report.sheets import Sheet, list_sheets
from ablations.studies import SCALES

PEER = ModelCell(model="timm:planted", conditions=Cost())


@pytest.fixture
def ax() -> Axes:
    return Figure().add_subplot()


@pytest.fixture(scope="module")
def sheets(paper_records) -> dict[str, Sheet]:
    return {sheet.name: sheet for sheet in list_sheets(paper_records)}


def legend_of(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    assert legend is not None
    return [" ".join(text.get_text().split()) for text in legend.get_texts()]


def test_scaling_has_every_model_once_on_logarithmic_axes(ax, paper_records):
    values = scaling_values(paper_records)
    assert plot_scaling(ax, values) is ax
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_xlabel() == "Side of the input, px"
    assert ax.get_ylabel() == "Multiply-adds, G"
    assert [label.get_text() for label in ax.get_xticklabels()] == [str(side) for side in SCALES]
    labels = legend_of(ax)
    assert len(labels) == len(ax.lines)
    named = [name for label in labels for name in label.rpartition(":")[0].split(", ")]
    assert sorted(named) == sorted(set(values["name"]))


def test_scaling_draws_arms_in_their_colours_and_others_in_grey(ax, paper_records):
    values = scaling_values(paper_records)
    plot_scaling(ax, values)
    curves = dict(iter(values.groupby("name")))
    others = 0
    for line, label in zip(ax.lines, legend_of(ax), strict=True):
        names, exponents = label.rpartition(":")[0].split(", "), label.rpartition(":")[2].strip()
        first = curves[names[0]]
        assert list(line.get_xdata()) == pytest.approx(list(SCALES))
        assert list(line.get_ydata()) == pytest.approx(list(first["macs"] / 1e9))
        # Those that share a line are alike, and the label has the range of their exponents.
        for name in names:
            assert (abs(curves[name]["macs"].to_numpy() / first["macs"].to_numpy() - 1) <= ALIKE).all()
        ends = sorted(f"{curves[name]['last_exponent'].iloc[0]:.2f}" for name in names)
        assert exponents == (ends[0] if ends[0] == ends[-1] else f"{ends[0]} to {ends[-1]}")
        arm = first["arm"].iloc[0]
        if names[0] in SCALED:
            assert (line.get_color(), line.get_marker()) == (GREY, "None")
            others += 1
        else:
            assert (line.get_color(), line.get_marker()) == (COLOURS[arm], MARKERS[arm])
    assert others == len(SCALED)
    grey = [line.get_linestyle() for line in ax.lines if line.get_color() == GREY]
    assert len(set(grey)) == len(grey)


def test_more_models_than_line_styles_are_all_drawn(ax, tmp_path, write_cell):
    count = len(PEER_LINES) + 2
    for number in range(1, count + 1):
        for side in (64, 128, 256):
            cell = replace(PEER, model=f"timm:planted_{number}", conditions=Cost(resolution=side))
            write_cell(tmp_path, cell, {"params": 1, "macs": 10**6 * number * side**2})
    plot_scaling(ax, scaling_values(load_records(tmp_path)))
    assert sorted(legend_of(ax)) == sorted(f"timm:planted_{number}: 1.00" for number in range(1, count + 1))
    assert len(ax.lines) == count


@pytest.fixture
def parts(paper_records):
    return part_values(paper_records).query("resolution == '224'").reset_index(drop=True)


def test_a_bar_of_parts_is_as_long_as_the_multiply_adds(ax, parts):
    assert plot_parts(ax, parts) is ax
    assert [label.get_text() for label in ax.get_yticklabels()] == list(ARMS)
    assert ax.get_xlabel() == "Multiply-adds at 224 px, G"
    assert ax.yaxis_inverted()
    # The classifier is less than a thousandth, and left out.
    drawn = [part for part in PARTS if part != "classifier"]
    assert legend_of(ax) == drawn
    bars = np.array(ax.patches).reshape(len(drawn), len(ARMS))
    for part, own in zip(drawn, bars, strict=True):
        assert [bar.get_width() for bar in own] == pytest.approx(list(parts[part] / 1e9))
        assert {colors.to_hex(bar.get_facecolor()).upper() for bar in own} == {PART_COLOURS[part]}
    for before, after in zip(bars[:-1].ravel(), bars[1:].ravel(), strict=True):
        assert before.get_x() + before.get_width() == pytest.approx(after.get_x())
    ends = [bar.get_x() + bar.get_width() for bar in bars[-1]]
    assert ends == pytest.approx(list((parts["macs"] - parts["classifier"]) / 1e9))


def test_a_part_that_weighs_something_is_drawn_in_a_group_with_another_index(ax, paper_records):
    values = part_values(paper_records).query("resolution == '2048'")
    plot_parts(ax, values)
    assert "attention: products" in legend_of(ax)
    products = next(bars for bars in ax.containers if bars.get_label() == "attention: products")
    assert [bar.get_width() for bar in products] == pytest.approx(list(values["attention: products"] / 1e9))


def test_operators_fill_a_hundred_percent(ax, paper_records):
    values = operator_values(paper_records)
    values = values[values["name"].isin(MODELS)]
    assert plot_operators(ax, values) is ax
    assert legend_of(ax) == ["convolutions", "linear layers", "products in batches"]
    assert [label.get_text() for label in ax.get_yticklabels()] == list(values["name"])
    assert ax.get_xlim() == (0, 100)
    assert ax.get_xlabel() == "Share of the multiply-adds, %"
    bars = np.array(ax.patches).reshape(len(OPERATOR_COLOURS), len(values))
    lengths = np.array([[bar.get_width() for bar in own] for own in bars])
    assert lengths.sum(axis=0) == pytest.approx(100)
    starts = np.array([[bar.get_x() for bar in own] for own in bars])
    assert starts == pytest.approx(lengths.cumsum(axis=0) - lengths, abs=1e-9)
    resnet = values["name"].tolist().index("ResNet50")
    assert lengths[0, resnet] > 99.9
    assert lengths[2, resnet] == 0
    # Twins has no work but these three kinds either, and attention's products are its smallest.
    row = values[values["name"] == "Twins-SVT-S"].iloc[0]
    twins = values["name"].tolist().index("Twins-SVT-S")
    assert lengths[2, twins] == pytest.approx(100 * row["macs_batched_product"] / row["macs"])
    for kind, own in zip(OPERATOR_COLOURS, bars, strict=True):
        assert {colors.to_hex(bar.get_facecolor()).upper() for bar in own} == {OPERATOR_COLOURS[kind]}
    assert list(OPERATOR_WORDS) == list(OPERATOR_COLOURS)


def test_complexity_has_a_line_a_term_and_a_dot_a_trace(ax, paper_records):
    values = complexity_values(paper_records).query("stage == 1")
    assert plot_complexity(ax, values) is ax
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_ylabel() == "Multiply-adds of a layer, G"
    assert legend_of(ax) == [
        "SRA, products: 2h²w²c/R²",
        "SRA, reduction: hwc²R²",
        "linear SRA, products: 2hwP²c",
        "traced layer",
    ]
    *pairs, traced = ax.lines
    assert len(traced.get_xdata()) == 0  # it stands for the dots in the legend
    terms, dots = pairs[::2], pairs[1::2]
    assert [line.get_color() for line in terms] == [line.get_color() for line in dots]
    assert len({line.get_color() for line in terms}) == 3
    tokens = np.array(SCALES) ** 2 / 16
    assert terms[0].get_ydata() == pytest.approx(2 * tokens**2 * 64 / 64 / 1e9)
    assert terms[1].get_ydata() == pytest.approx(tokens * 64**2 * 64 / 1e9)
    assert terms[2].get_ydata() == pytest.approx(2 * tokens * 49 * 64 / 1e9)
    assert dots[0].get_ydata() == pytest.approx(terms[0].get_ydata())
    assert dots[1].get_ydata() == pytest.approx(terms[1].get_ydata() / 64)
    assert dots[2].get_ydata() == pytest.approx(terms[2].get_ydata())


def test_a_stage_without_a_reduction_has_no_dots_of_it(ax, paper_records):
    plot_complexity(ax, complexity_values(paper_records).query("stage == 4"))
    assert [len(line.get_xdata()) for line in ax.lines] == [10, 10, 10, 0, 10, 10, 0]


def test_the_study_has_its_sheets(sheets):
    assert list(sheets) == [
        "ladder_b2_published",
        "scaling_classifier",
        "parts_b2_published",
        "operators_classifier",
        "complexity_b2",
        "cost_b2_published_classifier",
        *(f"cost_b2_{frame}_retinanet" for frame in ("published", "v1", "v2")),
        "macs_by_resolution_b2_published_classifier",
    ]
    panels = {name: len(sheet.panels) for name, sheet in sheets.items()}
    assert panels["parts_b2_published"] == 2  # the smallest and the largest input
    assert panels["complexity_b2"] == 4  # stages
    assert panels["scaling_classifier"] == 1


@pytest.mark.parametrize(
    "name",
    ["scaling_classifier", "parts_b2_published", "operators_classifier", "complexity_b2", "cost_b2_v1_retinanet"],
)
def test_no_words_overlap_or_leave_the_figure(sheets, find_illegible, name):
    assert find_illegible(sheets[name]) == []


def test_captions_say_what_they_are_of(sheets):
    for name, words in {
        "scaling_classifier": "the exponent in pixels between the two largest sizes",
        "complexity_b2": "The traced reduction is hwc², R² below the printed term; where R = 1",
        "cost_b2_v1_retinanet": "not a time",
    }.items():
        assert words in sheets[name].caption
        assert "Conditions: " in sheets[name].caption
