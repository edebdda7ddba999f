"""The command `speed`: times arms, interleaved with a reference."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from ablations.baselines.registry import ARMS_OF_LIBRARIES as LIBRARIES
from ablations.cells import Cell
from ablations.commands.arms import Arms
from ablations.commands.shared_flags import given_conditions, with_flags_of
from ablations.config import PAPER_TOGGLES, PVT_V1, VARIANTS, AttentionKernel, arms_of
from ablations.measure import Speed
from ablations.measure.measurement import MODES
from ablations.studies import vary
from ablations.toggle_files import take_toggles

Library = Literal["timm", "transformers"]


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

    FIRST = (
        *("toggles", "arms", "variants", "versus", "resolutions", "modes", "batch_size"),
        *("repeats", "device", "results"),
    )
    TABLES = ("speed", "speed_libraries")

    def _cells(self: Any) -> list[Cell]:
        reference: Any = "+".join(name for name in LIBRARIES if name in self.versus) or PVT_V1
        conditions = given_conditions(self, Speed, ("resolution", "mode", "reference", "head"))
        sizes = self.sizes()
        every = arms_of(take_toggles(self.toggles) or PAPER_TOGGLES)
        shared = [arm for arm in every if all(arm in LIBRARIES[name] for name in self.versus)]
        small = any("stem_stride" in VARIANTS.get(name, {}) for name in self.variants)
        if self.versus and (small or set(sizes) != {224}):  # libraries' v1 has patches of 4 px and inputs of 224
            shared = [arm for arm in shared if arm != PVT_V1]
        bases = self.bases or (("published",) if self.versus else ())
        models = replace(self, arms=self.arms or tuple(shared), bases=bases)
        varied = vary(replace(conditions, reference=reference), head=self.heads, mode=self.modes, resolution=sizes)
        return models._of_arms(varied, self.attention)
