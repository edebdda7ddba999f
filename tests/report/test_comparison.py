"""The comparison as people meet it: its table in every form, and a sentence a toggle with the numbers in it."""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from ablations.analysis.comparison import MEMORY_STEPS, comparison_values
from ablations.analysis.grouping import Group
from ablations.cells import arm_cell
from ablations.cli import main
from ablations.commands.run import print_answer
from ablations.config import ARMS, PAPER_TOGGLES, TOGGLES, arms_of
from ablations.measure import Accuracy, Cost, Memory, Speed
from ablations.records import load_records, write_record
from ablations.report.comparison import COMPARISON, shorten
from ablations.report.contents import FIGURES
from ablations.report.overview import LARGEST, list_answers, list_overviews
from ablations.report.summary import ShownComparison, largest_of_each_kind, show_comparisons
from ablations.report.tables import list_sections, render_latex, render_markdown, render_terminal
from ablations.studies import find_study

WIDTH = 100


@pytest.fixture
def write_model(tmp_path: Path, write_cell: Callable[..., Path]) -> Callable[[int], Path]:
    """`write_model(seeds)` writes every measurement of pico: ope adds 1 point, cffn takes 3, lsra does nothing."""

    def write_all(seeds: int) -> Path:
        for place, arm in enumerate(ARMS):
            of_arm = arm_cell("pico", arm, "v2", Cost(resolution=32), num_classes=10)
            write_cell(tmp_path, of_arm)
            write_cell(tmp_path, arm_cell("pico", arm, "v2", Speed(resolution=32, batch_size=8), num_classes=10))
            for mode, attention in MEMORY_STEPS:
                step = Memory(resolution=64, mode=mode, method="measured")
                write_cell(tmp_path, arm_cell("pico", arm, "v2", step, attention=attention, num_classes=10))
            for seed in range(seeds):
                noise = 0.001 * (-1) ** (place + seed) + 0.00001 * ((place * seed + seed) % 3 - 1)
                top1 = 0.5 + 0.01 * ("ope" in arm) - 0.03 * ("cffn" in arm) + noise
                result = {"top1": top1, "n_eval_images": 100, "n_train_images": 200, "history": []}
                write_cell(
                    tmp_path, replace(arm_cell("pico", arm, "v2", Accuracy()), conditions=Accuracy(seed=seed)), result
                )
        return tmp_path

    return write_all


def shown_of(results: Path) -> ShownComparison:
    (shown,) = show_comparisons(comparison_values(load_records(results)))
    return shown


def test_a_sentence_a_toggle_says_what_was_planted(write_model):
    shown = shown_of(write_model(6))
    assert [each.topic for each in shown.statements] == [f"{TOGGLES[name].title} ({name})" for name in PAPER_TOGGLES]
    sentences = dict(zip(PAPER_TOGGLES, (each.text for each in shown.statements), strict=True))
    # Six values, 0.1 points above or below their mean: a deviation of 0.1 * sqrt(6 / 5) with 5 degrees of freedom.
    half = stats.t.ppf(0.975, 5) * 0.1 / math.sqrt(5)
    assert f"adds 1.00 points of top-1 (95 % interval {1 - half:+.2f} to {1 + half:+.2f}, n = 6" in sentences["ope"]
    assert f"loses 3.00 points of top-1 (95 % interval {-3 - half:+.2f} to {-3 + half:+.2f}, n = 6" in sentences["cffn"]
    assert f"no resolved effect on top-1 (+0.00 points, {-half:+.2f} to {half:+.2f}, n = 6)" in sentences["lsra"]


def test_costs_in_a_sentence_are_those_of_the_table(write_model):
    results = write_model(6)
    shown = shown_of(results)
    row = shown.group.rows.set_index("arm").loc["v1+cffn"]
    text = next(each.text for each in shown.statements if "(cffn)" in each.topic)
    assert f"{row['params_change_percent']:.1f} % more parameters" in text or "more parameters" in text
    assert re.search(r"MACs: [\d.]+ % more at 32 px", text)
    speed, low, high = (row[f"relative_speed_inference{end}"] for end in ("", "_low", "_high"))
    assert f"inference speed: {speed:.2f} ({low:.2f} to {high:.2f}" in text
    assert ("unresolved" in text.partition("inference speed: ")[2]) == (low <= 1 <= high)


