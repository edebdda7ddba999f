"""Renders tables to LaTeX for articles: booktabs, one float for each section, the best of a column in bold.

A document needs the packages booktabs and graphicx, and pdfLaTeX of 2020 or later, LuaLaTeX or XeLaTeX.
"""

import re
from collections.abc import Sequence

import pandas as pd

from ablations.report.tables import Section, ShownColumn, Table, list_sections

PREAMBLE = r"% Written by run_ablation.py report. The document needs \usepackage{booktabs,graphicx}."

LONGEST_CELL = 40
"""Letters; a column with a longer cell of several words is set as paragraphs of PARAGRAPH_WIDTH."""

PARAGRAPH_WIDTH = "6.5cm"

SYMBOLS = {
    "\\": r"\textbackslash{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "²": r"\textsuperscript{2}",
    "³": r"\textsuperscript{3}",
}
"""Letters that mean something else to LaTeX, or that not all of its fonts have."""

_SYMBOL = re.compile("|".join(map(re.escape, SYMBOLS)))
_MINUS = re.compile(r"(?<![\w.)-])-(?=\d)")


def escape(text: str) -> str:
    """Returns plain text as LaTeX; what stands between backticks becomes typewriter, a minus a real one."""
    words = text.split("`")
    for place, word in enumerate(words):
        code = place % 2
        symbols = _SYMBOL.sub(lambda found: SYMBOLS[found[0]], word)
        breakable = symbols.replace(r"\_", r"\_\allowbreak{}")
        words[place] = f"\\texttt{{{breakable}}}" if code else _MINUS.sub("$-$", symbols)
    return "".join(words)


def render_latex(table: Table, values: pd.DataFrame) -> str:
    """Returns a `table` float for each group of equal conditions, with the title, the note and the conditions above.

    Where a column has a better end, its best cells are bold as they are printed: those that print the same share it.
    """
    sections = list_sections(table, values)
    return "\n\n".join([PREAMBLE, *(_render_section(table, section) for section in sections)]) + "\n"


def label_of(table: Table, section: Section) -> str:
    """Returns the name that an article refers to a section by."""
    return "tab:" + re.sub(r"[^a-z0-9]+", "-", f"{table.name} {section.title}".lower()).strip("-")


def _render_section(table: Table, section: Section) -> str:
    columns = [_bold_best(column) for column in section.columns]
    title = f"{table.title}: {section.title}."
    caption = " ".join(filter(None, (title, table.about, section.caption, section.emphasis)))
    headings, *rows = (" & ".join(line) + r" \\" for line in zip(*columns, strict=True))
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            f"\\caption[{{{escape(title)}}}]{{{escape(caption)}}}",
            f"\\label{{{label_of(table, section)}}}",
            r"\smallskip",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            f"\\begin{{tabular}}{{{''.join(_alignments(section.columns))}}}",
            r"\toprule",
            headings,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
        ]
    )


def _alignments(columns: Sequence[ShownColumn]) -> list[str]:
    """Returns how columns are set: the first to the left, paragraphs where a cell is long, others to the right."""
    texts = [[cell for cell in column.cells if " " in cell] for column in columns]
    return [
        f"p{{{PARAGRAPH_WIDTH}}}" if max(map(len, cells), default=0) > LONGEST_CELL else "r" if place else "l"
        for place, cells in enumerate(texts)
    ]


def _bold_best(column: ShownColumn) -> list[str]:
    """Returns the heading and the cells, the best in bold."""
    cells = zip(map(escape, column.cells), column.is_best, strict=True)
    return [escape(column.heading), *(f"\\textbf{{{cell}}}" if is_best else cell for cell, is_best in cells)]
