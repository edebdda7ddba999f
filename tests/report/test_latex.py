"""Tables as LaTeX: whole, escaped, of as many columns as are declared, and bold where a column has a best cell."""

import re
from collections import Counter
from collections.abc import Callable
from itertools import accumulate

import pandas as pd
import pytest

from ablations.report.build import TABLES
from ablations.report.tables import (
    BOLD,
    LATEX_PREAMBLE,
    Table,
    TableColumn,
    escape_latex,
    list_sections,
    render_latex,
    render_markdown,
)


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("50 % & more_or_less #1 $2 {x}", r"50 \% \& more\_or\_less \#1 \$2 \{x\}"),
        ("a\\b ~ ^ |", r"a\textbackslash{}b \textasciitilde{} \textasciicircum{} \textbar{}"),
        ("1 ± 2, p < 0.001 > 0", r"1 $\pm$ 2, p $<$ 0.001 $>$ 0"),
        ("2h²w²c/R²", r"2h\textsuperscript{2}w\textsuperscript{2}c/R\textsuperscript{2}"),
        ("-2.8 (-3.6 to -0.1)", r"$-$2.8 ($-$3.6 to $-$0.1)"),
        ("800x1280, 2026-01-02, b2-li, -", "800x1280, 2026-01-02, b2-li, -"),
        ("as `timm:pvt_v2_b2` -1", r"as \texttt{timm:pvt\_\allowbreak{}v2\_\allowbreak{}b2} $-$1"),
        ("`n-1`", r"\texttt{n-1}"),
        ("", ""),
    ],
)
def test_what_latex_reads_otherwise_is_escaped(text, latex):
    assert escape_latex(text) == latex


def show(name: str) -> Callable[[pd.Series], str]:
    return lambda row: row[name]


TABLE = Table(
    name="made_up",
    measurement="cost",
    title="Made up",
    values=lambda records: records,
    conditions=("variant",),
    titled_by=("variant",),
    columns=(
        TableColumn("Arm", show("arm")),
        TableColumn("Cost, %", show("cost"), best="min"),
        TableColumn("Gain", show("gain"), best="max"),
        TableColumn("Odd", show("odd")),
    ),
    about="All.",
    note=lambda values: "50 % off.",
)


def values_of(**columns: list[str]) -> pd.DataFrame:
    rows = len(columns["cost"])
    names = {"variant": ["b2"] * rows, "arm": [f"v{place}" for place in range(1, rows + 1)]}
    return pd.DataFrame({"gain": ["0"] * rows, "odd": ["x"] * rows, **names, **columns})


def test_a_table_word_for_word():
    values = values_of(cost=["1,200 (+0.0 %)", "990.0 (-17.5 %)"], gain=["-0.10", "-"])
    assert render_latex(TABLE, values) == (
        LATEX_PREAMBLE + "\n\n"
        r"""\begin{table}
\centering
\caption{Made up: b2.}
\label{tab:made-up-b2}
\smallskip
\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%
\begin{tabular}{lrrr}
\toprule
Arm & Cost, \% & Gain & Odd \\
\midrule
v1 & 1,200 (+0.0 \%) & $-$0.10 & x \\
v2 & \textbf{990.0 ($-$17.5 \%)} & - & x \\
\bottomrule
\end{tabular}}
\par\smallskip
\begin{minipage}{\linewidth}\footnotesize
All. 50 \% off. Conditions: b2. """
        + BOLD
        + r"""
\end{minipage}
\end{table}
"""
    )


def bold_cells(values: pd.DataFrame) -> list[str]:
    return re.findall(r"\\textbf\{([^}]*)\}", render_latex(TABLE, values))


