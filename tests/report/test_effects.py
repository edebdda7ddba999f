"""Effects and trade-offs as they are shown: words, and marks of numbers that are worked out here."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from ablations.analysis.effects import effect_values
from ablations.analysis.tradeoffs import tradeoff_values
from ablations.cells import arm_cell
from ablations.config import ARMS, build_config
from ablations.cost import count_macs, count_params
from ablations.errors import InputError
from ablations.measure import Accuracy, Cost, Memory
from ablations.records import load_records
from ablations.report.contents import list_figures
from ablations.report.effects import TABLES, plot_effects, plot_interaction, plot_tradeoff
from ablations.report.figures import FigureSpec, arm_colour
from ablations.report.tables import Section, list_sections

CELL = arm_cell("pico", "v1", "v2", Accuracy())
BY_NAME = {table.name: table for table in TABLES}
KINDS = ("effects_accuracy", "interactions", "tradeoff")

HALF = 2.570581835636314 * (1 / 30) ** 0.5
"""Points on each side of every effect of `records`.

A seed has all arms a point up or down and v1 the other way, which takes half a point from each effect or adds it. So
each effect has -0.5, 0 and 0.5, twice, beside its mean: a variance of 1 / 5, and that of the mean of six is 1 / 30.
"""

Write = Callable[..., Path]


def planted(arm: str) -> float:
    """Points of an arm: ope adds 2, cffn 4, both together 2 less. Effects are 1, 3 and -1, and 0 else."""
    ope, cffn = "ope" in arm.split("+"), "cffn" in arm.split("+")
    return 50 + 2 * ope + 4 * cffn - 2 * ope * cffn


def write_points(results: Path, write_cell: Write, arm: str, points: list[float], **conditions: int) -> None:
    for seed, value in enumerate(points):
        cell = replace(CELL.of(arm=arm), conditions=Accuracy(seed=seed, **conditions))
        write_cell(results, cell, {"top1": value / 100, "n_eval_images": 1000, "n_train_images": 2000})


def write_study(results: Path, write_cell: Write, **conditions: int) -> None:
    for arm in ARMS:
        off = [-each if arm == "v1" else each for each in (-1, 0, 1) * 2]
        write_points(results, write_cell, arm, [planted(arm) + each for each in off], **conditions)


@pytest.fixture
def records(tmp_path: Path, write_cell: Write) -> pd.DataFrame:
    write_study(tmp_path, write_cell)
    return load_records(tmp_path)


@pytest.fixture
def mixed(tmp_path: Path, write_cell: Write, records: pd.DataFrame) -> pd.DataFrame:
    """The same, and beside it twice as many epochs."""
    write_study(tmp_path, write_cell, epochs=40)
    return load_records(tmp_path)


def sections_of(name: str, records: pd.DataFrame) -> list[Section]:
    return list_sections(BY_NAME[name], BY_NAME[name].values(records))


def rows_of(section: Section) -> dict[str, dict[str, str]]:
    """The cells of each row by heading; rows by their first cell."""
    headings, *rows = section.lines()
    return {row[0]: dict(zip(headings, row, strict=True)) for row in rows}


def test_the_effects_shown_are_those_that_were_planted(records):
    (section,) = sections_of("effects_accuracy", records)
    rows = rows_of(section)
    assert {effect: cells["Points of top-1"] for effect, cells in rows.items()} == {
        "ope": "+1.00",
        "cffn": "+3.00",
        "lsra": "+0.00",
        "ope × cffn": "-1.00",
        "ope × lsra": "+0.00",
        "cffn × lsra": "+0.00",
        "ope × cffn × lsra": "+0.00",
    }
    for effect, mean, claim in (("ope", 1, "resolved"), ("ope × cffn", -1, "resolved"), ("lsra", 0, "unresolved")):
        cells = rows[effect]
        ends = f"{mean - HALF:+.2f} to {mean + HALF:+.2f}"
        assert (cells["95 % interval, seeds"], cells["Claim"]) == (ends, claim)
    # t = 1 / sqrt(1 / 30) has p = 0.0028 with 5 degrees of freedom: the second of seven, so six times that.
    assert (rows["ope"]["p"], rows["ope"]["p by Holm"]) == ("0.003", "0.017")
    assert (rows["lsra"]["p"], rows["lsra"]["p by Holm"]) == ("1.000", "1.000")
    # Six values that are all positive: two of 64 ways to set their signs.
    assert rows["ope"]["p by sign flips"] == "0.031"


def test_costs_that_only_add_have_no_rows_of_zeros(tmp_path, write_cell):
    for arm in ARMS:
        write_cell(tmp_path, replace(CELL.of(arm=arm), conditions=Cost(resolution=64)))
    (section,) = sections_of("effects_cost", load_records(tmp_path))
    rows = rows_of(section)
    assert list(rows) == ["ope", "cffn", "lsra"]
    v1, ope = (build_config("pico", arm, "v2") for arm in ("v1", "v1+ope"))
    of_params, of_macs = list(rows["ope"].values())[1:]
    assert of_params.endswith(f" ({100 * (count_params(ope) / count_params(v1) - 1):+.1f} %)")
    assert of_macs.endswith(f" ({100 * (count_macs(ope, 64) / count_macs(v1, 64) - 1):+.1f} %)")
    assert "All interactions are exactly 0" in section.caption


def test_an_interaction_of_costs_is_listed(tmp_path, write_cell):
    for arm in ARMS:
        both = {"ope", "cffn"} <= set(arm.split("+"))
        for side, more in ((64, 0), (96, 8_000_000)):
            result = {"params": 1_000_000, "macs": 100_000_000 + more * both, "breakdown": {}}
            write_cell(tmp_path, replace(CELL.of(arm=arm), conditions=Cost(resolution=side)), result)
    (section,) = sections_of("effects_cost", load_records(tmp_path))
    # 8 M more where both are on: each adds 4 M of 100 M in the mean, and half of the 8 M is the interaction.
    percent = {
        effect: [cell.partition("(")[2] for cell in cells.values()] for effect, cells in rows_of(section).items()
    }
    nothing, four = "+0.0 %)", "+4.0 %)"
    assert percent == {
        "ope": ["", nothing, nothing, four],
        "cffn": ["", nothing, nothing, four],
        "lsra": ["", nothing, nothing, nothing],
        "ope × cffn": ["", nothing, nothing, four],
    }
    assert "Interactions that are not listed are exactly 0." in section.caption


def test_memory_has_shapley_values_where_it_interacts(tmp_path, write_cell):
    for mode in ("inference", "training"):
        for arm in ARMS:
            own = set(arm.split("+"))
            more = 40 * (mode == "training" and {"ope", "cffn"} <= own) + 10 * ("lsra" in own)
            result = {"peak_memory_bytes": (100 + more) * 2**20, "memory_method": "tracked_storages"}
            write_cell(tmp_path, replace(CELL.of(arm=arm), conditions=Memory(resolution=64, mode=mode)), result)
    records = load_records(tmp_path)
    (section,) = sections_of("shapley_memory", records)
    assert "training" in section.title
    # Half of the 40 falls to each of the two, which add nothing or all of it.
    assert section.lines()[1:] == [
        ["ope", "+20.0 (+0.0 to +40.0)"],
        ["cffn", "+20.0 (+0.0 to +40.0)"],
        ["lsra", "+10.0 (+10.0 to +10.0)"],
    ]
    inference, training = sections_of("effects_memory", records)
    assert (list(rows_of(inference)), len(rows_of(training))) == (["ope", "cffn", "lsra"], 4)
    assert training.lines()[1] == ["ope", "+20.00 (+20.0 %)"]


def test_the_bases_share_of_the_published_step(tmp_path, write_cell):
    for arm in ARMS:
        for base in ("published", "v1", "v2"):
            write_cell(tmp_path, arm_cell("b2", arm, base, Cost()))
    (section,) = sections_of("confounders_cost", load_records(tmp_path))
    rows = {row[0]: row for row in section.lines()}
    models = (("v1", "v1"), ("v1", "v2"), ("v1+ope", "v2"))
    old, new, ope = (count_params(build_config("b2", *model)) for model in models)
    share = 100 * (new - old) / (ope - old)
    base, step = rows["base, at v1"], rows["ope, in base v2"]
    assert base[1].endswith(f"({100 * (new / old - 1):+.1f} %)")
    assert (base[2], step[2]) == (f"{share:+.0f}", f"{100 - share:+.0f}")


def test_prices_and_what_beats_an_arm(tmp_path, write_cell):
    for arm, points in (
        ("v1", [50.0, 60.0, 70.0]),
        ("v1+cffn", [52.9, 63.0, 73.1]),
        ("v1+ope+cffn", [52.0, 63.0, 72.0]),
    ):
        write_points(tmp_path, write_cell, arm, points * 2)
    sections = {section.title: section for section in sections_of("tradeoff", load_records(tmp_path))}
    (rows,) = (rows_of(section) for title, section in sections.items() if "parameters" in title)
    v1, cffn = (count_params(build_config("pico", arm, "v2", num_classes=10)) for arm in ("v1", "v1+cffn"))
    added = 100 * (cffn / v1 - 1)
    # Gains of 2.9, 3 and 3.1 points, twice: a variance of 0.008.
    half = 2.570581835636314 * (0.008 / 6) ** 0.5
    cells = rows["v1+cffn"]
    assert cells["Change, %"] == f"{added:+.1f}"
    assert cells["Against v1, points"] == f"+3.00 ({3 - half:+.2f} to {3 + half:+.2f})"
    prices = [added / gain for gain in (3, 3 + half, 3 - half)]
    assert cells["A point costs, % of v1's"] == "{:+.2f} ({:+.2f} to {:+.2f})".format(*prices)
    # It is 0.9, 0 and 1.1 points ahead of the arm with OPE, twice: p = 0.026, and the only pair.
    places = {arm: cells["Pareto front"] for arm, cells in rows.items()}
    assert places == {"v1": "on it", "v1+cffn": "on it", "v1+ope+cffn": "below v1+cffn"}


def whiskers(ax: Axes) -> list[list[list[float]]]:
    return [lines.get_segments()[0].tolist() for lines in ax.collections if isinstance(lines, LineCollection)]


def dots(ax: Axes) -> list[Line2D]:
    """The markers of the means: not the caps of whiskers, no line, no seed."""
    return [line for line in ax.lines if line.get_linestyle() == "None" and line.get_marker() not in ("|", "_", ".")]


def is_hollow(line: Line2D) -> bool:
    return line.get_markerfacecolor() == "white"


def test_effects_stand_at_their_means_and_what_is_not_claimed_is_hollow(ax, records):
    assert plot_effects(ax, effect_values(records, "accuracy")) is ax
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[:4] == ["ope", "cffn", "lsra", "ope × cffn"]
    means = [1, 3, 0, -1, 0, 0, 0]
    assert [line.get_xdata()[0] for line in dots(ax)] == pytest.approx(means)
    hollow = {label for label, line in zip(labels, dots(ax), strict=True) if is_hollow(line)}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["hollow: no difference is claimed"]
    assert hollow == {"lsra", "ope × lsra", "cffn × lsra", "ope × cffn × lsra"}
    ends = [end[0] for whisker in whiskers(ax) for end in whisker]
    assert ends == pytest.approx([mean + side for mean in means for side in (-HALF, HALF)])
    assert dots(ax)[3].get_color() == arm_colour("v1+ope+cffn")
    assert ax.get_xlabel() == "Points of top-1, 95 % interval, n = 6"


def test_one_seed_has_no_whiskers_and_all_is_hollow(ax, records):
    plot_effects(ax, effect_values(records[records["seed"] == 1], "accuracy"))
    assert whiskers(ax) == []
    assert len(dots(ax)) == 7
    assert all(map(is_hollow, dots(ax)))


@pytest.mark.parametrize(
    ("effect", "without", "beside", "words"),
    [
        ("ope:cffn", [50, 52], [54, 54], "Interaction -1.00 points, resolved"),
        ("cffn:lsra", [51, 54], [51, 54], "Interaction +0.00 points, unresolved"),
    ],
)
def test_interaction_lines_are_means_over_the_third_toggle(ax, records, effect, without, beside, words):
    effects = effect_values(records, "accuracy").set_index("effect", drop=False)
    assert plot_interaction(ax, records, effects.loc[effect]) is ax
    toggle, other = effect.split(":")
    lines = {line.get_label(): line for line in ax.lines if len(line.get_xdata()) == 2}
    assert list(lines) == [f"without {other}", f"with {other}"]
    assert list(lines[f"without {other}"].get_ydata()) == pytest.approx(without)
    assert list(lines[f"with {other}"].get_ydata()) == pytest.approx(beside)
    assert lines[f"with {other}"].get_color() == arm_colour(f"v1+{other}")
    assert [label.get_text() for label in ax.get_xticklabels()] == [f"without {toggle}", f"with {toggle}"]
    assert ax.get_xlabel() == words
    seeds = [line for line in ax.lines if line.get_marker() == "."]
    assert [len(line.get_ydata()) for line in seeds] == [6] * 4
    low, high = ax.get_ylim()
    assert low < 49 < 55 < high


def test_the_front_goes_through_what_nothing_beats(ax, records):
    front = ["v1", "v1+lsra"]
    values = tradeoff_values(records).query("cost == 'params'")
    values = values.assign(on_front=values["arm"].isin(front))
    assert plot_tradeoff(ax, values) is ax
    costs = [count_params(build_config("pico", arm, "v2", num_classes=10)) / 1e3 for arm in ARMS]
    line = ax.lines[0]
    assert line.get_drawstyle() == "steps-post"
    assert list(line.get_xdata()) == pytest.approx(sorted((costs[0], costs[3])))
    assert [dot.get_xdata()[0] for dot in dots(ax)] == pytest.approx(costs)
    assert [dot.get_ydata()[0] for dot in dots(ax)] == pytest.approx(list(map(planted, ARMS)))
    assert not any(map(is_hollow, dots(ax)))
    assert ax.get_xlabel() == "Parameters, thousands"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(ARMS)


def test_a_latency_has_the_interval_of_its_ratio(ax, records):
    values = tradeoff_values(records).query("cost == 'macs'")
    values = values.assign(cost="latency_s", cost_value=0.004, cost_low=0.003, cost_high=0.006)
    values.loc[values["arm"] == "v1", ["cost_low", "cost_high"]] = float("nan")
    plot_tradeoff(ax, values)
    ends_of_lines = [ends for lines in ax.collections for ends in lines.get_segments()]
    flat = [ends for ends in ends_of_lines if ends[0][1] == ends[1][1]]
    assert len(flat) == len(ARMS) - 1
    for ends in flat:
        assert [end[0] for end in ends] == pytest.approx([3, 6])


def test_panels_beside_each_other_have_one_scale(tmp_path, write_cell, records):
    for arm in ARMS:
        for seed in range(6):
            cell = replace(CELL.of(arm=arm, base="v1"), conditions=Accuracy(seed=seed))
            result = {"top1": 2 * planted(arm) / 100 - 0.9, "n_eval_images": 1000, "n_train_images": 2000}
            write_cell(tmp_path, cell, result)
    (spec,) = list_figures(load_records(tmp_path), kinds=["effects_accuracy"])
    first, second = spec.draw().axes
    assert first.get_xlim() == second.get_xlim()
    (spec,) = list_figures(load_records(tmp_path).query("base == 'v1'"), kinds=["effects_accuracy"])
    assert spec.title == "What does each toggle do to accuracy? digits, pico, base v1"


def draw_effects(ax: Axes, rows: pd.DataFrame) -> None:
    plot_effects(ax, effect_values(rows, "accuracy"))


def draw_tradeoff(ax: Axes, rows: pd.DataFrame) -> None:
    plot_tradeoff(ax, tradeoff_values(rows).query("cost == 'params'"))


@pytest.mark.parametrize("draw", [draw_effects, draw_tradeoff])
def test_a_plot_refuses_mixed_conditions(ax, records, mixed, draw):
    draw(ax, records)
    with pytest.raises(InputError, match=r"^epochs is mixed, 20, 40; "):
        draw(ax, mixed)


def test_an_interaction_refuses_mixed_records(ax, records, mixed):
    effect = effect_values(records, "accuracy").set_index("effect", drop=False).loc["ope:cffn"]
    with pytest.raises(InputError, match=r"^epochs is mixed, 20, 40; "):
        plot_interaction(ax, mixed, effect)


def test_a_trade_off_is_of_one_cost(ax, records):
    with pytest.raises(InputError, match=r"^cost is mixed, macs, params; "):
        plot_tradeoff(ax, tradeoff_values(records))


def shown_in(spec: FigureSpec) -> list[str]:
    return [panel.conditions["shown"] for panel in spec.panels]


@pytest.mark.slow
def test_the_figures_are_legible(records, find_illegible):
    specs = {spec.name.partition("_")[0]: spec for spec in list_figures(records, kinds=KINDS)}
    assert shown_in(specs["interactions"]) == ["ope × cffn", "ope × lsra", "cffn × lsra"]
    assert shown_in(specs["tradeoff"]) == ["parameters", "MACs"]
    for name, spec in specs.items():
        assert find_illegible(spec) == [], name


def test_costs_that_were_measured_in_two_ways_are_told_apart(tmp_path, write_cell, find_illegible):
    for arm in ARMS:
        write_points(tmp_path, write_cell, arm, [planted(arm), planted(arm) + 1])
        for mode in ("inference", "training"):
            write_cell(tmp_path, replace(CELL.of(arm=arm), conditions=Memory(resolution=32, mode=mode)))
    (spec,) = list_figures(load_records(tmp_path), kinds=["tradeoff"])
    assert shown_in(spec) == ["parameters", "MACs", "peak memory of inference", "peak memory of training"]
    assert find_illegible(spec) == []
