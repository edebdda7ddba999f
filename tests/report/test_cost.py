"""The plots of cost that go beyond one comparison of arms: one mark for each thing, all named, none on another."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablations.analysis.cost import (
    MODULE_KINDS,
    complexity_values,
    module_values,
    part_values,
    scaling_values,
)
from ablations.baselines.registry import SCALED
from ablations.cells import arm_cell, build_cell
from ablations.config import CUMULATIVE
from ablations.errors import InputError
from ablations.measure import Cost
from ablations.records import load_records
from ablations.report.contents import list_figures
from ablations.report.cost import plot_complexity
from ablations.report.figures import ALIKE, BASELINE_LINES, GREY, FigureSpec, arm_colour, arm_marker, plot_scaling

SCALES = (224, 320, 448, 512, 640, 800, 1024, 1280, 1600, 2048)
"""The sides of the study `paper` at which counts are drawn against the size of the input."""

BASELINE = build_cell(model="timm:planted", conditions=Cost())


@pytest.fixture
def ax() -> Axes:
    return Figure().add_subplot()


@pytest.fixture(scope="module")
def sheets(paper_records) -> dict[str, FigureSpec]:
    return {sheet.name: sheet for sheet in list_figures(paper_records)}


def legend_of(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    assert legend is not None
    return [" ".join(text.get_text().split()) for text in legend.get_texts()]


def test_scaling_has_every_model_once_on_logarithmic_axes(ax, paper_records):
    values = scaling_values(paper_records)
    assert plot_scaling(ax, values) is ax
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_xlabel() == "Side of the input, px"
    assert ax.get_ylabel() == "MACs"
    assert [label.get_text() for label in ax.get_xticklabels()] == [str(side) for side in SCALES]
    labels = legend_of(ax)
    assert len(labels) == len(ax.lines)
    named = [name for label in labels for name in label.rpartition(" (")[0].split(", ")]
    assert sorted(named) == sorted(set(values["name"]))


def test_scaling_draws_arms_in_their_colours_and_others_in_grey(ax, paper_records):
    values = scaling_values(paper_records)
    plot_scaling(ax, values)
    curves = dict(iter(values.groupby("name")))
    others = 0
    for line, label in zip(ax.lines, legend_of(ax), strict=True):
        words, _, exponents = label.removesuffix(")").rpartition(" (exponent ")
        names = words.split(", ")
        first = curves[names[0]]
        assert list(line.get_xdata()) == pytest.approx(list(SCALES))
        assert list(line.get_ydata()) == pytest.approx(list(first["macs"]))
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
            assert (line.get_color(), line.get_marker()) == (arm_colour(arm), arm_marker(arm))
    assert others == len(SCALED)
    grey = [line.get_linestyle() for line in ax.lines if line.get_color() == GREY]
    assert len(set(grey)) == len(grey)


def test_more_models_than_line_styles_are_all_drawn(ax, tmp_path, write_cell):
    count = len(BASELINE_LINES) + 2
    for number in range(1, count + 1):
        for side in (64, 128, 256):
            cell = replace(BASELINE.of(name=f"timm:planted_{number}"), conditions=Cost(resolution=side))
            write_cell(tmp_path, cell, {"params": 1, "macs": 10**6 * number * side**2})
    plot_scaling(ax, scaling_values(load_records(tmp_path)))
    assert sorted(legend_of(ax)) == sorted(f"timm:planted_{number} (exponent 1.00)" for number in range(1, count + 1))
    assert len(ax.lines) == count


@pytest.fixture(scope="module")
def modules(paper_records):
    """The modules of b2's cumulative at 224 px."""
    values = module_values(paper_records)
    return values[values["arm"].isin(CUMULATIVE) & (values["resolution"] == "224")]


def test_the_modules_of_an_arm_sum_to_the_arm(modules, paper_records):
    totals = paper_records.set_index(["model", "head", "resolution"])
    assert list(modules["arm"].unique()) == list(CUMULATIVE)
    assert set(modules["module"]) == set(MODULE_KINDS) - {"other"}
    for arm, rows in modules.groupby("arm"):
        total = totals.loc[(f"pvt:b2/{arm}/published", "classifier", "224")]
        assert (rows["params"].sum(), rows["macs"].sum()) == (total["params"], total["macs"])