@pytest.mark.parametrize(("seeds", "words"), [(1, "values: "), (5, " to ")])
def test_few_seeds_are_exploratory(write_model, seeds, words):
    for each in shown_of(write_model(seeds)).statements:
        assert "exploratory" in each.text
        assert words in each.text
        assert f"n = {seeds} of 6)" in each.text  # as the study of these records declares
        assert " adds " not in each.text
        assert " loses " not in each.text


def test_only_what_was_measured_has_a_column_and_the_rest_is_named(tmp_path, write_cell):
    for arm in ARMS:
        write_cell(tmp_path, arm_cell("pico", arm, "v2", Cost(resolution=32)))
    shown = shown_of(tmp_path)
    headings = [column.heading for column in shown.section.columns]
    assert headings == ["Arm", "Parameters, k", "MACs at 32 px, k"]
    assert "Not measured of this model: memory, speed, accuracy." in shown.section.caption


@pytest.mark.slow
def test_every_form_has_every_cell(write_model, tmp_path, capsys):
    results = write_model(6)
    values = comparison_values(load_records(results))
    (section,) = list_sections(COMPARISON, values)
    cells = [cell for line in section.lines() for cell in line]
    markdown, latex = render_markdown(COMPARISON, values), render_latex(COMPARISON, values)
    assert [cell for cell in cells if cell not in markdown] == []
    assert latex.count(r"\\") == len(ARMS) + 1
    for form in ("markdown", "csv", "latex", "html", "terminal"):
        assert main(["compare", "--results", str(results), "--format", form]) == 0
        out = capsys.readouterr().out
        assert all(arm in out.replace(r"\_", "_") for arm in ARMS)


@pytest.mark.slow
def test_every_form_prints_the_comparisons_that_the_terminal_prints(write_model, write_cell, capsys):
    results = write_model(6)
    for variant in ("b0", "b2"):
        for arm in ARMS:
            write_cell(results, arm_cell(variant, arm, "v2", Cost()))
    shown = show_comparisons(comparison_values(load_records(results)))[0]
    sentence = shown.statements[0].text.partition(";")[0].replace(" %", "")
    for form in ("terminal", "markdown", "csv", "latex", "html"):
        assert main(["compare", "--results", str(results), "--format", form]) == 0
        out = re.sub(r"\s+", " ", capsys.readouterr().out).replace("$-$", "-").replace(" \\%", "").replace(" %", "")
        assert "pico" in out, form
        assert "b2" in out, form
        assert "b0" not in out, form
        assert form == "csv" or (sentence in out and out.count("Conditions: ") == 2), form
        if form == "terminal":
            assert out.startswith(" Which toggle matters most? - Accuracy in base v2: ")
            assert "cffn matters most, -3.00 points (95 interval -3.11 to -2.89; pico, digits)" in out


@pytest.mark.slow
def test_arms_have_the_names_that_are_asked_for_in_every_form(write_model, capsys):
    names = ["--rename", "v1=PVTv1", "v1+ope=PVTv1 + OPE"]
    for form in ("terminal", "markdown", "csv", "latex", "html"):
        assert main(["compare", "--results", str(write_model(6)), "--format", form, *names]) == 0
        out = capsys.readouterr().out
        assert "PVTv1 + OPE" in out, form
        assert "v1+cffn" in out, form
        assert not re.search(r"(?<![\w+/-])v1(\+ope)?(?![\w+/])", out.replace("base v1", "")), form
    assert main(["compare", "--results", str(write_model(6)), "--rename", "v1+opee=A"]) == 2
    assert "did you mean 'v1+ope'" in capsys.readouterr().err


