"""The plots: what they show, that arms can be told apart, and that nothing lies on anything else."""

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ablations.analysis.accuracy import accuracy_values
from ablations.analysis.cost import cost_values
from ablations.analysis.paper import cumulative_values
from ablations.cells import arm_cell, build_cell
from ablations.config import ARMS
from ablations.errors import InputError
from ablations.measure import Accuracy, Cost
from ablations.records import load_records
from ablations.report import figures
from ablations.report.accuracy import plot_accuracy
from ablations.report.contents import list_figures
from ablations.report.cost import plot_macs_by_resolution
from ablations.report.paper import plot_cumulative

COLOURS = {arm: figures.arm_colour(arm) for arm in ARMS}
MARKERS = {arm: figures.arm_marker(arm) for arm in ARMS}


@pytest.fixture
def ax() -> Axes:
    return Figure().add_subplot()


# Linear sRGB as seen without one kind of cone (Machado, Oliveira and Fernandes, 2009, at full severity).
SIGHTS = {
    "all cones": np.eye(3),
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def cie_lab(linear_rgb: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(linear_rgb, 0, 1) / to_xyz.sum(axis=1)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SIGHTS)
def test_colours_stay_apart_for_colour_blind_readers(sight):
    srgb = {arm: np.array(colors.to_rgb(colour)) for arm, colour in COLOURS.items()}
    linear = {arm: np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) for arm, c in srgb.items()}
    seen = {arm: cie_lab(np.array(SIGHTS[sight]) @ c) for arm, c in linear.items()}
    # A difference of 2 can just be seen side by side; 15 is told apart at a glance.
    assert min(np.linalg.norm(seen[a] - seen[b]) for a, b in combinations(ARMS, 2)) > 15


def test_every_arm_has_a_marker_of_its_own():
    assert len(set(MARKERS.values())) == len(ARMS)


def test_the_cumulative_is_the_papers_with_our_counts(ax, quick_records):
    values = cumulative_values(quick_records).query("resolution == '224'")
    assert plot_cumulative(ax, values) is ax
    assert list(ax.lines[0].get_xdata()) == [79.8, 81.1, 82.0, 82.1]
    assert [text.get_text() for text in ax.texts] == ["79.8", "81.1 (+1.3)", "82.0 (+0.9)", "82.1 (+0.1)"]
    assert ax.get_yticklabels()[1].get_text() == "v1+ope\n+ OPE\n25.17 M params, 3.938 G MACs"


def test_macs_a_pixel_have_a_line_an_arm(ax, quick_records):
    values = cost_values(quick_records).query("variant == 'b2' and base == 'v2'")
    assert plot_macs_by_resolution(ax, values) is ax
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert [text.get_text() for text in ax.texts if text.get_text()] == list(ARMS)
    assert [line.get_color() for line in ax.lines] == [figures.arm_colour(arm) for arm in ARMS]
    first = values[(values["arm"] == "v1") & (values["resolution"] == "224")].iloc[0]
    assert ax.lines[0].get_xydata()[0] == pytest.approx([224, first["macs"] / 224**2])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["224", "512", "1024", "2048"]
    flat = dict(zip(ARMS, (line.get_ydata() for line in ax.lines), strict=True))["v1+lsra"]
    assert flat[-1] == pytest.approx(flat[-2], rel=0.01)


def test_accuracy_shows_means_and_every_seed(ax, quick_records):
    records = quick_records[quick_records["measurement"] == "accuracy"]
    values = accuracy_values(records)
    assert plot_accuracy(ax, values, records) is ax
    dots = [line for line in ax.lines if line.get_marker() == "."]
    assert sorted(x for line in dots for x in line.get_xdata()) == pytest.approx(sorted(100 * records["top1"]))
    assert len(ax.collections) == len(ARMS)


def test_one_seed_has_a_dot_and_no_whisker(ax, quick_records):
    records = quick_records[(quick_records["measurement"] == "accuracy") & (quick_records["seed"] == 0)]
    plot_accuracy(ax, accuracy_values(records), records)
    assert len(ax.collections) == 0
    assert len(ax.lines) == 2 * len(ARMS)