@pytest.mark.slow
def test_the_modules_are_the_parts_of_the_table(modules, paper_records):
    parts = part_values(paper_records).query("resolution == '224'").set_index("arm")
    macs = {arm: rows.set_index("module")["macs"] for arm, rows in modules.groupby("arm")}
    for arm in CUMULATIVE:
        assert macs[arm]["patch_embed"] == parts.loc[arm, "patch embedding"]
        assert macs[arm]["attn.sr"] == parts.loc[arm, "attention: reduction"]
        assert macs[arm]["attn: products"] == parts.loc[arm, "attention: products"]
        assert macs[arm][["mlp.fc1", "mlp.fc2"]].sum() == parts.loc[arm, "feed-forward: linear"]
    # Worked out by hand: four stages of 3x3 filters on 64, 128, 320 and 512 channels, 8 or 4 times as wide inside.
    widths = sum(depth * ratio * dim for depth, ratio, dim in ((3, 8, 64), (4, 8, 128), (6, 4, 320), (3, 4, 512)))
    params = modules.set_index(["arm", "module"])["params"]
    assert params["v1+ope+cffn", "mlp.dwconv"] == 10 * widths
    assert ("v1", "mlp.dwconv") not in params.index
    # Positions of 56², 28², 14² and 7² tokens and the class token, which has one too.
    assert params["v1", "embeddings"] == 64 * 56**2 + 128 * 28**2 + 320 * 14**2 + 512 * (7**2 + 2)


def test_modules_that_nobody_knows_are_counted_as_others(tmp_path, write_cell):
    breakdown = {name: {"params": 1, "macs": 2} for name in ("stages.0.blocks.mlp.gate", "pyramid.conv", "head")}
    cell = arm_cell(variant="b2", arm="v1", base="published", conditions=Cost())
    write_cell(tmp_path, cell, {"params": 3, "macs": 6, "breakdown": breakdown})
    write_cell(tmp_path, cell.of(arm="v1+ope"), {"params": 3, "macs": 6})
    values = module_values(load_records(tmp_path)).set_index("module")
    assert values[["params", "macs"]].to_dict("index") == {
        "other": {"params": 2, "macs": 4},
        "head": {"params": 1, "macs": 2},
    }


def test_complexity_has_a_line_a_term_and_a_dot_a_trace(ax, paper_records):
    values = complexity_values(paper_records).query("stage == 1")
    assert plot_complexity(ax, values) is ax
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.get_ylabel() == "MACs of a layer"
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
    assert terms[0].get_ydata() == pytest.approx(2 * tokens**2 * 64 / 64)
    assert terms[1].get_ydata() == pytest.approx(tokens * 64**2 * 64)
    assert terms[2].get_ydata() == pytest.approx(2 * tokens * 49 * 64)
    assert dots[0].get_ydata() == pytest.approx(terms[0].get_ydata())
    assert dots[1].get_ydata() == pytest.approx(terms[1].get_ydata() / 64)
    assert dots[2].get_ydata() == pytest.approx(terms[2].get_ydata())


def test_a_stage_without_a_reduction_has_no_dots_of_it(ax, paper_records):
    plot_complexity(ax, complexity_values(paper_records).query("stage == 4"))
    assert [len(line.get_xdata()) for line in ax.lines] == [10, 10, 10, 0, 10, 10, 0]


def test_the_study_has_its_sheets(sheets):
    assert list(sheets) == [
        "macs_by_resolution_b2_published_classifier",
        "scaling_classifier",
        "complexity_b2",
        "cumulative_b2_published",
        "table2_imagenet_classifier",
    ]
    panels = {name: len(sheet.panels) for name, sheet in sheets.items()}
    assert panels["complexity_b2"] == 4  # stages
    assert panels["scaling_classifier"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["scaling_classifier", "complexity_b2", "macs_by_resolution_b2_published_classifier"],
)
def test_no_words_overlap_or_leave_the_figure(sheets, find_illegible, name):
    assert find_illegible(sheets[name]) == []


def test_captions_say_what_they_are_of(sheets):
    for name, words in {
        "scaling_classifier": "the exponent in pixels between the two largest sizes",
        "complexity_b2": "The traced reduction is hwc², R² below the paper's term; where R = 1",
    }.items():
        assert words in sheets[name].caption
        assert "Conditions: " in sheets[name].caption


def test_panels_that_share_a_legend_have_it_once(sheets):
    figure = sheets["complexity_b2"].draw()
    assert [ax.get_legend() for ax in figure.axes] == [None] * 4
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()][-1] == "traced layer"
    assert [handle.get_color() for handle in legend.legend_handles] == ["#D55E00", "#882255", "#009E73", GREY]
    assert [ax.get_title("left") for ax in figure.axes] == [f"stage {stage}" for stage in range(1, 5)]


def test_a_single_panel_keeps_its_own_legend(sheets):
    figure = sheets["scaling_classifier"].draw()
    assert figure.legends == []
    assert figure.axes[0].get_legend() is not None


def test_mixed_stages_are_refused(ax, paper_records):
    with pytest.raises(InputError, match=r"^stage is mixed, "):
        plot_complexity(ax, complexity_values(paper_records))
