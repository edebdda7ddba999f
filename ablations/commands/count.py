"""The commands `cost`, `counters` and `closed-form`: parameters and MACs by our counts, and by those of others."""

import sys
import time
from dataclasses import dataclass
from itertools import product
from typing import Any

from ablations.cells import Cell
from ablations.commands.arms import Arms, Models
from ablations.commands.shared_flags import Command, with_flags_of
from ablations.config import ARMS, BASES, VARIANTS, AttentionKernel, build_config
from ablations.cost import count_macs, count_params
from ablations.measure import Cost, Counters
from ablations.measure.counters import TOOLS
from ablations.studies import find_study, parse_size, select, vary


@with_flags_of(Cost, plural={"resolution": ("resolutions", ()), "head": ("heads", ())})
@dataclass(frozen=True, kw_only=True)
class MeasureCost(Models):
    """Count parameters and MACs: of every table of the paper, or of what the flags name."""

    breakdown: bool = False
    """Print what each module adds by itself, too."""

    FIRST = (
        *("toggles", "arms", "variants", "bases", "model", "resolutions"),
        *("heads", "breakdown", "results", "dry_run"),
    )
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
        from ablations.report.cost import render_breakdown

        if self.breakdown:
            print(render_breakdown(records))


NAMED_MODELS_TABLES = ("models",)
"""What answers for models that were named one by one, arms among them."""


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
