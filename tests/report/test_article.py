"""Tables and figures for an article: new names everywhere and nowhere else, PDF, no titles, and nothing cut off."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from matplotlib import style

from ablations import cli
from ablations.errors import InputError
from ablations.report.article import parse_names, rename_figure, renaming, write_article
from ablations.report.contents import headline_figures, list_figures
from ablations.report.figures import STYLE

NAMES = {"v1": "PVTv1", "v1+ope": "PVTv1 + OPE", "v1+ope+cffn": "PVTv2 (ours & theirs)", "v1+lsra": "PVTv1 | Li"}


@pytest.mark.parametrize(
    ("text", "renamed"),
    [
        ("v1, v1+ope, v1+cffn", "PVTv1, PVTv1 + OPE, v1+cffn"),
        ("gains over v1, in base v1 and bases v1", "gains over PVTv1, in base v1 and bases v1"),
        ("pvt:b2/v1+ope/v1", "pvt:b2/v1+ope/v1"),
        ("PVT v1 to v2, Speed, v1 = 1", "PVT v1 to v2, Speed, PVTv1 = 1"),
        (r"\label{tab:steps-v1-v1}", r"\label{tab:steps-v1-v1}"),
        ("v1's, v10, xv1, v1+ope+lsra", "PVTv1's, v10, xv1, v1+ope+lsra"),
    ],
)
def test_whole_arms_are_renamed_and_nothing_else(text, renamed):
    assert renaming(NAMES)(text) == renamed
    assert renaming({})(text) == text


def test_names_are_read_and_refused():
    assert parse_names(("v1+ope=A = B", "v1= C ")) == {"v1+ope": "A = B", "v1": "C"}
    for texts, why in (
        (("v1+opee=A",), "v1.opee' is not possible; .*did you mean 'v1.ope'"),
        (("v1",), "allowed: ARM=NAME"),
        (("v1= ",), "allowed: ARM=NAME"),
        (("v1=A", "v1+ope=A"), "each arm and each name once"),
        (("v1=A", "v1=B"), "each arm and each name once"),
    ):
        with pytest.raises(InputError, match=why):
            parse_names(texts)


@pytest.fixture(scope="module")
def article(quick_results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("article")
    write_article(quick_results, folder, NAMES, titles=False)
    return folder


@pytest.mark.slow
def test_tables_have_the_new_names_in_every_form(article):
    text = (article / "tables" / "comparison.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert any("PVTv2 (ours & theirs)" in row for row in rows)
    assert not any(re.search(r"\| v1(\+ope(\+cffn)?)? +\|", row) for row in rows)
    latex = (article / "tables" / "comparison.tex").read_text()
    assert r"PVTv2 (ours \& theirs) & " in latex
    assert r"PVTv1 \textbar{} Li & " in latex.replace(r"\textbf{PVTv1 \textbar{} Li}", r"PVTv1 \textbar{} Li")
    values = pd.read_csv(article / "tables" / "comparison.csv")
    assert set(NAMES.values()) <= set(values["arm"])
    assert not set(NAMES) & set(values["arm"])
    assert set(values["base"]) <= {"v1", "v2", "published"}


@pytest.mark.slow
def test_columns_of_markdown_stay_aligned(article):
    for path in (article / "tables").glob("*.md"):
        for block in re.findall(r"(?:^\|.*\n?)+", path.read_text(), flags=re.MULTILINE):
            lines = block.splitlines()
            assert len({len(line) for line in lines}) == 1, path.name
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1, path.name


@pytest.mark.slow
def test_figures_come_as_pdf_too_without_a_title_or_a_date(article, quick_records):
    names = {path.stem for path in (article / "figures").iterdir()}
    assert len(names) > 3
    titles = {spec.name: spec.title for spec in list_figures(quick_records)}
    for name in names:
        png, svg, pdf = (article / "figures" / f"{name}{suffix}" for suffix in (".png", ".svg", ".pdf"))
        assert pdf.read_bytes().startswith(b"%PDF-")
        assert b"CreationDate" not in pdf.read_bytes()
        assert b"/Type3" not in pdf.read_bytes()
        assert png.stat().st_size > 5000
        assert svg.stat().st_size > 5000
        words = re.findall("<!-- (.*) -->", svg.read_text())
        assert words
        assert not any(titles[name].startswith(each) for each in words if " " in each)


@pytest.mark.slow
def test_renamed_figures_have_the_new_names_and_nothing_is_cut_off(quick_records, find_illegible):
    class Renamed:
        def __init__(self, spec):
            self.spec = spec

        def draw(self):
            figure = self.spec.draw()
            rename_figure(figure, renaming(NAMES))
            return figure

    specs = headline_figures(list_figures(quick_records))
    assert len(specs) > 3
    for spec in specs:
        assert find_illegible(Renamed(spec)) == [], spec.name
    with style.context(["default", STYLE], after_reset=True):
        (spec,) = (spec for spec in specs if spec.kind == "macs_by_resolution")
        figure = Renamed(replace(spec)).draw()
    words = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert "PVTv1 + OPE" in words
    assert "v1+ope" not in words


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rename", "v1=A"], "rename=('v1=A',) is not possible; allowed: no such flag without --article"),
        (["--no-title"], "title=False is not possible; allowed: no such flag without --article"),
        (["--article", "x", "--check"], "check=True is not possible; allowed: no such flag beside --article"),
    ],
)
def test_flags_that_mean_nothing_are_refused(capsys, quick_results, flags, message):
    assert cli.main(["report", "--results", str(quick_results), *flags]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_the_command_takes_names_and_leaves_titles_out(capsys, monkeypatch, quick_results, tmp_path):
    given = []
    monkeypatch.setattr("ablations.report.article.write_article", lambda *of, **how: given.append((of, how)) or [1, 2])
    command = ["report", "--results", str(quick_results), "--article", str(tmp_path), "--rename", "v1=PVTv1"]
    assert cli.main([*command, "--no-title", "--all"]) == 0
    assert given == [((quick_results, tmp_path, {"v1": "PVTv1"}), {"titles": False, "everything": True})]
    assert capsys.readouterr().out == f"2 files written: {tmp_path / 'tables'}, {tmp_path / 'figures'}\n"


@pytest.mark.slow
def test_the_command_writes_an_article_and_leaves_the_results(capsys, article, quick_results, tmp_path):
    before = sorted(path.name for path in quick_results.rglob("*"))
    command = ["report", "--results", str(quick_results), "--article", str(tmp_path), "--rename", "v1=PVTv1"]
    assert cli.main(command) == 0
    assert "files written" in capsys.readouterr().out
    assert (tmp_path / "tables" / "comparison.md").exists()
    assert sorted(path.name for path in quick_results.rglob("*")) == before
    (titled,) = (tmp_path / "figures").glob("tradeoff*.svg")
    title = "<!-- What does accuracy cost? digits, pico, base v2 -->"
    assert title in titled.read_text()
    assert title not in (article / "figures" / titled.name).read_text()