def test_the_best_as_shown_are_bold_and_share_it():
    assert bold_cells(values_of(cost=["1.10", "1.10", "9.00"], gain=["+2", "-3", "10"])) == ["1.10", "1.10", "10"]
    assert bold_cells(values_of(cost=["1,000", "999.9", "out of memory"])) == ["999.9"]
    (section,) = list_sections(TABLE, values_of(cost=["1,000", "999.9", "out of memory"]))
    assert [column.is_best for column in section.columns][1] == [False, True, False]
    assert section.caption.endswith(BOLD)
    assert " **999.9** |" in render_markdown(TABLE, values_of(cost=["1,000", "999.9", "out of memory"]))


@pytest.mark.parametrize("cost", [["1.10", "1.10"], ["1.10"], ["1.10", "-"], ["none", "-"]])
def test_without_a_rival_nothing_is_bold_and_nothing_says_so(cost):
    text = render_latex(TABLE, values_of(cost=cost))
    assert "textbf" not in text
    assert "Bold" not in text


def test_long_texts_are_paragraphs_and_long_names_are_not():
    assert r"\begin{tabular}{lrrp{6.5cm}}" in render_latex(TABLE, values_of(cost=["1"], odd=["long words " * 4]))
    assert r"\begin{tabular}{lrrr}" in render_latex(TABLE, values_of(cost=["1"], odd=["one_long_name" * 4]))


@pytest.fixture(scope="module")
def rendered(quick_records, paper_tables) -> dict[str, str]:
    """Every table of the report that the study `quick` or `paper` has records of."""
    values = {table: paper_tables.get(table.name, table.values(quick_records)) for table in TABLES}
    return {table.name: render_latex(table, own) for table, own in values.items() if not own.empty}


def test_every_table_has_balanced_braces_and_environments(rendered):
    assert len(rendered) > 25
    for name, text in rendered.items():
        bare = text.replace(r"\{", "").replace(r"\}", "")
        depths = list(accumulate({"{": 1, "}": -1}.get(letter, 0) for letter in bare))
        assert (min(depths), depths[-1]) == (0, 0), name
        assert bare.count("$") % 2 == 0, name
        counts = [
            text.count(rf"\{end}{{{environment}}}") for end in ("begin", "end") for environment in ("table", "tabular")
        ]
        assert len({*counts, text.count(r"\toprule"), text.count(r"\midrule"), text.count(r"\bottomrule")}) == 1, name


def test_every_row_has_the_columns_that_are_declared(rendered):
    for name, text in rendered.items():
        for body in text.split(r"\begin{tabular}")[1:]:
            declared, _, rows = body.partition("\n")
            columns = len(re.findall(r"[lr]|p\{[\d.]+cm\}", declared))
            lines = [line for line in rows.splitlines() if line.endswith(r"\\")]
            assert len(lines) > 1, name
            assert {len(re.split(r"(?<!\\)&", line)) for line in lines} == {columns}, name


def test_no_special_letter_is_bare(rendered):
    for name, text in rendered.items():
        lines = [line for line in text.splitlines() if line.endswith(r"\\") or line.startswith(r"\caption")]
        notes = re.findall(r"\\footnotesize\n(.*)\n\\end\{minipage\}", text)
        assert len(notes) == text.count(r"\caption") > 0, name
        assert not re.search(r"(?<!\\)[%#_~^]", "\n".join([*lines, *notes])), name
        assert text.isascii(), name


def test_labels_are_unique_in_an_article_that_has_them_all(rendered):
    labels = Counter(re.findall(r"\\label\{([^}]*)\}", "".join(rendered.values())))
    assert [label for label, count in labels.items() if count > 1] == []
    assert all(re.fullmatch(r"tab:[a-z0-9-]+", label) for label in labels)


def test_both_renderings_have_the_same_cells(quick_records):
    (table,) = (table for table in TABLES if table.name == "cost")
    values = table.values(quick_records)
    text = render_latex(table, values)
    sections = list_sections(table, values)
    for section in sections:
        assert all(escape_latex(cell) in text for line in section.lines() for cell in line)
    bold = sum(sum(column.is_best) for section in sections for column in section.columns)
    assert text.count(r"\textbf{") == bold > 0
