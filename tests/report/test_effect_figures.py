"""The plots of accuracy: what they show of numbers that are worked out here."""

from dataclasses import replace

import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from ablations.config import ARMS
from ablations.design import Accuracy, Cell, Memory
from ablations.errors import InputError
from ablations.records import load_records
from ablations.report import effect_figures
from ablations.report.build import figure_digest, list_figures
from ablations.report.cumulative_accuracy import cumulative_values
from ablations.report.effect_values import effect_values
from ablations.report.figures import COLOURS
from ablations.report.tradeoffs import tradeoff_values
from ablations.report.values import accuracy_values

CELL = Cell(variant="pico", arm="v1", base="v2", conditions=Accuracy())


@pytest.fixture
def ax() -> Axes:
    return Figure().add_subplot()


def history(*losses: float) -> list[dict[str, float]]:
    return [{"epoch": epoch, "loss": loss} for epoch, loss in enumerate(losses, start=1)]


def points(arm: str, seed: int) -> float:
    """ope adds 2 points, cffn 4, both together 2 less; seeds differ, and by their number where there is linear SRA."""
    ope, cffn, lsra = (change in arm.split("+") for change in ("ope", "cffn", "lsra"))
    return 50 + 2 * ope + 4 * cffn - 2 * ope * cffn + seed + 0.1 * seed * lsra


@pytest.fixture
def records(tmp_path, write_cell) -> pd.DataFrame:
    """Eight arms and three seeds, two epochs."""
    for arm in ARMS:
        for seed in (-1, 0, 1):
            result = {
                "top1": points(arm, seed) / 100,
                "history": history(2 + 0.1 * seed, 1 + 0.2 * seed),
                "n_eval_images": 1000,
                "n_train_images": 2000,
            }
            write_cell(tmp_path, replace(CELL, arm=arm, conditions=Accuracy(seed=seed + 1)), result)
    return load_records(tmp_path)


def whiskers(ax: Axes) -> list[list[list[float]]]:
    return [lines.get_segments()[0].tolist() for lines in ax.collections if isinstance(lines, LineCollection)]


def is_hollow(line) -> bool:
    return line.get_markerfacecolor() == "white"


def dots(ax: Axes) -> list:
    """The markers of the means: not the caps of whiskers, no line, no seed."""
    return [line for line in ax.lines if line.get_linestyle() == "None" and line.get_marker() not in ("|", "_", ".")]


def test_effects_stand_at_their_means_and_unresolved_ones_are_hollow(ax, records):
    values = effect_values(records, "accuracy")
    assert effect_figures.plot_effects(ax, values) is ax
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[:4] == ["ope", "cffn", "lsra", "ope x cffn"]
    means = {label: line.get_xdata()[0] for label, line in zip(labels, dots(ax), strict=True)}
    assert [means[effect] for effect in ("ope", "cffn", "ope x cffn")] == pytest.approx([1, 3, -1])
    hollow = {label for label, line in zip(labels, dots(ax), strict=True) if is_hollow(line)}
    assert hollow == {"lsra", "ope x lsra", "cffn x lsra", "ope x cffn x lsra"}
    ends = [[end[0] for end in whisker] for whisker in whiskers(ax)]
    assert ends == pytest.approx(100 * values[["top1_effect_low", "top1_effect_high"]].to_numpy())
    assert dots(ax)[3].get_color() == COLOURS["v1+ope+cffn"]


def test_one_seed_has_no_whiskers_and_all_is_hollow(ax, records):
    effect_figures.plot_effects(ax, effect_values(records[records["seed"] == 0], "accuracy"))
    assert whiskers(ax) == []
    assert len(dots(ax)) == 7
    assert all(map(is_hollow, dots(ax)))


@pytest.mark.parametrize(
    ("pair", "without", "beside", "words"),
    [
        (("ope", "cffn"), [50, 52], [54, 54], "Interaction -1.00 points"),
        (("cffn", "lsra"), [51, 54], [51, 54], "Interaction +0.00 points, unresolved"),
    ],
)
def test_interaction_lines_are_means_over_the_third_change(ax, records, pair, without, beside, words):
    effects = effect_values(records, "accuracy")
    assert effect_figures.plot_interaction(ax, records, effects, *pair) is ax
    lines = {line.get_label(): line for line in ax.lines if len(line.get_xdata()) == 2}
    assert list(lines) == [f"without {pair[1]}", f"with {pair[1]}"]
    assert list(lines[f"without {pair[1]}"].get_ydata()) == pytest.approx(without)
    assert list(lines[f"with {pair[1]}"].get_ydata()) == pytest.approx(beside)
    assert lines[f"with {pair[1]}"].get_color() == COLOURS[f"v1+{pair[1]}"]
    assert [label.get_text() for label in ax.get_xticklabels()] == [f"without {pair[0]}", f"with {pair[0]}"]
    assert ax.get_xlabel() == words
    seeds = [line for line in ax.lines if line.get_marker() == "."]
    assert [len(line.get_ydata()) for line in seeds] == [3] * 4
    low, high = ax.get_ylim()
    assert low < 49 < 55 < high