@pytest.fixture
def write_gains(tmp_path: Path, write_cell: Callable[..., Path]) -> Callable[..., Path]:
    """`write_gains(seeds, variant, base, points, noise=0.05, arms=ARMS, n_train_images=200, pool_size=None, **recipe)`
    writes trainings in which an arm has 50 and `points(arm)` points, give or take `noise`."""

    def write(
        seeds: int,
        variant: str,
        base: str,
        points: Callable[[str], float],
        noise: float = 0.05,
        arms: Iterable[str] = ARMS,
        n_train_images: int = 200,
        pool_size: int | None = None,
        **recipe: Any,
    ) -> Path:
        own = {} if pool_size is None else {"pool_size": pool_size}
        for place, arm in enumerate(arms):
            for seed in range(seeds):
                off = noise / 3 * ((7 * place + 11 * seed * seed + 5 * place * seed) % 13 - 6)
                result = {"top1": 0.5 + (points(arm) + off) / 100, "n_eval_images": 100, "history": []}
                cell = arm_cell(variant, arm, base, Accuracy(seed=seed, **recipe), **own)
                write_cell(tmp_path, cell, result | {"n_train_images": n_train_images})
        return tmp_path

    return write


def shown_in(results: Path) -> list[ShownComparison]:
    return show_comparisons(comparison_values(load_records(results)))


def of_ope(arm: str) -> float:
    return 2 * ("ope" in arm)


def of_cffn(arm: str) -> float:
    return 3 * ("cffn" in arm) + ("ope" in arm)


def answers_in(results: Path) -> dict[str, str]:
    return {each.topic: each.text for each in list_answers(shown_in(results))}


@pytest.mark.slow
def test_the_answer_says_of_each_base_which_toggle_matters_most_and_in_how_many_cases(write_gains, write_cell):
    results = write_gains(6, "pico", "v2", of_cffn)
    interval = r"95 % interval \+\d\.\d\d to \+\d\.\d\d"
    alone = rf"cffn matters most, \+[23]\.\d\d points \({interval}; pico, digits\)\."
    (accuracy,) = answers_in(results).items()
    assert accuracy[0] == "Accuracy in base v2"
    assert re.fullmatch(alone, accuracy[1])
    write_gains(6, "nano", "v1", of_ope)
    write_gains(6, "nano", "v2", of_ope)
    answers = answers_in(results)
    one_of_two = rf"\w+ matters most, \+\d\.\d\d points in 1 of 2 trainings \({interval}; (nano|pico), digits\)"
    assert re.match(one_of_two, answers["Accuracy in base v2"])
    other = rf"ope matters most, \+[12]\.\d\d points \({interval}; nano, digits\)\."
    assert re.fullmatch(other, answers["Accuracy in base v1"])
    write_gains(6, "pico", "v1", lambda arm: 2 * of_ope(arm))
    both = r"ope matters most, mean effects from \+[12]\.\d\d to \+[34]\.\d\d points in 2 of 2 trainings\."
    assert re.fullmatch(both, answers_in(results)["Accuracy in base v1"])
    assert list_answers([]) == []


def write_costs(write_cell: Callable[..., str], results: Path, variant: str = "b2", **model: Any) -> None:
    for arm in ARMS:
        for side, macs in ((224, 10), (1024, 200 - 50 * ("lsra" in arm) + 10 * ("ope" in arm))):
            write_cell(
                results, arm_cell(variant, arm, "v2", Cost(resolution=side), **model), {"params": 9, "macs": macs}
            )


def write_speeds(
    write_cell: Callable[..., str],
    results: Path,
    side: int,
    speeds: dict[str, tuple[float, float, float]],
    base: str = "v2",
) -> None:
    """Writes speeds of training relative to v1 with the ends of their intervals, of these arms and of v1."""
    for arm, (ratio, low, high) in {"v1": (1.0, 1.0, 1.0), **speeds}.items():
        result = {
            **{"latency_s": 1.0, "throughput_img_per_s": 8.0, "iqr_over_median": 0.0, "noisy": False},
            **{"samples": [1.0] * 6, "reference_samples": [1.0] * 6},
            **{"relative_speed": ratio, "relative_speed_low": low, "relative_speed_high": high},
        }
        cell = arm_cell("b2", arm, base, Speed(resolution=side, mode="training", repeats=6))
        write_cell(results, cell, result)


