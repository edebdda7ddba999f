"""The command `memory`: measures or predicts peak memory, or says what fits into a budget."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from ablations.cells import Cell
from ablations.commands.arms import Models
from ablations.commands.shared_flags import Force, given_conditions, with_flags_of
from ablations.config import AttentionKernel
from ablations.errors import refuse
from ablations.launch import Worker
from ablations.measure import Memory
from ablations.measure.measurement import MODES
from ablations.measure.memory import parse_stages
from ablations.studies import vary
from ablations.units import format_bytes, parse_bytes


@with_flags_of(
    Memory,
    plural={
        "resolution": ("resolutions", ()),
        "mode": ("modes", MODES),
        "checkpointing": ("checkpointing", ("none",)),
        "head": ("heads", ("classifier",)),
    },
    leave_out=("method",),
)
@dataclass(frozen=True, kw_only=True)
class MeasureMemory(Force, Models):
    """Measure peak memory of inference and of training steps, or predict it."""

    predict: bool = False
    """Run shapes alone: in about a second a cell at any size, and for a device that need not be there."""
    budget: str | None = None
    """Such as 24GiB or 16GB: print the largest image and the largest batch at each of the resolutions that fit."""
    verify: bool = False
    """With --budget: measure what fits, on the device."""
    attention: tuple[AttentionKernel, ...] = ()
    """Both by default, with --budget the fused kernel."""

    FIRST = (
        *("toggles", "arms", "variants", "model", "resolutions", "modes", "attention", "predict"),
        *("budget", "results"),
    )
    TABLES = ("memory", "memory_models")

    def _cells(self: Any) -> list[Cell]:
        left_out = ("resolution", "mode", "method", "checkpointing", "head")
        method = "predicted" if self.predict else "measured"
        conditions = replace(given_conditions(self, Memory, left_out), method=method)
        for stages in self.checkpointing:
            parse_stages(stages)
        sizes = self.sizes((224, 512, 1024, 2048, 4096) if self.predict else (224, 512, 1024))
        varied = [
            each
            for mode in self.modes
            for stages in (self.checkpointing if mode == "training" else ("none",))
            for each in vary(conditions, head=self.heads, mode=(mode,), checkpointing=(stages,), resolution=sizes)
        ]
        return self._of_models(varied, self.attention or (("fused",) if self.budget else ("fused", "explicit")))

    def run(self, words: Sequence[str], worker: Worker | None, /) -> int:
        if self.budget is not None:
            return self._answer_budget()
        if self.verify:
            raise refuse("verify", True, "False without --budget")
        return super().run(words, worker)

    def _answer_budget(self: Any) -> int:
        """Prints what fits into a budget; with `verify` returns 1 unless all of it was measured to fit."""
        for name in ("predict", "dry_run", "time_budget", "force"):
            if getattr(self, name):
                raise refuse(name, getattr(self, name), "no such flag beside --budget, which writes no records")
        budget_bytes = parse_bytes(self.budget)
        sizes = self.sizes((224, 512, 1024))
        # One cell for all sizes: the first of them stands for the others.
        cells = list({_without_size(cell): cell for cell in reversed(self.cells())}.values())[::-1]

        from tqdm import tqdm

        from ablations.measure.budget import answer_budgets, budget_values, verify_answer
        from ablations.measure.environment import available_cores, check_device
        from ablations.report.memory import render_budget

        if self.verify:
            check_device(self.device)
        # Without a terminal a mistake is to be the only line.
        asked = answer_budgets(cells, budget_bytes, sizes, available_cores())
        answers = list(tqdm(asked, total=len(cells), unit="cell", disable=None))
        print(f"\n{render_budget(budget_values(answers))}")
        fits = True
        for cell, answer in zip(cells, answers, strict=True) if self.verify else ():
            for check in verify_answer(answer, cell):
                fits = fits and check.fits is True
                came = f"; not verified: {check.note}"
                if check.measured_bytes is not None:
                    verdict = "fits" if check.fits else "does not fit"
                    came = f", measured {format_bytes(check.measured_bytes)}: {verdict}"
                where = f"{cell.name} {cell.conditions.mode} at {check.resolution} px, batch {check.batch_size}"
                print(f"{where}: predicted {format_bytes(check.predicted_bytes)}{came}")
        return 0 if fits else 1


def _without_size(cell: Cell) -> Cell:
    return replace(cell, conditions=replace(cast(Any, cell.conditions), resolution=Memory.resolution))
