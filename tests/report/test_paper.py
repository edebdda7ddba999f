"""The paper's Table 2 as a plot: every model once, in its family's look, with a bubble as large as its parameters."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from ablations.analysis.paper import ARM_FAMILIES, BASELINE_FAMILIES, imagenet_values
from ablations.baselines.registry import PAPER_TABLES
from ablations.cells import arm_cell, build_cell
from ablations.config import ARMS
from ablations.errors import InputError
from ablations.measure import Cost
from ablations.paper import load_paper_table
from ablations.records import load_records
from ablations.report.contents import list_figures
from ablations.report.figures import arm_colour, arm_marker
from ablations.report.paper import AREA_OF_A_MILLION, BASELINE_LOOKS, KEYS, plot_imagenet


@pytest.fixture
def ax() -> Axes:
    return Figure().add_subplot()


@pytest.fixture(scope="module")
def values(paper_records):
    return imagenet_values(paper_records)


def legend_of(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def bubbles_of(ax: Axes) -> list[tuple[float, float, float]]:
    """MACs in G, top-1 in percent and area of each bubble; those of the key to sizes have no place."""
    return [
        (*map(float, place), float(area))
        for bubbles in ax.collections
        for place, area in zip(np.asarray(bubbles.get_offsets()), bubbles.get_sizes(), strict=False)
    ]


def test_every_model_of_the_table_has_a_family(values):
    assert sorted(values["name"]) == sorted(PAPER_TABLES["table2_imagenet"].models)
    families = values.set_index("name")["family"]
    assert families["PVTv1-Large"] == "PVT v1"
    assert families["PVTv2-B2"] == "PVT v2"
    assert families["PVTv2-B2-Li"] == "PVT v2-Li"
    assert families["ResNet50"] == "ResNet"
    assert families["ResNeXt50-32x4d"] == "ResNeXt"
    assert families["ViT-Base/16"] == families["DeiT-Base/16"] == "ViT, DeiT"
    assert families["T2T-ViT_t-14"] == "T2T-ViT"
    assert set(families) == {*ARM_FAMILIES.values(), *BASELINE_FAMILIES}
    arms = values.set_index("name")["arm"].dropna()
    assert len(arms) == 11
    assert all(name.startswith("PVT") for name in arms.index)


def test_looks_of_families_tell_them_apart():
    looks = [*BASELINE_LOOKS.values()]
    looks += [(arm_colour(arm), arm_marker(arm), "-") for arm in ARM_FAMILIES]
    assert len({(colour, marker) for colour, marker, _ in looks}) == len(looks)
    assert len({colour for colour, *_ in looks}) == len(looks)
    assert list(BASELINE_LOOKS) == list(BASELINE_FAMILIES)
    assert not {marker for _, marker, _ in BASELINE_LOOKS.values()} & {arm_marker(arm) for arm in ARMS}


def test_a_line_joins_the_models_of_a_family(ax, values):
    assert plot_imagenet(ax, values) is ax
    assert ax.get_xscale() == "log"
    assert ax.get_xlabel() == "MACs at 224 px"
    assert ax.get_ylabel() == "Reported top-1, %"
    printed = load_paper_table("table2_imagenet").set_index("model")["top1"]
    macs = values.set_index("name")["macs"] / 1e9
    lines = {str(line.get_label()).partition(":")[0]: line for line in ax.lines}
    assert list(lines) == [*ARM_FAMILIES.values(), *BASELINE_FAMILIES]
    v2 = lines["PVT v2"]
    names = [f"PVTv2-B{size}" for size in range(6)]
    assert list(v2.get_xdata()) == pytest.approx(list(macs[names]))
    assert list(v2.get_ydata()) == list(printed[names])
    assert (v2.get_color(), v2.get_marker()) == (arm_colour("v1+ope+cffn"), arm_marker("v1+ope+cffn"))
    assert list(lines["Swin"].get_ydata()) == list(printed[["Swin-T", "Swin-S", "Swin-B"]])
    assert lines["ResNet"].get_linestyle() == "--"
    assert sum(len(line.get_xdata()) for line in ax.lines) == len(PAPER_TABLES["table2_imagenet"].models)


def test_the_area_of_a_bubble_is_as_the_parameters(ax, values):
    plot_imagenet(ax, values)
    wanted = {
        (round(row["macs"] / 1e9, 6), row["reported_top1_percent"], round(AREA_OF_A_MILLION * row["params"] / 1e6, 6))
        for _, row in values.iterrows()
    }
    assert {(round(x, 6), y, round(area, 6)) for x, y, area in bubbles_of(ax)} == wanted


def test_the_legends_give_the_parameters(ax, values):
    plot_imagenet(ax, values)
    labels = legend_of(ax)
    assert labels[1:3] == ["PVT v2: 3.67 to 82 M", "PVT v2-Li: 22.6 M"]
    assert "Twins-SVT: 24.1 to 99.3 M" in labels
    (key,) = (child for child in ax.get_children() if isinstance(child, Legend) and child is not ax.get_legend())
    assert key.get_title().get_text() == "Parameters"
    assert [text.get_text() for text in key.get_texts()] == [f"{millions} M" for millions in KEYS]
    areas = [handle.get_sizes()[0] for handle in key.legend_handles]
    assert areas == [AREA_OF_A_MILLION * millions for millions in KEYS]


def test_our_points_are_named(ax, values):
    plot_imagenet(ax, values)
    words = [text.get_text() for text in ax.texts]
    assert sorted(words) == sorted(
        ["B0", "B1", "B2", "B2-Li", "B3", "B4", "B5", "Tiny", "Small", "Medium", "Large"],
    )


@pytest.mark.slow
def test_the_sheet_is_legible_and_says_whose_numbers_it_shows(paper_records, find_illegible):
    (sheet,) = (sheet for sheet in list_figures(paper_records) if sheet.name.startswith("table2_imagenet"))
    assert sheet.name == "table2_imagenet_classifier"
    assert len(sheet.panels) == 1
    assert "one run a row, spread unknown" in sheet.caption
    assert sheet.caption.endswith("Conditions: classifier, 224 px.")
    assert find_illegible(sheet) == []


@pytest.mark.parametrize(
    ("baselines", "sizes", "is_drawn"),
    [(("resnet18", "resnet50"), ("b0", "b1"), True), ((), ("b0", "b1", "b2", "b3"), False), (("resnet18",), (), False)],
    ids=["both", "ours alone", "a baseline alone"],
)
def test_a_sheet_needs_arms_and_baselines(tmp_path, write_cell, baselines, sizes, is_drawn):
    for variant in sizes:
        cell = arm_cell(variant=variant, arm="v1+ope+cffn", base="published", conditions=Cost())
        write_cell(tmp_path, cell)
    for name in baselines:
        write_cell(tmp_path, build_cell(model=f"timm:{name}", conditions=Cost()), {"params": 10**7, "macs": 10**9})
    names = [sheet.name for sheet in list_figures(load_records(tmp_path))]
    assert ("table2_imagenet_classifier" in names) == is_drawn


def test_no_records_have_no_rows(tmp_path, write_cell):
    assert imagenet_values(load_records(tmp_path)).empty
    cell = arm_cell(variant="b0", arm="v1+ope+cffn", base="published", conditions=Cost())
    write_cell(tmp_path, replace(cell, conditions=Cost(resolution=256)))
    assert imagenet_values(load_records(tmp_path)).empty


def test_mixed_conditions_are_refused(ax, values):
    mixed = values.assign(resolution=["224", "256"] + ["224"] * (len(values) - 2))
    with pytest.raises(InputError, match=r"^resolution is mixed, "):
        plot_imagenet(ax, mixed)