CLOSE = {"v1+ope": (0.98, 0.9, 1.1), "v1+cffn": (0.8, 0.7, 0.9), "v1+lsra": (1.1, 1.05, 1.2)}


def test_the_answer_says_which_toggle_matters_most_for_macs_and_speed(write_cell, tmp_path):
    write_costs(write_cell, tmp_path)
    macs = "lsra matters most at 1024 px, 25 % fewer; at 224 px as many (b2, exact)."
    assert answers_in(tmp_path) == {"MACs": macs}
    write_speeds(write_cell, tmp_path, 224, CLOSE)
    assert answers_in(tmp_path)["Training speed"] == (
        "not resolved which matters most: cffn at 224 px, 0.80 (0.70 to 0.90) times v1's; "
        "lsra 1.10 (1.05 to 1.20), ope 0.98 (0.90 to 1.10, unresolved) (b2, cpu)."
    )
    write_speeds(write_cell, tmp_path, 1024, CLOSE | {"v1+lsra": (1.6, 1.5, 1.7)})
    assert answers_in(tmp_path)["Training speed"] == (
        "lsra matters most at 1024 px, 1.60 (1.50 to 1.70) times v1's; cffn 0.80 (0.70 to 0.90), "
        "ope 0.98 (0.90 to 1.10, unresolved); at 224 px lsra 1.10 (1.05 to 1.20) (b2, cpu)."
    )


def test_a_comparison_has_speeds_at_two_sizes_and_its_short_form_one(write_cell, tmp_path):
    write_costs(write_cell, tmp_path)
    write_speeds(write_cell, tmp_path, 224, CLOSE)
    write_speeds(write_cell, tmp_path, 1024, CLOSE | {"v1+lsra": (1.6, 1.5, 1.7)})
    (shown,) = shown_in(tmp_path)
    speeds = [column.heading for column in shown.section.columns if "speed" in column.heading]
    assert speeds == ["Training speed, 224 px, v1 = 1", "Training speed, 1024 px, v1 = 1"]
    (lsra,) = (each.text for each in shown.statements if "(lsra)" in each.topic)
    assert lsra.endswith("training speed: 1.10 (1.05 to 1.20) at 224 px, 1.60 (1.50 to 1.70) at 1024 px.")
    brief, (text,) = shorten(shown.section, [lsra])
    assert text == "as many parameters; MACs: 25 % fewer at 1024 px; training speed: 1.60 (1.50 to 1.70) at 1024 px."
    (speed,) = (column for column in brief.columns if "speed" in column.heading)
    assert speed.heading == "Training speed, 1024 px, v1 = 1"
    assert speed.cells[:4] == ["1", "0.98 (unresolved)", "0.80", "1.60"]
    (costs,) = list_overviews([shown])
    assert costs.columns[-1].heading == "Speed, 1024 px, v1 = 1"
    assert costs.columns[-1].cells[2] == "1.60 (1.50 to 1.70)"


def test_a_size_with_more_toggles_comes_before_a_larger_one(write_cell, tmp_path):
    write_costs(write_cell, tmp_path)
    write_speeds(write_cell, tmp_path, 224, CLOSE)
    write_speeds(write_cell, tmp_path, 1024, {"v1+lsra": (1.6, 1.5, 1.7)})
    assert "cffn at 224 px" in answers_in(tmp_path)["Training speed"]
    (shown,) = shown_in(tmp_path)
    (speed,) = (column for column in shorten(shown.section, [])[0].columns if "speed" in column.heading)
    assert speed.heading == "Training speed, 224 px, v1 = 1"
    assert list_overviews([shown])[0].columns[-1].heading == "Speed, 224 px, v1 = 1"


def test_a_toggle_that_alone_was_timed_matters_neither_most_nor_least(write_cell, tmp_path):
    for arm in ("v1", "v1+lsra"):
        for side in (224, 1024):
            write_cell(tmp_path, arm_cell("b2", arm, "v2", Cost(resolution=side)))
    write_speeds(write_cell, tmp_path, 1024, {"v1+lsra": (1.5, 1.4, 1.6)})
    assert answers_in(tmp_path)["Training speed"] == "lsra at 1024 px, 1.50 (1.40 to 1.60) times v1's (b2, cpu)."


