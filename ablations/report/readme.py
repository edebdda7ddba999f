"""Numbers in a text: what stands between `<!-- numbers: NAME -->` and `<!-- end -->` is written from the records."""

import re
from collections.abc import Callable
from dataclasses import replace

import pandas as pd

from ablations.analysis.comparison import comparison_values
from ablations.errors import InputError
from ablations.report.comparison import shorten
from ablations.report.overview import list_answers, list_overviews
from ablations.report.summary import ShownComparison, largest_of_each_kind, markdown_list, show_comparisons
from ablations.report.tables import Section, escape_markdown

_MARKED = re.compile(r"(<!-- numbers: ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def rewrite_numbers(text: str, records: pd.DataFrame) -> str:
    """Returns the text with its marked numbers as the records have them.

    A name is `summary`, `overview`, or `table-KIND` or `sentences-KIND`, where KIND is a data set's name, or `costs`
    for models without a training. Raises InputError for any other name, or where the records have no such comparison.
    """
    every = show_comparisons(comparison_values(records))
    whole_texts = {"summary": _summary, "overview": _overview}
    shown = {_kind(each): each for each in largest_of_each_kind(every)}

    def write(match: re.Match[str]) -> str:
        what, _, kind = match[2].partition("-")
        if match[2] in whole_texts and (text := whole_texts[match[2]](every)):
            return f"{match[1]}{text}\n{match[4]}"
        if what not in RENDERERS or kind not in shown:
            allowed = "summary, overview, " + ", ".join(f"{name}-{kind}" for name in RENDERERS for kind in shown)
            raise InputError(f"numbers {match[2]!r} in the text are none that the records give; allowed: {allowed}")
        return f"{match[1]}{RENDERERS[what](shown[kind])}\n{match[4]}"

    whole = [match for match in _MARKED.finditer(text) if "<!-- numbers:" not in match[3]]
    if len(whole) != text.count("<!-- numbers:"):
        raise InputError("a block of numbers in the text lacks its <!-- end -->, or its name is none")
    return _MARKED.sub(write, text)


def _summary(every: list[ShownComparison]) -> str:
    return markdown_list(list_answers(every))


def _overview(every: list[ShownComparison]) -> str:
    return "\n\n".join(f"{_rows(section)}\n\n{escape_markdown(section.caption)}" for section in list_overviews(every))


def _kind(shown: ShownComparison) -> str:
    data = shown.group.conditions.get("data")
    return "costs" if data is None or pd.isna(data) else str(data)


def _table(shown: ShownComparison) -> str:
    return _rows(shorten(shown.section, [])[0])


def _rows(section: Section) -> str:
    """Returns a section as Markdown without padding, the title above."""
    head, *rows = section.lines(escape_markdown, bold="**{}**")
    rule = ["---", *["--:"] * (len(head) - 1)]
    lines = "\n".join(f"|{'|'.join(line)}|" for line in (head, rule, *rows))
    return f"**{escape_markdown(section.title)}**\n\n{lines}"


def _sentences(shown: ShownComparison) -> str:
    """Returns a line a toggle; where it has an accuracy, with that and the training speed alone, for costs stand in
    the table."""
    if _kind(shown) == "costs":
        return markdown_list(shown.statements)
    return markdown_list(replace(each, text=_leave_out_costs(each.text)) for each in shown.statements)


def _leave_out_costs(text: str) -> str:
    gain, *others = text.removesuffix(".").split("; ")
    return "; ".join([gain, *(clause for clause in others if clause.startswith("training speed"))]) + "."


RENDERERS: dict[str, Callable[[ShownComparison], str]] = {"table": _table, "sentences": _sentences}
