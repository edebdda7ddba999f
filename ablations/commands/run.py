"""The command `run`: measures a study, here or by workers, and prints what it says."""

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ablations.cells import Arm, Cell
from ablations.commands.arms import split_arms
from ablations.commands.compare import print_comparison
from ablations.commands.measuring_command import MeasuringCommand
from ablations.commands.shared_flags import DataFolder, Force, TrainingRuns
from ablations.config import BASES, CUMULATIVE, variant_name
from ablations.errors import pick, refuse
from ablations.flags import POSITIONAL
from ablations.launch import Launched, Worker, check_launch, launch_local, launch_slurm
from ablations.measure import MEASUREMENTS
from ablations.measure.measurement import Device
from ablations.studies import Study, find_study, on_devices, parse_size, select
from ablations.toggle_files import take_toggles


@dataclass(frozen=True, kw_only=True)
class Run(Launched, TrainingRuns, Force, DataFolder, MeasuringCommand):
    """Measure a study; the flags choose among its cells."""

    study: str = field(default="quick", metadata=POSITIONAL)
    """Its name, or the path of a file of your own; `list` says what there is."""
    measurements: tuple[str, ...] = ()
    """Of those that the study has, such as cost or accuracy."""
    variants: tuple[str, ...] = ()
    """Sizes; see `list`."""
    arms: tuple[str, ...] = ()
    """Toggles that are on, or published models such as PVTv2-B2; see `list`."""
    bases: tuple[str, ...] = ()
    """What the toggles are added to; see `list`."""
    resolutions: tuple[str, ...] = ()
    """Pixels, such as 224 or 800x1280."""
    seeds: tuple[int, ...] = ()
    """Of trainings."""
    devices: tuple[Device, ...] = ()
    """Run the cells here instead of where the study has them; by default also on a GPU where there is one."""
    toggles: tuple[str, ...] = ()
    """Those that the study's arms vary, instead of its own; one of yours is FILE.py:NAME."""
    verbose: bool = False
    """Print all tables at the end, not the comparison alone."""

    FIRST = tuple("study measurements toggles arms variants data_dir results dry_run time_budget jobs devices".split())

    def named_study(self) -> Study:
        """Returns the study, with the toggles that are given."""
        return find_study(self.study, take_toggles(self.toggles))

    def cells(self) -> list[Cell]:
        study = self.named_study()
        for name in self.measurements:
            pick("measurements", name, MEASUREMENTS)
        cells = select(
            self._of_models(study.cells()),
            measurement=self.measurements,
            resolution=tuple(map(parse_size, self.resolutions)),
            seed=self.seeds,
        )
        return on_devices(cells, self.devices or _default_devices()) if self.devices or study.portable else cells

    def _of_models(self, cells: list[Cell]) -> list[Cell]:
        """Returns the cells of the arms, variants and bases that are named; of all where none is."""
        named, plain = split_arms(self.arms, self.variants, self.bases)
        variants = tuple(map(variant_name, self.variants))
        for base in self.bases:
            pick("base", base, BASES)
        chosen = select(cells, variant=variants, base=self.bases, arm=plain) if plain or not named else []
        for name, (variant, arm) in named.items():
            own = [cell for cell in cells if cell.model == Arm(variant=variant, arm=arm, base="published")]
            if not own:
                raise refuse("arm", name, f"{arm}, with --variants {variant} if the study has it in another base")
            chosen += own
        return [cell for cell in cells if cell in chosen] if named else chosen

    def check(self) -> None:
        check_launch(self)
        super().check()

    def measure(self, cells: list[Cell], words: Sequence[str], worker: Worker | None, *, reports: bool) -> int:
        if self.launcher == "slurm":
            for number in launch_slurm(self, words):
                print(f"submitted job {number}")
            same = ["--toggles", *self.toggles] if self.toggles else []
            status = shlex.join(["status", self.study, "--results", str(self.results), *same])
            print(f"run_ablation.py {status} says how far they are")
            return 0
        if self.launcher == "local" and not worker:
            worker = launch_local(self, words, cells)  # what they leave is for this process
        return super().measure(cells, words, worker, reports=reports)

    def declared(self, cells: list[Cell]) -> tuple[str, int | None]:
        study = self.named_study()
        return study.name, study.seeds()

    def print_tables(self, cells: list[Cell], records: Any) -> None:
        if self.verbose:
            super().print_tables(cells, records)
        else:
            print_answer(cells, records)


def _default_devices() -> tuple[Device, ...]:
    from ablations.measure.environment import default_device

    return ("cpu",) if default_device() == "cpu" else ("cpu", "cuda")


OF_TABLE_6 = ("Row", "Parameters", "GFLOPs", "reported")
"""How the headings of the columns begin that the end of a run shows of the paper's Table 6."""


def print_answer(cells: list[Cell], records: Any) -> None:
    """Prints what a study says: its largest comparison, a sentence a toggle, and the paper's Table 6 beside ours."""
    from ablations.analysis.comparison import comparison_values
    from ablations.report.comparison import shorten
    from ablations.report.paper import TABLES as PAPER_TABLES
    from ablations.report.summary import show_comparisons
    from ablations.report.tables import list_sections, render_terminal

    keys = {cell.key for cell in cells}
    width = shutil.get_terminal_size().columns
    comparisons = show_comparisons(comparison_values(records, keys))
    trained_on = {cell.conditions.data for cell in cells if cell.conditions.trains}
    first = min(comparisons, key=lambda each: each.group.conditions.get("data") not in trained_on, default=None)
    if first:
        section, texts = shorten(first.section, [each.text for each in first.statements])
        said = [replace(each, text=text) for each, text in zip(first.statements, texts, strict=True)]
        print_comparison(replace(first, section=section, statements=said), width)
    own = records[records["key"].isin(keys)] if "key" in records else records
    (table6,) = (table for table in PAPER_TABLES if table.name == "table6_ablation")
    if not (values := table6.values(own)).empty:
        print(f"{table6.title}\n")
        for section in list_sections(table6, values[values["arm"].isin(CUMULATIVE)]):
            columns = [column for column in section.only(OF_TABLE_6).columns if "step" not in column.heading]
            print(f"{render_terminal(replace(section, columns=columns), width)}\n")