def test_costs_of_arms_that_differ_in_more_than_toggles_are_no_answer(write_cell, tmp_path):
    for arm in ARMS:
        for side in (224, 1024):
            write_cell(tmp_path, arm_cell("b2", arm, "published", Cost(resolution=side)))
    write_speeds(write_cell, tmp_path, 224, CLOSE, base="published")
    assert shown_in(tmp_path)
    assert answers_in(tmp_path) == {}
    assert list_overviews(shown_in(tmp_path)) == []


@pytest.mark.parametrize("method", ["measured", "predicted"])
def test_the_answer_says_which_toggle_matters_most_for_memory_and_if_that_is_predicted(write_cell, tmp_path, method):
    write_costs(write_cell, tmp_path)
    for arm, kernel in product(ARMS, ("fused", "explicit")):
        peak = 100 + (30 if "cffn" in arm else 0) - (60 if "lsra" in arm and kernel == "explicit" else 0)
        cell = arm_cell("b2", arm, "v2", Memory(mode="training", method=method), attention=kernel)
        write_cell(tmp_path, cell, {"peak_memory_bytes": peak, "memory_method": "made up"})
    predicted = ", predicted" if method == "predicted" else ""
    assert answers_in(tmp_path)["Training memory"] == (
        "cffn matters most with fused attention, 30 % more; lsra with explicit attention, 60 % less "
        f"(b2 at 224 px, cpu{predicted})."
    )


def test_costs_are_those_of_what_was_trained_where_nothing_else_was_counted(write_gains, write_cell):
    results = write_gains(6, "pico", "v2", of_cffn, pool_size=2)
    write_costs(write_cell, results, "pico", num_classes=10)
    assert (
        answers_in(results)["MACs"] == "lsra matters most at 1024 px, 25 % fewer; at 32 px 3.0 % fewer (pico, exact)."
    )
    assert len(list_overviews(shown_in(results))) == 1, "its own table has its costs"


@pytest.mark.slow
def test_the_answer_says_what_is_not_told_apart_and_what_claims_nothing(write_gains):
    few = answers_in(write_gains(3, "pico", "v2", of_cffn))
    assert few == {"Accuracy in base v2": "exploratory (pico, digits)."}
    noisy = write_gains(6, "pico", "v2", lambda arm: 0.01 * of_cffn(arm), noise=3)
    assert answers_in(noisy) == {"Accuracy in base v2": "unresolved (pico, digits)."}
    assert LARGEST not in list_overviews(shown_in(noisy))[0].caption
    near = write_gains(6, "pico", "v2", lambda arm: of_ope(arm) + 2.01 * ("cffn" in arm), noise=0.2)
    said = r"(ope|cffn) matters most, .*; not resolved to be smaller: (ope|cffn)\."
    assert re.fullmatch(said, answers_in(near)["Accuracy in base v2"])
    assert not any(any(column.is_best) for column in list_overviews(shown_in(near))[0].columns)


