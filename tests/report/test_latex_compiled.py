"""Every table of the committed records, set by a real LaTeX: no error, no warning, and nothing beyond the margins."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ablations import cli
from ablations.records import load_records
from ablations.report.contents import list_values
from ablations.report.tables import LATEX_PREAMBLE, render_latex

pytestmark = pytest.mark.slow

RESULTS = Path(__file__).parents[2] / "results"

WIDEST_POINTS = 1.0
"""By which a line may stand out into the margin: less than anybody sees."""


@pytest.fixture(scope="module")
def set_in_latex(
    find_program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[str, int]]:
    """`set_in_latex(tables)` sets tables in an article, and returns LaTeX's log and how many pages there are."""
    program = find_program("pdflatex")

    def compiled(tables: str) -> tuple[str, int]:
        folder = tmp_path_factory.mktemp("article")
        # LaTeX holds few floats at a time, and an article has text between them.
        body = tables.replace(r"\end{table}", "\\end{table}\n\\clearpage")
        packages = re.findall(r"\\usepackage\{[^}]*\}", LATEX_PREAMBLE)
        article = "\n".join([r"\documentclass{article}", *packages, r"\begin{document}", body, r"\end{document}", ""])
        (folder / "article.tex").write_text(article)
        command = [program, "-interaction=nonstopmode", "-halt-on-error", "article.tex"]
        for _ in range(2):  # the second knows the labels
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
            assert done.returncode == 0, "\n".join(done.stdout.splitlines()[-30:])
        log = (folder / "article.log").read_text(encoding="utf-8", errors="replace")
        pages = re.search(r"Output written on article\.pdf \((\d+) pages?", log)
        assert pages
        return log, int(pages[1])

    return compiled


def check_log(log: str) -> None:
    assert re.findall(r"^! .*", log, re.MULTILINE) == []
    assert re.findall(r"^LaTeX(?: Font)? Warning: .*", log, re.MULTILINE) == []
    over = re.findall(r"^Overfull \\[hv]box \(([\d.]+)pt too (?:wide|high)\).*", log, re.MULTILINE)
    assert [points for points in over if float(points) > WIDEST_POINTS] == []


def test_every_table_of_the_report_is_set_without_a_warning(set_in_latex):
    failures: dict[str, str] = {}
    tables = list_values(load_records(RESULTS), failures)
    assert failures == {}
    assert len(tables) > 30
    texts = [render_latex(table, values) for table, values in tables.items()]
    log, pages = set_in_latex("\n".join(texts))
    check_log(log)
    assert pages == sum(text.count(r"\begin{table}") for text in texts)


def test_the_committed_tables_and_what_compare_prints_are_set_too(set_in_latex, capsys):
    committed = [path.read_text() for path in sorted((RESULTS / "tables").glob("*.tex")) if path.stem != "comparison"]
    assert len(committed) > 3
    assert cli.main(["compare", "--results", str(RESULTS), "--format", "latex"]) == 0
    printed = capsys.readouterr().out
    assert r"\begin{tabular}" in printed
    log, _ = set_in_latex("\n".join([*committed, printed]))
    check_log(log)


def test_what_latex_says_of_a_line_that_is_too_wide_is_seen(set_in_latex):
    wide = r"\begin{table}\noindent\mbox{" + "wide " * 60 + r"}\end{table}"
    log, _ = set_in_latex(wide)
    with pytest.raises(AssertionError):
        check_log(log)
