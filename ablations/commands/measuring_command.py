"""The base class of the commands that measure: they fill cells with records, and print the tables of these."""

import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ablations.cells import Cell
from ablations.commands.report import say_not_rebuilt
from ablations.commands.shared_flags import Command, TrainingRuns
from ablations.launch import Worker, is_first_process
from ablations.studies import find_study
from ablations.units import count_cells, parse_duration

NOT_PRINTED_OF_PAPER = ("models", "operators", "parts", "cost", "cumulative")
"""Long tables that the count of the whole paper leaves in their files."""


@dataclass(frozen=True, kw_only=True)
class MeasuringCommand(Command):
    """Base of `run`, `evaluate` and the commands of one measurement: where records go, and what is done and printed."""

    results: Path = Path("runs")
    """Folder of records, tables and figures."""
    time_budget: str | None = None
    """Such as 20min, 90s or 1.5h: start no cell that by the records of its like would end later."""
    dry_run: bool = False
    """Print the cells and which are done, and measure nothing."""

    TABLES: ClassVar[tuple[str, ...]] = ()
    """The tables that answer the command, all where none is named; those beside them are named with their folder."""

    def cells(self) -> list[Cell]:
        """Returns the cells that are asked for, each once."""
        raise NotImplementedError

    def check(self) -> None:
        """Raises InputError for flags that are not possible."""
        self._time_budget_s()

    def begin(self, cells: list[Cell]) -> None:
        """Prints what is to be known before the first cell runs."""

    def declared(self, cells: list[Cell]) -> tuple[str, int | None]:
        """Returns the study's name for the records, and the seeds that it declares, if it does."""
        return cells[0].measurement, None

    def answering_tables(self) -> tuple[str, ...]:
        """Returns the names of the tables that answer these flags."""
        return self.TABLES

    def values_of(self, table: Any, records: Any) -> Any:
        """Returns the values of a table of the report."""
        return table.values(records)

    def print_details(self, records: Any) -> None:
        """Prints what flags ask for beneath the tables."""

    def _time_budget_s(self) -> float:
        return parse_duration(self.time_budget) if self.time_budget else float("inf")

    def run(self, words: Sequence[str], worker: Worker | None, /) -> int:
        cells = self.cells()
        self.check()
        if self.dry_run:
            return self._print_states(cells)
        if worker:
            cells = [cell for cell in cells if worker.takes(cell)]
        return self.measure(cells, words, worker, reports=worker is None)

    def measure(self, cells: list[Cell], words: Sequence[str], worker: Worker | None, *, reports: bool) -> int:
        """Measures the cells; with `reports` rebuilds the report, and prints the tables and where the files are."""
        from ablations.runner import default_jobs, run_cells

        training = self if isinstance(self, TrainingRuns) else TrainingRuns()
        if training.tensorboard:
            from ablations.training.logs import check_tensorboard

            check_tensorboard()
        study, declared_seeds = self.declared(cells)
        summary = run_cells(
            cells,
            study=study,
            declared_seeds=declared_seeds,
            results=self.results,
            data_dir=getattr(self, "data_dir", None),
            weights=getattr(self, "checkpoint", None) or getattr(self, "weights_file", None),
            time_budget_s=self._time_budget_s(),
            jobs=default_jobs() if training.jobs is None else training.jobs,
            tensorboard=training.tensorboard,
            save_weights=training.save_weights,
            force=getattr(self, "force", False),
            debug=self.debug,
            since=worker.since if worker else None,
            patience_s=worker.patience_s if worker else float("inf"),
            begin=lambda: self.begin(cells),
        )

        failed = int(bool(summary.failed))
        if not is_first_process():
            return failed
        for label, reason in summary.failed:
            print(f"failed: {label}: {reason}", file=sys.stderr)
        if training.save_weights and summary.kept:
            print(f"{count_cells(summary.kept)} recorded already: no weights of these were written", file=sys.stderr)
        if summary.left:
            again = f"run_ablation.py {shlex.join(words)}".strip()
            print(f"the time budget is spent; resume with: {again}", file=sys.stderr)
        if not reports:
            return failed

        from ablations.report.build import build_report

        report = build_report(self.results, with_page=True)
        say_not_rebuilt(report.not_rebuilt)
        self.print_tables(cells, report.table)
        print(
            f"{count_cells(summary.measured)} measured in {summary.seconds:.1f} s, {summary.kept} were there, "
            f"{summary.left} left for a next run"
        )
        print(f"All tables and figures: {self.results / 'report.html'}, {self.results / 'README.md'}")
        return 1 if report.not_rebuilt else failed

    def print_tables(self, cells: list[Cell], records: Any) -> None:
        """Prints the tables of these cells' records that answer the command, and names the others."""
        from ablations.report.build import TABLES
        from ablations.report.tables import terminal_table

        whole_paper = {cell.key for cell in find_study("paper").cells()} <= {cell.key for cell in cells}
        main = self.answering_tables()
        if whole_paper or not main:
            main = tuple(table.name for table in TABLES if not (whole_paper and table.name in NOT_PRINTED_OF_PAPER))
        records = records[records["key"].isin([cell.key for cell in cells])] if "key" in records else records
        others = []
        for table in TABLES:
            values = self.values_of(table, records)
            if values.empty:
                continue
            if table.name in main:
                print(f"\n{terminal_table(table, values, shutil.get_terminal_size().columns)}\n")
            else:
                others.append(f"{table.name}.md")
        self.print_details(records)
        if others:
            print(f"more by `report --all`, in {self.results / 'tables'}: {', '.join(others)}\n")

    def _print_states(self, cells: list[Cell]) -> int:
        from ablations.records.folder import find_record

        records = [None if cell.is_from_file else find_record(self.results, cell) for cell in cells]
        states = [record["status"] if record else "missing" for record in records]
        for cell, state in zip(cells, states, strict=True):
            print(f"{state:8} {cell.label}")
        print(f"{count_cells(len(cells))}, {states.count('done')} done")
        return 0