@pytest.mark.slow
def test_the_answer_names_losses_and_what_an_interaction_means(write_gains):
    # ope adds 4 points without cffn and 1 with it, cffn 10 without ope and 7 with it, and lsra takes 2.
    def points(arm: str) -> float:
        return 4 * ("ope" in arm) + 10 * ("cffn" in arm) - 3 * ("ope+cffn" in arm) - 2 * ("lsra" in arm)

    answer = answers_in(write_gains(6, "pico", "v2", points))["Accuracy in base v2"]
    assert re.match(r"cffn matters most, \+8\.[45]\d points \(.*; pico, digits\)", answer)
    assert re.search(r"; lsra loses, -[12]\.\d\d points \(95 % interval -\d\.\d\d to -\d", answer)
    assert "cffn loses" not in answer
    words = re.search(r"In pico, digits, ope adds \+([\d.]+) \(.*\) without cffn, \+([\d.]+) \(.*\) with it\.", answer)
    assert words
    assert [float(each) for each in words.groups()] == [pytest.approx(each, abs=0.1) for each in (4, 1)]
    # The largest effect may be a loss, which is then said once.
    loss = answers_in(write_gains(6, "pico", "v2", lambda arm: -points(arm)))["Accuracy in base v2"]
    assert loss.startswith("cffn matters most, -8.")
    assert "cffn loses" not in loss


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ({"pico": True, "nano": True}, None),
        ({"pico": False, "nano": False}, " Learning rates were tuned nowhere."),
        ({"pico": False, "nano": True}, " Learning rates were tuned in row {nano} only."),
    ],
)
def test_an_overview_says_where_trials_chose_the_learning_rate(write_gains, rates, said):
    write_gains(6, "pico", "v2", of_cffn)
    every = shown_in(write_gains(6, "nano", "v2", of_cffn))
    chosen = [
        replace(each, group=replace(each.group, rows=each.group.rows.assign(has_chosen_rate=rates[variant])))
        for each in every
        for variant in [each.group.conditions["variant"]]
    ]
    (gains,) = list_overviews(chosen)
    rows = {label.split(",")[0]: row for row, label in enumerate(gains.columns[0].cells, start=1)}
    assert ("Learning rates" in gains.caption) == (said is not None)
    assert said is None or said.format(**rows) in gains.caption


def test_overviews_have_what_each_toggle_does_wherever_it_was_trained_and_what_it_costs(write_gains, write_cell):
    results = write_gains(6, "pico", "v2", of_cffn)
    (gains,) = list_overviews(shown_in(results))
    cells = {column.heading: (column.cells[0], column.is_best[0]) for column in gains.columns}
    assert list(cells) == ["Trained", *PAPER_TOGGLES, "n", "Validated on"]
    assert cells["Trained"][0] == "pico, base v2, digits"
    assert [cells[toggle][1] for toggle in PAPER_TOGGLES] == [False, True, False]
    assert cells["cffn"][0].startswith(("+2.9", "+3.0"))
    assert (cells["n"][0], cells["Validated on"][0]) == ("6", "100")
    assert LARGEST in gains.caption
    write_costs(write_cell, results)
    _, costs = list_overviews(shown_in(results))
    assert costs.title == "What each toggle alone costs, beside v1: b2, base v2, stem stride 4, P = 7"
    rows = {line[0]: dict(zip(costs.lines()[0], line, strict=True)) for line in costs.lines()[1:]}
    assert {name: row["MACs, 1024 px"] for name, row in rows.items()} == {
        "ope": "+5.0 %",
        "cffn": "+0.0 %",
        "lsra": "-25.0 %",
    }


def test_overviews_leave_out_what_has_too_few_seeds_where_others_have_enough(write_gains):
    results = write_gains(6, "pico", "v2", of_cffn)
    write_gains(2, "nano", "v2", of_cffn)
    shown = shown_in(results)
    assert list_overviews(shown)[0].columns[0].cells == ["pico, base v2, digits"]
    early = [
        replace(each, group=Group(each.group.conditions, each.group.rows.assign(declared_seeds=10.0))) for each in shown
    ]
    assert len(list_overviews(early)[0].columns[0].cells) == 2


@pytest.mark.slow
def test_overviews_tell_apart_what_was_trained_otherwise(write_gains):
    results = write_gains(6, "pico", "v2", of_cffn)
    write_gains(6, "pico", "v2", of_ope, pool_size=4)
    (gains,) = list_overviews(shown_in(results))
    assert sorted(gains.columns[0].cells) == ["pico, base v2, digits, P = 2", "pico, base v2, digits, P = 4"]
    write_gains(6, "pico", "v1", of_ope, epochs=1)
    (gains,) = list_overviews(shown_in(results))
    assert len({*gains.columns[0].cells}) == 3
    assert any(cell.startswith("pico, base v1, digits, P = 2, 1 epoch") for cell in gains.columns[0].cells)


