"""The report page: one valid file that loads nothing, holds everything, and says what the records say."""

import re
import shutil
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest

from ablations.analysis.comparison import comparison_values
from ablations.cells import arm_cell
from ablations.conditions import field_docstrings
from ablations.config import ARMS, CONFOUNDERS, PAPER_TOGGLES, TOGGLES, PVTConfig
from ablations.measure import Accuracy, Cost
from ablations.records import load_records, write_record
from ablations.report.build import PAGE, build_report
from ablations.report.comparison import COMPARISON, shorten
from ablations.report.contents import HEADLINE_TABLES, QUESTIONS, TABLES, headline_figures, list_figures
from ablations.report.overview import list_overviews
from ablations.report.summary import Tables, largest_of_each_kind, list_statements, show_comparisons
from ablations.report.tables import list_sections

CELL = arm_cell(variant="pico", arm="v1", base="v2", conditions=Accuracy())

VOID = {"meta", "link", "img", "wbr"}


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
        data = data.replace("\N{NO-BREAK SPACE}", " ")
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module")
def text(quick_results: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    results = tmp_path_factory.mktemp("page")
    shutil.copytree(quick_results / "records", results / "records")
    build_report(results, with_page=True)
    return (results / PAGE).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_ids_are_unique_and_every_link_within_has_a_target(page: Page) -> None:
    assert [name for name, count in Counter(page.ids).items() if count > 1] == []
    within = [link.removeprefix("#") for link in page.links if link.startswith("#")]
    assert len(within) > 10
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
    assert len(text) < 2_000_000


@pytest.mark.slow
def test_the_headlines_are_there_by_question(page: Page, text: str, quick_records: pd.DataFrame) -> None:
    specs = headline_figures(list_figures(quick_records))
    assert page.tags["img"] == len(specs) > 3
    assert {f"figure-{spec.name}" for spec in specs} <= set(page.ids)
    place = {question.name: text.find(f'<section id="{question.name}">') for question in QUESTIONS}
    for question in QUESTIONS:
        own = [f"figure-{spec.name}" for spec in specs if spec.kind in question.figures]
        own += [f"table-{name}" for name in question.tables if f"table-{name}" in page.ids]
        for name in own:
            start = text.index(f'<section id="{name}">')
            assert max((at, which) for which, at in place.items() if -1 < at < start)[1] == question.name
    for table in TABLES:
        values = table.values(quick_records)
        if table.name in HEADLINE_TABLES and not values.empty and table is not COMPARISON:
            for section in list_sections(table, values):
                assert [[cell.replace("`", "") for cell in line] for line in section.lines()] in page.tables


@pytest.mark.slow
def test_the_page_opens_with_the_comparison_and_a_sentence_a_toggle(page: Page, quick_records: pd.DataFrame) -> None:
    shown = largest_of_each_kind(show_comparisons(comparison_values(quick_records)))
    brief, _ = shorten(shown[0].section, [])
    overviews = list_overviews(show_comparisons(comparison_values(quick_records)))
    assert len(overviews) == 2
    assert page.tables[:4] == [each.lines() for each in (*overviews, brief, shown[0].section)]
    words = "".join(page.words)
    for each in shown[0].statements:
        assert each.text in words
        assert words.index(each.text) < words.index(QUESTIONS[0].title)


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


@pytest.mark.slow
def test_the_best_of_a_column_is_bold(tmp_path):
    write_trained(tmp_path)
    build_report(tmp_path, with_page=True)
    text = (tmp_path / PAGE).read_text()
    comparison = text[text.index("<summary>All columns") : text.index("</details>")]
    # Both arms with ope and cffn reach 54 %: neither is resolved to be worse, so no accuracy is bold; counts are.
    bold = re.findall(r"<strong>(.*?)</strong>", comparison)
    assert comparison.count("54.00 <wbr>(") == 2
    assert bold
    assert not any("54.00" in cell for cell in bold)


@pytest.mark.slow
def test_a_recipe_that_differs_is_named_where_it_matters(tmp_path, write_cell):
    for mixup in (0.0, 0.8):
        for arm in ARMS:
            for seed in (0, 1):
                write_cell(tmp_path, replace(CELL.of(arm=arm), conditions=Accuracy(seed=seed, mixup=mixup)))
    tables = tables_of(tmp_path)
    reach = next(statement.text for statement in list_statements(tables) if statement.topic == "How far this reaches")
    assert reach.startswith("Accuracy was trained from scratch: ")
    assert reach.count("mixup") == reach.count("mixup 0.8") == 1
    specs = {spec.name: spec for spec in list_figures(load_records(tmp_path))}
    titles = [ax.get_title("left") for ax in specs["accuracy_digits_pico_v2"].draw().axes]
    assert titles == ["mixup 0", "mixup 0.8"]


@pytest.mark.slow
def test_weights_that_a_training_began_from_are_named_in_how_far_it_reaches(tmp_path, write_cell):
    for arm in ARMS:
        for seed in (0, 1):
            write_cell(tmp_path, replace(CELL.of(arm=arm), conditions=Accuracy(seed=seed, init="imagenette")))
    statements = list_statements(tables_of(tmp_path))
    reach = next(statement.text for statement in statements if statement.topic == "How far this reaches")
    assert reach.startswith("Accuracy was trained: ")
    assert "weights from imagenette" in reach


def test_what_records_say_is_escaped_and_the_left_out_is_counted(tmp_path, write_cell, write_failure):
    cell = replace(CELL, conditions=Cost(resolution=64))
    write_cell(tmp_path, cell, device_name='<script>alert("1")</script> & "co"')
    write_failure(tmp_path, cell.of(arm="v1+lsra"))
    (tmp_path / "records" / "cost" / "<b>.json").write_text("{")
    build_report(tmp_path, with_page=True)
    text = (tmp_path / PAGE).read_text()
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
    build_report(tmp_path, with_page=True)
    first = (tmp_path / PAGE).read_bytes()
    with mpl.rc_context({"font.size": 20, "lines.linewidth": 7}):  # a user's own taste
        build_report(tmp_path, with_page=True)
    assert (tmp_path / PAGE).read_bytes() == first


def test_no_records_make_a_page_that_says_so(tmp_path):
    build_report(tmp_path, with_page=True)
    words = "".join(Page((tmp_path / PAGE).read_text()).words)
    assert "0 finished records, 0 failed cells, 0 damaged files." in words
    assert "nothing to compare" in words