def test_the_cumulative_has_costs_beside_its_steps(ax, records):
    values = cumulative_values(records)
    assert effect_figures.plot_cumulative(ax, values) is ax
    assert [text.get_text() for text in ax.texts] == [
        *("50.00", "52.00 (+2.00, unresolved)", "54.00 (+2.00, unresolved)", "54.00 (+0.00, unresolved)")
    ]
    labels = [label.get_text().splitlines() for label in ax.get_yticklabels()]
    assert labels[0] == ["v1", f"{values['params'][0] / 1e6:.5f} M params", f"{values['macs'][0] / 1e9:.7f} G MACs"]
    assert [label[0] for label in labels] == ["v1", "v1+ope", "v1+ope+cffn", "v1+ope+cffn+lsra"]
    assert list(ax.lines[0].get_xdata()) == pytest.approx([50, 52, 54, 54])


def test_a_resolved_step_is_not_called_unresolved(ax, records):
    values = cumulative_values(records).assign(top1_step_resolved=True)
    effect_figures.plot_cumulative(ax, values)
    assert [text.get_text() for text in ax.texts][1] == "52.00 (+2.00)"


def test_the_front_goes_through_what_nothing_beats(ax, records):
    values = tradeoff_values(records)
    values = values[values["cost"] == "params"]
    accuracies = accuracy_values(records)[["arm", "top1_low", "top1_high"]]
    values = values.merge(accuracies, on="arm").assign(on_front=lambda rows: rows["arm"].isin(["v1", "v1+lsra"]))
    assert effect_figures.plot_tradeoff(ax, values) is ax
    costs = values.set_index("arm")["cost_value"] / 1e6
    front = ax.lines[0]
    assert front.get_drawstyle() == "steps-post"
    assert list(front.get_xdata()) == sorted([costs["v1"], costs["v1+lsra"]])
    assert [line.get_xdata()[0] for line in dots(ax)] == pytest.approx(costs.tolist())
    assert [is_hollow(line) for line in dots(ax)] == [arm not in ("v1", "v1+lsra") for arm in values["arm"]]
    assert ax.get_xlabel() == "Parameters, M"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(ARMS)


def test_learning_curves_are_means_within_bands(ax, records):
    assert effect_figures.plot_learning_curves(ax, records) is ax
    assert [line.get_label() for line in ax.lines] == list(ARMS)
    assert list(ax.lines[0].get_xdata()) == [1, 2]
    assert list(ax.lines[0].get_ydata()) == pytest.approx([2, 1])
    assert len(ax.collections) == len(ARMS)
    ends = ax.collections[0].get_paths()[0].vertices
    assert {(round(x), round(y, 6)) for x, y in ends} == {(1, 1.9), (1, 2.1), (2, 0.8), (2, 1.2)}


def test_one_seed_is_a_line_without_a_band(ax, records):
    effect_figures.plot_learning_curves(ax, records[records["seed"] == 0])
    assert len(ax.lines) == len(ARMS)
    assert len(ax.collections) == 0


def write_top1_by_epoch(results, write_cell, by_epoch, **conditions):
    """Writes a record with top-1 after each epoch; that of the last is the record's own."""
    entries = history(*[1.0] * len(by_epoch))
    for entry, top1 in zip(entries[:-1], by_epoch, strict=False):
        if top1 is not None:
            entry["top1"] = top1
    result = {"top1": by_epoch[-1], "history": entries, "n_eval_images": 1000, "n_train_images": 2000}
    write_cell(results, replace(CELL, conditions=Accuracy(epochs=len(by_epoch), **conditions)), result)


def test_accuracy_by_epoch_ends_with_the_record_s_own(ax, tmp_path, write_cell, find_illegible):
    write_top1_by_epoch(tmp_path, write_cell, (0.2, 0.4, 0.5), eval_every=1, seed=0)
    write_top1_by_epoch(tmp_path, write_cell, (0.4, 0.4, 0.7), eval_every=1, seed=1)
    records = load_records(tmp_path)
    assert effect_figures.plot_accuracy_curves(ax, records) is ax
    assert list(ax.lines[0].get_xdata()) == [1, 2, 3]
    assert list(ax.lines[0].get_ydata()) == pytest.approx([30, 40, 60])
    ends = {(round(x), round(y, 6)) for x, y in ax.collections[0].get_paths()[0].vertices}
    assert ends == {(1, 20), (1, 40), (2, 40), (3, 50), (3, 70)}
    assert ax.get_ylabel() == "Top-1, %, on validation images"
    (sheet,) = (sheet for sheet in list_figures(records) if sheet.name == "accuracy_by_epoch_digits_pico_v2")
    assert find_illegible(sheet) == []


def test_accuracy_by_epoch_is_of_the_epochs_that_were_evaluated(tmp_path, write_cell):
    by_epoch = [None if epoch % 2 else epoch / 10 for epoch in range(1, 5)]
    write_top1_by_epoch(tmp_path, write_cell, [*by_epoch, 0.5], eval_every=2)
    (record,) = (record for _, record in load_records(tmp_path).iterrows())
    assert effect_figures.accuracy_curve(record).to_dict() == {2: 0.2, 4: 0.4, 5: 0.5}


