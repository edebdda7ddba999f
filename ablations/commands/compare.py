"""The command `compare`: what each change costs and gains, from records."""

import shutil
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ablations.commands.shared_flags import Command, check_has_records
from ablations.errors import refuse
from ablations.flags import POSITIONAL
from ablations.studies import find_study
from ablations.toggle_files import take_toggles


@dataclass(frozen=True, kw_only=True)
class Compare(Command):
    """Print what each change costs and gains, from records: a row an arm and a sentence a toggle."""

    study: str | None = field(default=None, metadata=POSITIONAL)
    """Compare the models of this study, by its name or the path of a file; by default the largest of each kind."""
    results: Path = Path("runs")
    """Folder of records."""
    toggles: tuple[str, ...] = ()
    """Those that the study's arms vary, instead of its own; one of yours is FILE.py:NAME."""
    format: Literal["terminal", "markdown", "csv", "latex", "html"] = "terminal"
    """How it is printed."""
    rename: tuple[str, ...] = ()
    """What arms are called, such as 'v1+ope=PVTv1 + OPE'."""

    def run(self, *_: Any) -> int:
        """Prints the comparisons of a study, or the largest of each kind that the records have."""
        check_has_records(self.results)
        toggles = take_toggles(self.toggles)
        keys = None if self.study is None else {cell.key for cell in find_study(self.study, toggles).cells()}

        from ablations.analysis.comparison import comparison_values
        from ablations.records import load_records
        from ablations.report.article import parse_names, rename_comparison, renaming
        from ablations.report.overview import LARGEST, QUESTION, list_answers, list_overviews
        from ablations.report.page import comparison_html
        from ablations.report.summary import (
            ShownComparison,
            comparison_csv,
            comparison_latex,
            comparison_markdown,
            largest_of_each_kind,
            show_comparisons,
        )
        from ablations.report.tables import BOLD, escape_latex, render_terminal

        names = parse_names(self.rename)
        values = comparison_values(load_records(self.results), keys)
        if values.empty:
            raise refuse("study", self.study, f"one of which {self.results} has records of two arms or more")
        every = show_comparisons(values)
        chosen = [rename_comparison(each, names) for each in (every if self.study else largest_of_each_kind(every))]
        renderers: dict[str, Callable[[list[ShownComparison]], str]] = {
            "csv": comparison_csv,
            "html": comparison_html,
            "markdown": comparison_markdown,
            "latex": comparison_latex,
        }
        if self.format in renderers:
            text = renderers[self.format](chosen)
            in_latex = {arm: escape_latex(name) for arm, name in names.items()}  # what stands beneath every table too
            print(renaming(in_latex)(text) if self.format == "latex" else text, end="")
            return 0
        width = shutil.get_terminal_size().columns
        if len(chosen) > 1 and (answers := list_answers(every)):
            print(f"\n{QUESTION}")
            for answer in answers:
                text = renaming(names)(f"- {answer.topic}: {answer.text}")
                print(textwrap.fill(text, width, subsequent_indent="  "))
            for section in list_overviews(every):
                title = textwrap.fill(renaming(names)(section.title), width)
                print(f"\n{title}\n\n{render_terminal(section, width)}\n")
                caption = section.caption.replace(LARGEST, "")  # a terminal shows nothing in bold
                print(textwrap.fill(renaming(names)(caption), width))
        for shown in chosen:
            print_comparison(shown, width)
            plain = shown.section.caption.removesuffix(BOLD).rstrip()
            print(textwrap.fill(plain, width) + "\n")
        return 0


def print_comparison(shown: Any, width: int) -> None:
    from ablations.report.tables import render_terminal

    print(f"\n{shown.section.title}\n\n{render_terminal(shown.section, width)}\n")
    for each in shown.statements:
        print(textwrap.fill(f"{each.topic}: {each.text}", width))
    print()
