"""The command `report`: tables, figures, the page and articles from records."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.commands.shared_flags import Command, check_has_records
from ablations.errors import InputError
from ablations.flags import refuse_given
from ablations.toggle_files import take_toggles


@dataclass(frozen=True, kw_only=True)
class BuildReport(Command):
    """Rebuild the tables and figures from the records."""

    results: Path = Path("runs")
    """Folder of records, tables and figures."""
    check: bool = False
    """Write nothing; name the tables and figures that differ from what the records give, and exit with 1 if any do."""
    html: bool = False
    """Write report.html too: one page that loads nothing, to be read anywhere."""
    all: bool = False
    """Write every table and figure, not the headlines alone."""
    figures: bool = True
    """--no-figures leaves those in the folder as they are, and writes tables and text alone."""
    readme: Path | None = None
    """A text, such as README.md, whose numbers between markers are written anew from the records."""
    article: Path | None = None
    """Write the headline tables and figures, or with --all all of them, to this folder instead; figures as PDF too."""
    rename: tuple[str, ...] = ()
    """With --article: what arms are called there, such as 'v1+ope=PVTv1 + OPE'."""
    title: bool = True
    """With --article: --no-title leaves the titles above figures out."""
    toggles: tuple[str, ...] = ()
    """Of the records' arms, toggles from files of yours, as FILE.py:NAME: theirs are the records of now."""

    FIRST = ("toggles", "results", "check", "html", "all", "figures", "article", "rename", "title")

    def run(self, *_: Any) -> int:
        if self.check:
            refuse_given(self, ("html", "readme"), "none with --check, which writes nothing")
        if self.article is None:
            refuse_given(self, ("rename", "title"), "no such flag without --article")
        check_has_records(self.results)
        take_toggles(self.toggles)
        if self.article is not None:
            return self._write_article(self.article)

        from ablations.report.build import build_report, check_report

        if not self.check:
            report = build_report(self.results, everything=self.all, with_figures=self.figures, with_page=self.html)
            for name, why in report.damaged.items():
                print(f"damaged, and left out: {name}: {why}", file=sys.stderr)
            print(f"{len(report.files)} files written or kept; {self.results / 'README.md'} lists them")
            if self.html:
                print(self.results / "report.html")
            say_not_rebuilt(report.not_rebuilt)
            if self.readme:
                from ablations.files import write_text
                from ablations.report.readme import rewrite_numbers

                write_text(self.readme, rewrite_numbers(_read_text(self.readme), report.table))
                print(self.readme)
            return 1 if report.not_rebuilt else 0
        stale = check_report(self.results)
        for name in stale:
            print(f"stale: {name}", file=sys.stderr)
        return 1 if stale else 0

    def _write_article(self, folder: Path) -> int:
        refuse_given(self, ("check", "html", "figures", "readme"), "no such flag beside --article")

        from ablations.report.article import parse_names, write_article

        names = parse_names(self.rename)
        files = write_article(self.results, folder, names, titles=self.title, everything=self.all)
        print(f"{len(files)} files written: {folder / 'tables'}, {folder / 'figures'}")
        return 0


def say_not_rebuilt(reasons: dict[str, str]) -> None:
    for name, why in reasons.items():
        print(f"left as it was: {name}: {why}", file=sys.stderr)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"readme={str(path)!r} cannot be read: {error}") from None