def test_accuracy_at_the_end_alone_is_no_curve(records):
    assert not any("by_epoch" in sheet.name for sheet in list_figures(records))


@pytest.fixture
def mixed(tmp_path, write_cell, records) -> pd.DataFrame:
    """The records, and the same of twice as many epochs."""
    for (_, record), arm in zip(records.iterrows(), records["arm"], strict=True):
        conditions = Accuracy(seed=record["seed"], epochs=40)
        names = ("top1", "history", "n_eval_images", "n_train_images")
        write_cell(tmp_path, replace(CELL, arm=arm, conditions=conditions), {name: record[name] for name in names})
    return load_records(tmp_path)


def draw_effects(ax, rows):
    effect_figures.plot_effects(ax, effect_values(rows, "accuracy"))


def draw_cumulative(ax, rows):
    effect_figures.plot_cumulative(ax, cumulative_values(rows))


def draw_tradeoff(ax, rows):
    values = tradeoff_values(rows)
    effect_figures.plot_tradeoff(ax, values[values["cost"] == "params"].assign(top1_low=0.4, top1_high=0.7))


@pytest.mark.parametrize(
    "draw",
    [draw_effects, draw_cumulative, draw_tradeoff, effect_figures.plot_learning_curves],
    ids=["effects", "cumulative", "trade-off", "learning"],
)
def test_a_plot_refuses_mixed_conditions(ax, records, mixed, draw):
    draw(ax, records)
    with pytest.raises(InputError, match=r"^epochs is mixed, 20, 40; "):
        draw(ax, mixed)


def test_accuracy_by_epoch_refuses_mixed_conditions(ax, tmp_path, write_cell):
    for batch_size in (64, 32):
        write_top1_by_epoch(tmp_path, write_cell, (0.2, 0.4), eval_every=1, batch_size=batch_size)
    with pytest.raises(InputError, match=r"^batch_size is mixed, 32, 64; "):
        effect_figures.plot_accuracy_curves(ax, load_records(tmp_path))


def test_an_interaction_refuses_mixed_records_and_mixed_effects(ax, records, mixed):
    own, both = (effect_values(rows, "accuracy") for rows in (records, mixed))
    for rows, effects in ((mixed, own), (records, both)):
        with pytest.raises(InputError, match=r"^epochs is mixed, 20, 40; "):
            effect_figures.plot_interaction(ax, rows, effects, "ope", "cffn")


def test_a_trade_off_is_of_one_cost(ax, records):
    with pytest.raises(InputError, match=r"^cost is mixed, macs, params; "):
        effect_figures.plot_tradeoff(ax, tradeoff_values(records))


def test_a_band_is_part_of_what_a_figure_shows():
    digests = set()
    for width in (1, 2):
        figure = Figure()
        ax = figure.add_subplot()
        ax.fill_between([1, 2], [0, 0], [width, 1])
        ax.set_ylim(0, 3)
        digests.add(figure_digest(figure))
    assert len(digests) == 2


def test_the_sheets_of_accuracy_are_legible(records, find_illegible):
    sheets = {sheet.name.partition("_")[0]: sheet for sheet in list_figures(records)}
    assert list(sheets) == ["accuracy", "effects", "cumulative", "tradeoff", "learning"]
    assert [panel.conditions["shown"] for panel in sheets["effects"].panels] == [
        *("effects", "ope x cffn", "ope x lsra", "cffn x lsra")
    ]
    assert [panel.conditions["shown"] for panel in sheets["tradeoff"].panels] == ["parameters", "MACs"]
    for name, sheet in sheets.items():
        assert find_illegible(sheet) == [], name


def test_costs_that_were_measured_in_two_ways_are_told_apart(tmp_path, write_cell, find_illegible):
    for arm in ARMS:
        for seed in (0, 1):
            write_cell(tmp_path, replace(CELL, arm=arm, conditions=Accuracy(seed=seed)))
        for mode in ("inference", "training"):
            write_cell(tmp_path, replace(CELL, arm=arm, conditions=Memory(resolution=32, mode=mode)))
    (sheet,) = (sheet for sheet in list_figures(load_records(tmp_path)) if sheet.name.startswith("tradeoff"))
    shown = [(panel.conditions["shown"], panel.conditions["measured_as"].split(", ")[:2]) for panel in sheet.panels]
    assert shown == [
        ("parameters", ["counted"]),
        ("MACs", ["counted"]),
        ("peak memory", ["1,000 classes", "inference"]),
        ("peak memory", ["1,000 classes", "training"]),
    ]
    assert find_illegible(sheet) == []


def test_one_epoch_is_no_curve_and_two_arms_no_effects(tmp_path, write_cell):
    for arm in ("v1", "v1+ope"):
        write_cell(tmp_path, replace(CELL, arm=arm, conditions=Accuracy(seed=0)))
    assert [sheet.name for sheet in list_figures(load_records(tmp_path))] == [
        *("accuracy_digits_pico_v2", "cumulative_digits_pico_v2")
    ]