def test_other_models_are_grey_and_named_behind_the_arms(ax, tmp_path, write_cell):
    for seed, top1 in ((0, 0.5), (1, 0.7)):
        for cell in (
            arm_cell(variant="pico", arm="v1", base="v2", conditions=Accuracy(seed=seed)),
            build_cell(model="timm:resnet18", conditions=Accuracy(seed=seed)),
        ):
            write_cell(tmp_path, cell, {"top1": top1, "n_eval_images": 9, "n_train_images": 9})
    records = load_records(tmp_path)
    plot_accuracy(ax, accuracy_values(records), records)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["v1", "timm:resnet18"]
    dots = [list(line.get_xdata()) for line in ax.lines if line.get_marker() == "."]
    assert dots == [pytest.approx([50, 70])] * 2
    means = [line for line in ax.lines if line.get_marker() in ("o", "d")]
    assert [(line.get_marker(), line.get_color()) for line in means] == [("o", "#000000"), ("d", figures.GREY)]


def test_a_plot_refuses_mixed_conditions(ax, quick_records):
    with pytest.raises(InputError, match=r"^variant is mixed, "):
        plot_macs_by_resolution(ax, cost_values(quick_records))


def test_a_plot_of_accuracy_refuses_mixed_means_and_mixed_seeds(ax, tmp_path, write_cell):
    for seed, epochs in ((0, 20), (1, 20), (2, 50)):
        conditions = Accuracy(seed=seed, epochs=epochs)
        write_cell(tmp_path, arm_cell(variant="pico", arm="v1", base="v2", conditions=conditions))
    records = load_records(tmp_path)
    values = accuracy_values(records)
    for mixed in ((values, records[records["epochs"] == 20]), (values[values["epochs"] == 20], records)):
        with pytest.raises(InputError, match=r"^epochs is mixed, 20, 50"):
            plot_accuracy(ax, *mixed)


def test_legends_that_differ_stay_with_their_panels():
    figure = Figure()
    for names in (("a", "b"), ("a", "c")):
        ax = figure.add_subplot(1, 2, 1 + len(figure.axes))
        for name in names:
            ax.plot([1], [1], label=name)
        figures.legend_below(ax)
    figures.share_legend(figure)
    assert figure.legends == []
    assert all(ax.get_legend() for ax in figure.axes)


@pytest.mark.slow
def test_every_figure_has_a_name_of_its_own(quick_records):
    names = [spec.name for spec in list_figures(quick_records)]
    assert len(names) == len(set(names)) > 8
    for kind in (
        "cumulative",
        "macs_by_resolution",
        "memory",
        "speed",
        "accuracy",
        "effects_accuracy",
        "tradeoff",
    ):
        assert any(name.startswith(kind) for name in names), kind


def test_three_arms_are_no_figure_and_four_are(tmp_path, write_cell):
    for count, names in ((3, []), (4, ["toggle_costs_pico_v2_2", "macs_by_resolution_pico_v2_classifier"])):
        for arm, side in product(ARMS[:count], (32, 64)):
            write_cell(tmp_path, arm_cell(variant="pico", arm=arm, base="v2", conditions=Cost(resolution=side)))
        assert [sheet.name for sheet in list_figures(load_records(tmp_path))] == names


@pytest.mark.slow
def test_no_words_overlap_or_leave_the_figure(quick_records, find_illegible):
    sheets = {sheet.name.partition("_")[0]: sheet for sheet in list_figures(quick_records)}
    assert set(sheets) == {
        *("cumulative", "macs", "memory", "speed", "accuracy", "effects", "interactions", "toggle", "tradeoff")
    }
    for name, sheet in sheets.items():
        assert find_illegible(sheet) == [], name


@pytest.mark.parametrize(("one_scale", "expected"), [(False, [1, 2, 3, 4]), (True, [4, 4, 4, 4])])
def test_panels_have_one_scale_in_a_figure_that_says_so(one_scale, expected):
    def panel(end):
        def draw(ax):
            ax.set_xlim(0, end)
            return ax

        return figures.Panel({"resolution": str(end)}, draw, pd.DataFrame())

    spec = figures.FigureSpec(
        kind="made_up",
        name="made_up",
        title="",
        caption="",
        panels=[panel(end) for end in (1, 2, 3, 4)],
        panel_height=2.0,
        one_scale=one_scale,
    )
    assert [ax.get_xlim() for ax in spec.draw().axes] == [(0, end) for end in expected]
