"""The commands that count and measure without training: `cost`, `counters`, `closed-form`, `memory` and `speed`."""

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

from ablations.baselines.registry import ARMS_OF_LIBRARIES as LIBRARIES
from ablations.cells import Cell
from ablations.commands.arms import Arms, Models
from ablations.commands.shared_flags import Command, Force, given_conditions, with_flags_of
from ablations.config import ARMS, BASES, PAPER_TOGGLES, PVT_V1, VARIANTS, AttentionKernel, arms_of, build_config
from ablations.cost import count_macs, count_params
from ablations.flags import refuse_given
from ablations.launch import Worker
from ablations.measure import Cost, Counters, Memory, Speed
from ablations.measure.counters import TOOLS
from ablations.measure.measurement import MODES
from ablations.measure.memory import parse_stages
from ablations.studies import find_study, parse_size, select, vary
from ablations.toggle_files import take_toggles
from ablations.units import format_bytes, parse_bytes

NAMED_MODELS_TABLES = ("models",)
"""What answers for models that were named one by one, arms among them."""

Library = Literal["timm", "transformers"]


@with_flags_of(Cost, plural={"resolution": ("resolutions", ()), "head": ("heads", ())})
@dataclass(frozen=True, kw_only=True)
class MeasureCost(Models):
    """Count parameters and MACs: of every table of the paper, or of what the flags name."""

    breakdown: bool = False
    """Print what each module adds by itself, too."""

    FIRST = ("toggles", "arms", "variants", "bases", "model", "resolutions", "heads", "breakdown", "results", "dry_run")
    TABLES = ("cost",)

    def _cells(self: Any) -> list[Cell]:
        if not (self.names_arms or self.model or self.resolutions or self.heads):
            return find_study("paper").cells()
        return self._of_models(vary(Cost(), head=self.heads or ("classifier",), resolution=self.sizes((224,))))

    def answering_tables(self) -> tuple[str, ...]:
        return NAMED_MODELS_TABLES if self.model else self.TABLES

    def values_of(self, table: Any, records: Any) -> Any:
        from ablations.analysis.cost import model_values

        named = self.model and table.name in NAMED_MODELS_TABLES
        return model_values(records, arms=True) if named else table.values(records)

    def print_details(self, records: Any) -> None:
        if self.breakdown:
            from ablations.report.cost import render_breakdown

            print(render_breakdown(records, shutil.get_terminal_size().columns))


@with_flags_of(Counters, plural={"resolution": ("resolutions", ()), "tool": ("tools", TOOLS)})
@dataclass(frozen=True, kw_only=True)
class MeasureCounters(Arms):
    """Ask other people's counters of FLOPs: of the study counters, or of what the flags name."""

    attention: tuple[AttentionKernel, ...] = ("fused", "explicit")
    """Which of our kernels: most tools do not see the fused one."""

    FIRST = ("tools", "arms", "variants", "bases", "resolutions", "attention", "results", "dry_run")
    TABLES = ("counters",)

    def _cells(self: Any) -> list[Cell]:
        if not (self.names_arms or self.resolutions):
            cells = select(find_study("counters").cells(), tool=self.tools)
            return [cell for cell in cells if cell.arm_config.attention in self.attention]
        return self._of_arms(vary(Counters(), tool=self.tools, resolution=self.sizes((224,))), self.attention)


@dataclass(frozen=True, kw_only=True)
class ClosedForm(Command):
    """Print parameters and MACs of all arms, bases and published variants as CSV, in closed form."""

    resolutions: tuple[str, ...] = ("224", "256", "320", "384", "448", "512", "640", "800x1280", "1024", "2048")
    """Pixels, such as 224 or 800x1280."""

    def run(self, *_: Any) -> int:
        sizes = [(text, parse_size(text)) for text in self.resolutions]
        variants = [name for name, fields in VARIANTS.items() if "stem_stride" not in fields]
        start = time.perf_counter()
        lines = ["variant,base,arm,resolution,params,macs"]
        for variant, base, arm in product(variants, BASES, ARMS):
            config = build_config(variant, arm, base)
            params = count_params(config)
            lines += [f"{variant},{base},{arm},{text},{params},{count_macs(config, size)}" for text, size in sizes]
        seconds = time.perf_counter() - start
        print("\n".join(lines))
        print(f"{len(lines) - 1:,} counts in {seconds:.2f} s, without torch", file=sys.stderr)
        return 0


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

    FIRST = tuple("toggles arms variants model resolutions modes attention predict budget results".split())
    TABLES = ("memory", "memory_models")

    def _cells(self: Any) -> list[Cell]:
        conditions = given_conditions(self, method="predicted" if self.predict else "measured")
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
        refuse_given(self, ("verify",), "False without --budget")
        return super().run(words, worker)

    def _answer_budget(self: Any) -> int:
        """Prints what fits into a budget; with `verify` returns 1 unless all of it was measured to fit."""
        others = ("predict", "dry_run", "time_budget", "force")
        refuse_given(self, others, "no such flag beside --budget, which writes no records")
        budget_bytes = parse_bytes(self.budget)
        sizes = self.sizes((224, 512, 1024))
        every = self.cells()

        from tqdm import tqdm

        from ablations.measure.budget import answer_budgets, budget_values, verify_answer
        from ablations.measure.environment import available_cores, check_device
        from ablations.measure.network import at_any_size
        from ablations.report.memory import render_budget

        # One cell for all sizes: the first of them stands for the others.
        cells = list({at_any_size(cell): cell for cell in reversed(every)}.values())[::-1]
        if self.verify:
            check_device(self.device)
        # Without a terminal a mistake is to be the only line.
        asked = answer_budgets(cells, budget_bytes, sizes, available_cores())
        answers = list(tqdm(asked, total=len(cells), unit="cell", disable=None))
        print(f"\n{render_budget(budget_values(answers), shutil.get_terminal_size().columns)}")
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


@with_flags_of(
    Speed,
    plural={"resolution": ("resolutions", ("224",)), "mode": ("modes", MODES), "head": ("heads", ("classifier",))},
    leave_out=("reference",),
)
@dataclass(frozen=True, kw_only=True)
class MeasureSpeed(Arms):
    """Time inference and training steps of each arm, interleaved with arm v1's or with the same model of a library."""

    versus: tuple[Library, ...] = ()
    """Libraries whose models are timed beside ours, with the same weights and outputs that are compared first. Then the
    arms are those that the libraries have, as published."""
    attention: tuple[AttentionKernel, ...] = ("fused",)
    """Of our models; timm's attend with the fused kernel, transformers' explicitly."""

    FIRST = tuple("toggles arms variants versus resolutions modes batch_size repeats device results".split())
    TABLES = ("speed", "speed_libraries")

    def _cells(self: Any) -> list[Cell]:
        reference: Any = "+".join(name for name in LIBRARIES if name in self.versus) or PVT_V1
        conditions = given_conditions(self, reference=reference)
        sizes = self.sizes()
        every = arms_of(take_toggles(self.toggles) or PAPER_TOGGLES)
        shared = [arm for arm in every if all(arm in LIBRARIES[name] for name in self.versus)]
        small = any("stem_stride" in VARIANTS.get(name, {}) for name in self.variants)
        if self.versus and (small or set(sizes) != {224}):  # libraries' v1 has patches of 4 px and inputs of 224
            shared = [arm for arm in shared if arm != PVT_V1]
        bases = self.bases or (("published",) if self.versus else ())
        models = replace(self, arms=self.arms or tuple(shared), bases=bases)
        varied = vary(conditions, head=self.heads, mode=self.modes, resolution=sizes)
        return models._of_arms(varied, self.attention)