def test_a_fourth_toggle_has_its_effects_and_interactions_from_the_sixteen_arms(write_gains, fourth_toggle):
    def points(arm: str) -> float:
        on = {*arm.split("+")[1:]}
        return 4 * ("ope" in on) + 6 * (fourth_toggle in on) - 3 * ({"ope", fourth_toggle} <= on)

    results = write_gains(6, "pico", "v2", points, arms=arms_of((*PAPER_TOGGLES, fourth_toggle)))
    answer = answers_in(results)["Accuracy in base v2"]
    (gains,) = list_overviews(shown_in(results))
    said = rf"ope adds \+([\d.]+) \(.*\) without {fourth_toggle}, \+([\d.]+) \(.*\) with it"
    words = re.search(said, answer)
    assert words
    assert [float(each) for each in words.groups()] == [pytest.approx(each, abs=0.1) for each in (4, 1)]
    effects = {column.heading: float(column.cells[0].partition(" ")[0]) for column in gains.columns[1:-2]}
    assert effects["ope"] == pytest.approx(2.5, abs=0.1)
    assert effects[fourth_toggle] == pytest.approx(4.5, abs=0.1)
    assert answer.startswith(f"{fourth_toggle} matters most")
    assert "not resolved" not in answer


def test_names_for_arms_stand_in_the_overviews_too(write_gains, write_cell, capsys):
    results = write_gains(6, "pico", "v2", of_cffn)
    for arm in ARMS:
        for side in (224, 1024):
            macs = side - 50 * ("lsra" in arm)
            write_cell(results, arm_cell("b2", arm, "v2", Cost(resolution=side)), {"params": 9, "macs": macs})
    assert main(["compare", "--results", str(results), "--rename", "v1=PVTv1"]) == 0
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "What each toggle alone costs, beside PVTv1: b2" in out
    assert "Bold" not in out.partition("pico, base v2, stem")[0], "a terminal shows nothing in bold"


def test_the_terminal_folds_columns_that_do_not_fit(write_model):
    section = shown_of(write_model(6)).section
    text = render_terminal(section, WIDTH)
    assert max(map(len, text.splitlines())) <= WIDTH
    for column in section.columns:
        assert all(cell in text for cell in (*column.heading.split(), *column.cells))
    blocks = text.split("\n\n")
    assert len(blocks) > 1
    assert all(re.search(r"^Arm .*\nv1 ", block, re.MULTILINE) for block in blocks)


