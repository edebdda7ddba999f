"""The report page: one valid file that loads nothing, holds everything, and says what the records say."""

import math
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
from scipy import stats

from ablations.analysis.grouping import AXES
from ablations.cells import arm_cell
from ablations.config import ARMS, CONFOUNDERS, PAPER_TOGGLES, TOGGLES, PVTConfig
from ablations.measure import Accuracy, Cost
from ablations.records import field_docstrings, load_records, write_record
from ablations.report.build import TABLES, list_figures
from ablations.report.page import CHAPTERS, write_page
from ablations.report.summary import (
    Answer,
    Comparison,
    Statement,
    Tables,
    list_comparisons,
    list_statements,
    list_tallies,
)
from ablations.report.tables import list_sections

CELL = arm_cell(variant="pico", arm="v1", base="v2", conditions=Accuracy())

VOID = {"meta", "link", "img"}


class Page(HTMLParser):
    """What a page is made of; reading fails where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.words: list[str] = []
        self.tags: Counter[str] = Counter()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        assert len(named) == len(attrs), f"an attribute of {tag} stands twice"
        self.tags[tag] += 1
        if "id" in named:
            self.ids.append(str(named["id"]))
        if tag == "a":
            self.links.append(str(named["href"]))
        else:
            self.loaded += [str(named[name]) for name in ("src", "href", "srcset", "data") if name in named]
        if tag not in VOID:
            self.open.append(tag)
        match tag:
            case "table":
                self.tables.append([])
            case "tr":
                self.tables[-1].append([])
            case "td" | "th":
                self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"style", "script"} & set(self.open):
            return
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module")
def text(quick_results: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(quick_results, path)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_ids_are_unique_and_every_link_within_has_a_target(page: Page) -> None:
    assert [name for name, count in Counter(page.ids).items() if count > 1] == []
    within = [link.removeprefix("#") for link in page.links if link.startswith("#")]
    assert len(within) > 20
    assert set(within) <= set(page.ids)
    headed = {name for name in page.ids if name != "contents"}
    assert headed <= set(within), "a section that the contents lack"


def test_nothing_is_loaded_from_anywhere(page: Page, text: str) -> None:
    assert len(page.loaded) > 5
    assert [source[:60] for source in page.loaded if not source.startswith("data:")] == []
    code = "".join(re.findall(r"<(?:style|script)>(.*?)</", text, flags=re.DOTALL))
    assert len(code) > 1000
    assert re.findall(r"url\(|@import|https?:|fetch\(|XMLHttp", code) == []
    assert {link.split("/")[2] for link in page.links if not link.startswith("#")} == {"arxiv.org"}
    assert len(text) < 10_000_000


def test_every_table_and_figure_is_there(page: Page, quick_records: pd.DataFrame) -> None:
    specs = list_figures(quick_records)
    assert page.tags["img"] == len(specs) > 5
    assert {f"figure-{spec.name}" for spec in specs} <= set(page.ids)
    for table in TABLES:
        values = table.values(quick_records)
        assert (f"table-{table.name}" in page.ids) == (not values.empty)
        for section in list_sections(table, values) if not values.empty else ():
            assert [[cell.replace("`", "") for cell in line] for line in section.lines] in page.tables


def test_every_measurement_has_a_chapter_and_figures_stand_in_their_own(text: str) -> None:
    assert set(AXES) <= set(CHAPTERS)
    place = {name: text.index(f'<section id="{name}">') for name in ("accuracy", "cost", "memory", "speed")}
    for kind, chapter in (("accuracy", "accuracy"), ("cost", "cost"), ("memory", "memory"), ("speed", "speed")):
        own = next(found.start() for found in re.finditer(f'<section id="figure-{kind}_', text))
        assert max((start, name) for name, start in place.items() if start < own)[1] == chapter


def test_the_design_names_every_toggle_arm_confounder_and_machine(page: Page) -> None:
    meanings = field_docstrings(PVTConfig)
    rows = [row for table in page.tables for row in table]
    for name in PAPER_TOGGLES:
        assert [name, TOGGLES[name].title] in rows
    for name in CONFOUNDERS:
        assert [name, meanings[name].replace("`", "")] in [row[:2] for row in rows]
    assert ["v1+ope+cffn", "on", "on", "off", "3"] in rows
    assert ["v1+cffn", "off", "on", "off", "-"] in rows
    assert [row[2:] for row in rows if row[0] == "pooling"] == [
        ["average; class_token in v1", "class_token", "average"]
    ]
    provenance = {row[0]: row for row in rows if "Imaginary CPU" in row}
    assert set(provenance) == {"cost", "memory", "speed", "accuracy"}
    assert provenance["cost"][4:7] == ["2.8.0", "0123abc", "2026-01-02"]


def write_trained(results: Path, *, seeds: int = 6) -> None:
    """Eight arms: ope adds 1 point, cffn 3, lsra nothing; what a seed has more of 0.1 points, the next has less.

    Each main effect is then 0.1 points above or below what was planted, by turns. The study declares no seeds.
    """
    for place, arm in enumerate(ARMS):
        for seed in range(seeds):
            gain = 0.01 * ("ope" in arm) + 0.03 * ("cffn" in arm)
            top1 = 0.5 + gain + 0.001 * (-1) ** (place + seed)
            write_record(
                results,
                replace(CELL.of(arm=arm), conditions=Accuracy(seed=seed)),
                study="planted",
                result={"top1": top1, "n_eval_images": 100, "n_train_images": 200, "history": []},
                failure=None,
                environment={"device_name": "Imaginary CPU", "threads": 2},
                started="2026-01-02T03:04:05+00:00",
                duration_s=1.5,
            )


def tables_of(results: Path) -> Tables:
    records = load_records(results)
    return {table: values for table in TABLES if not (values := table.values(records)).empty}


def test_planted_effects_are_what_the_page_says(tmp_path):
    write_trained(tmp_path)
    # Six values, 0.1 above or below their mean: a deviation of 0.1 * sqrt(6 / 5) with 5 degrees of freedom.
    half = stats.t.ppf(0.975, 5) * 0.1 / math.sqrt(5)
    tables = tables_of(tmp_path)
    (comparison,) = list_comparisons(tables)
    assert (comparison.what, comparison.basis) == ("Top-1, points", "n = 6 seeds")
    ope, cffn, lsra = list(comparison.answers.values())
    assert (ope.text, ope.tone) == (f"+1.00 ({1 - half:+.2f} to {1 + half:+.2f})", "gain")
    assert (cffn.text, cffn.tone) == (f"+3.00 ({3 - half:+.2f} to {3 + half:+.2f})", "gain")
    assert (lsra.text, lsra.tone) == (f"+0.00 ({-half:+.2f} to {half:+.2f}; unresolved)", "unresolved")
    (tally,) = list_tallies([comparison])
    assert tally.text == "cffn better in 1 of 1 (+3.00); ope better in 1 of 1 (+1.00); lsra not claimed in 1 of 1."
    accuracy = next(statement.text for statement in list_statements(tables) if statement.topic == "Accuracy")
    assert accuracy == (
        "Resolved by Holm's correction for all effects, largest first, in points of top-1 (95 % interval): "
        f"cffn {cffn.text}, ope {ope.text}. Unresolved: lsra +0.00 ({-half:+.2f} to {half:+.2f}). "
        "No interaction is resolved."
    )


@pytest.mark.parametrize(
    ("seeds", "basis", "effects"),
    [
        (1, "n = 1 seed", ("cffn +3.10 (values: +3.10)", "ope +0.90 (values: +0.90)", "lsra -0.10 (values: -0.10)")),
        # An interval, however narrow, and by its p resolved: of five seeds it claims nothing.
        (
            5,
            "n = 5 seeds",
            ("cffn +3.02 (+2.88 to +3.16)", "ope +0.98 (+0.84 to +1.12)", "lsra -0.02 (-0.16 to +0.12)"),
        ),
    ],
)
def test_few_seeds_claim_nothing(tmp_path, seeds, basis, effects):
    write_trained(tmp_path, seeds=seeds)
    tables = tables_of(tmp_path)
    (comparison,) = list_comparisons(tables)
    assert comparison.basis == basis
    assert {answer.tone for answer in comparison.answers.values()} == {"unresolved"}
    assert all(answer.text.endswith("; exploratory)") for answer in comparison.answers.values())
    accuracy = next(statement for statement in list_statements(tables) if statement.topic == "Accuracy")
    assert accuracy.text == (f"Exploratory, too few seeds to claim anything: {', '.join(effects)}, in points of top-1.")


def test_costs_are_exact_and_of_the_largest_variant(tmp_path, write_cell):
    for variant in ("pico", "nano"):
        for arm in ARMS:
            for resolution in (64, 96, 128):
                write_cell(
                    tmp_path, arm_cell(variant=variant, arm=arm, base="v2", conditions=Cost(resolution=resolution))
                )
    tables = tables_of(tmp_path)
    comparisons = list_comparisons(tables)
    assert [(comparison.what, comparison.where) for comparison in comparisons] == [
        ("Parameters, % of v1's", "nano, base v2, classifier, toggles ope, cffn, lsra"),
        ("MACs, % of v1's", "nano, base v2, classifier, toggles ope, cffn, lsra, 64 px"),
        ("MACs, % of v1's", "nano, base v2, classifier, toggles ope, cffn, lsra, 128 px"),
    ]
    params = load_records(tmp_path).query("variant == 'nano'").drop_duplicates("arm").set_index("arm")["params"]
    expected = [100 * (params[arm] / params["v1"] - 1) for arm in ("v1+ope", "v1+cffn", "v1+lsra")]
    assert [answer.text for answer in comparisons[0].answers.values()] == [f"{percent:+.1f} %" for percent in expected]
    assert [answer.tone for answer in comparisons[0].answers.values()] == ["loss", "loss", "gain"]


def test_speed_is_of_v1_with_one_toggle_and_says_what_is_noisy(quick_results, quick_records):
    rows = [comparison for comparison in list_comparisons(tables_of(quick_results)) if "Speed" in comparison.what]
    timed = quick_records.query("measurement == 'speed'")
    assert len(rows) == len(timed.groupby(["mode", "resolution"])) > 1
    for comparison in rows:
        assert ["noisy" in answer.text for answer in comparison.answers.values()] == [
            True,
            False,
            False,
        ]  # made up so
        for answer in comparison.answers.values():
            low, high = map(float, re.findall(r"\d\.\d+", answer.text)[1:])
            expected = "unresolved" if low <= 1 <= high else "loss" if high < 1 else "gain"
            assert answer.tone == expected


def test_tallies_count_directions_and_put_the_largest_first():
    def answer(value: float, tone: str) -> Answer:
        return Answer(f"{value:+}", tone, value, f"{value:+}")  # type: ignore[arg-type]

    none, open_ = Answer("+0.0 %", "none", 0, "+0.0 %"), Answer("?", "unresolved")
    comparisons = [
        Comparison(
            "Memory",
            "small",
            "exact",
            dict(zip(PAPER_TOGGLES, [answer(2.0, "loss"), none, answer(-9.0, "gain")], strict=True)),
        ),
        Comparison(
            "Memory",
            "large",
            "exact",
            dict(zip(PAPER_TOGGLES, [answer(-1.0, "gain"), none, answer(-5.0, "gain")], strict=True)),
        ),
        Comparison(
            "Speed", "", "n = 3 steps", dict(zip(PAPER_TOGGLES, [open_, open_, Answer("-", "unknown")], strict=True))
        ),
    ]
    assert list_tallies(comparisons) == [
        Statement(
            "Memory",
            "exact",
            "lsra better in 2 of 2 (-9.0 to -5.0); ope better in 1 of 2 (-1.0), worse in 1 of 2 (+2.0); "
            "cffn no change in 2 of 2.",
        ),
        Statement(
            "Speed",
            "n = 3 steps",
            "ope not claimed in 1 of 1; cffn not claimed in 1 of 1; lsra not measured in 1 of 1.",
        ),
    ]


def test_the_best_of_a_column_is_bold_and_that_is_said(tmp_path):
    write_trained(tmp_path)
    write_page(tmp_path, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    part = text[text.index('<section id="table-accuracy">') :]
    part = part[: part.index("</section>")]
    # Both arms with ope and cffn reach 54 %, as shown.
    assert re.findall(r"<td><strong>(.*?)</strong></td>", part) == ["54.00", "54.00"]
    assert part.count("Bold: the best of a column as it is shown.") == 1


def test_a_recipe_that_differs_is_named_where_it_matters(tmp_path, write_cell):
    for mixup in (0.0, 0.8):
        for arm in ARMS:
            for seed in (0, 1):
                write_cell(tmp_path, replace(CELL.of(arm=arm), conditions=Accuracy(seed=seed, mixup=mixup)))
    tables = tables_of(tmp_path)
    comparisons = list_comparisons(tables)
    assert [comparison.basis for comparison in comparisons] == ["n = 2 of 3 seeds"] * 2  # as `quick` declares
    assert [comparison.where for comparison in comparisons] == [
        "digits, pico, base v2, toggles ope, cffn, lsra, mixup 0",
        "digits, pico, base v2, toggles ope, cffn, lsra, mixup 0.8",
    ]
    reach = next(statement.text for statement in list_statements(tables) if statement.topic == "How far this reaches")
    assert reach.count("mixup") == reach.count("mixup 0.8") == 1
    specs = {spec.name: spec for spec in list_figures(load_records(tmp_path))}
    titles = [ax.get_title("left") for ax in specs["accuracy_digits_pico_v2"].draw().axes]
    assert titles == ["mixup 0", "mixup 0.8"]


def test_what_records_say_is_escaped_and_the_left_out_is_counted(tmp_path, write_cell, write_failure):
    cell = replace(CELL, conditions=Cost(resolution=64))
    write_cell(tmp_path, cell, device_name='<script>alert("1")</script> & "co"')
    write_failure(tmp_path, cell.of(arm="v1+lsra"))
    (tmp_path / "records" / "cost" / "<b>.json").write_text("{")
    write_page(tmp_path, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    page = Page(text)
    assert "<script>alert" not in text
    assert "<b>" not in text
    rows = [row for table in page.tables for row in table]
    assert '<script>alert("1")</script> & "co", Imaginary CPU' in next(
        row for row in rows if row[:3] == ["cost", "2", "quick"]
    )
    assert ["records/cost/<b>.json", "not JSON"] in rows
    key = cell.of(arm="v1+lsra").key
    assert ["cost", "pico v1+lsra, base v2", key, "RuntimeError: out of memory"] in rows
    assert "1 finished records, 1 failed cells, 1 damaged files." in "".join(page.words)


def test_the_same_records_give_the_same_bytes(tmp_path, write_cell):
    for arm in ("v1", "v1+ope", "v1+cffn", "v1+ope+cffn"):
        write_cell(tmp_path, replace(CELL.of(arm=arm), conditions=Cost(resolution=64)))
    first, second = tmp_path / "first.html", tmp_path / "second.html"
    write_page(tmp_path, first)
    with mpl.rc_context({"font.size": 20, "lines.linewidth": 7}):  # a user's own taste
        write_page(tmp_path, second)
    assert Page(first.read_text()).tags["img"] == 1
    assert first.read_bytes() == second.read_bytes()


def test_no_records_make_a_page_that_says_so(tmp_path):
    write_page(tmp_path, tmp_path / "page.html")
    words = "".join(Page((tmp_path / "page.html").read_text()).words)
    assert "0 finished records, 0 failed cells, 0 damaged files." in words
    assert "No records have all arms of their toggles" in words