@pytest.mark.slow
def test_the_end_of_quick_fits_a_screen(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    cells = find_study("quick").cells()
    print_answer(cells, load_records(Path(__file__).parents[2] / "results"))
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert len(lines) + 2 <= 50  # how many cells were measured, and where the page is
    assert max(map(len, lines)) <= 80
    assert all(out.count(f"\n{arm} ") == 2 for arm in ARMS)
    assert all(f"{TOGGLES[name].title} ({name}): " in out for name in PAPER_TOGGLES)
    assert all(row in out for row in ("PVTv1-Small", "+ OPE", "++ CFFN (PVTv2-B2)", "+++ LSRA (PVTv2-B2-Li)"))


def test_the_largest_of_each_kind_comes_first(write_model, write_cell):
    results = write_model(6)
    for arm in ARMS:
        write_cell(results, arm_cell("b0", arm, "v2", Cost()))
        write_cell(results, arm_cell("b2", arm, "v2", Cost()))
    shown = largest_of_each_kind(show_comparisons(comparison_values(load_records(results))))
    assert [each.group.conditions["variant"] for each in shown] == ["pico", "b2"]


@pytest.mark.slow
def test_the_rate_that_trials_chose_comes_first_and_what_is_not_whole_after_it(write_model, write_cell):
    results = write_model(6)  # at the default rate, 0.003

    def write(arm: str, top1: float, **conditions: Any) -> None:
        result = {"top1": top1, "n_eval_images": 100, "n_train_images": 200, "history": []}
        write_cell(results, arm_cell("pico", arm, "v2", Accuracy(**conditions)), result)

    def rates(**declared: float) -> list[float]:
        values = comparison_values(load_records(results))
        values["declared_seeds"] = values["base_lr"].map({0.006: declared.get("faster")})
        shown = show_comparisons(values)
        found = [each.group.conditions["base_lr"] for each in shown]
        titles = [each.section.title for each in shown]
        assert all(title.endswith(f", learning rate {rate:g}") for title, rate in zip(titles, found, strict=True))
        return found

    for arm, seed in product(ARMS, range(6)):
        write(arm, 0.5 + 0.001 * seed, seed=seed, base_lr=0.006)
    assert rates() == [0.003, 0.006]
    for rate, top1 in ((0.003, 0.3), (0.006, 0.4)):
        write("v1", top1, seed=100, base_lr=rate, tuning_images=50)
    assert rates() == rates(faster=6) == [0.006, 0.003]
    assert rates(faster=7) == [0.003, 0.006]


def test_compare_refuses_what_it_has_no_records_of(tmp_path, capsys, write_model):
    assert main(["compare", "--results", str(tmp_path / "none")]) == 2
    assert "results" in capsys.readouterr().err
    assert main(["compare", "imagenette", "--results", str(write_model(1))]) == 2
    assert "imagenette" in capsys.readouterr().err


def test_ap_and_miou_stand_in_the_comparison_of_their_model(dense_records, tmp_path):
    accuracy = {"top1": 0.8, "eval_loss": 0.5, "n_eval_images": 100, "n_train_images": 1000, "history": []}
    for seed in range(2):
        for arm in ("v1", "v1+ope+cffn"):
            cell = arm_cell("nano", arm, "v2", Accuracy(seed=seed), pool_size=4)
            write_record(
                tmp_path,
                cell,
                study="mine",
                result=accuracy | {"top1": 0.8 + 0.01 * seed},
                failure=None,
                environment={"device_name": "Imaginary CPU", "torch": "2.8.0", "threads": 1, "commit": "0123abc"},
                started="2026-01-01T00:00:00+00:00",
                duration_s=9.0,
            )
    values = comparison_values(load_records(tmp_path)).set_index("arm")
    assert values.loc["v1", "ap_mean"] == pytest.approx(0.325)
    assert values.loc["v1+ope+cffn", "miou_mean"] == pytest.approx(0.3775)
    assert values["ap_of"].iloc[0].startswith("detection, ")
    text = render_markdown(COMPARISON, values.reset_index())
    assert "mIoU, %" in text
    assert "AP, %" in text
    score = re.search(r"\| (32\.50 \(.*?, n = (\d)\)) \|", text)
    assert score is not None
    assert int(score[2]) == values.loc["v1", "ap_n"] > 1


def test_the_figure_of_costs_has_a_bar_for_each_toggle_and_cost_and_times_with_their_intervals(write_cell, tmp_path):
    write_costs(write_cell, tmp_path)
    write_speeds(write_cell, tmp_path, 1024, {"v1+cffn": (0.8, 0.5, 1.0), "v1+lsra": (1.25, 1.0, 2.0)})
    (spec,) = FIGURES["toggle_costs"](load_records(tmp_path))
    assert spec.title == "What does each change alone cost? b2, base v2"
    (ax,) = spec.draw().axes
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "Parameters",
        "MACs, 224 px",
        "MACs, 1024 px",
        "Training time, 1024 px, cpu",
    ]
    texts = [text.get_text() for text in ax.texts]
    nothing = ["+0.0 %"] * 3
    assert texts == [*nothing, *nothing, "+5.0 %", "+0.0 %", "-25.0 %", "+25.0 %", "-20.0 %"]
    ends = [[float(end) for end in line.get_xdata()] for line in ax.lines[9:11]]
    assert ends == [[0, 100], [-50, 0]]
    assert ax.get_legend().get_texts()[0].get_text() == "ope: Overlapping patch embedding"


def test_the_figure_of_costs_leaves_out_a_base_in_which_arms_differ_in_more_than_toggles(write_cell, tmp_path):
    for arm in ARMS:
        write_cell(tmp_path, arm_cell("b2", arm, "published", Cost()))
    assert FIGURES["toggle_costs"](load_records(tmp_path)) == []
