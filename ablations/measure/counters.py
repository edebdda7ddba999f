"""Measurement `counters`: what other people's tools count of a model's forward pass, beside its true MACs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from ablations.conditions import condition
from ablations.config import Size
from ablations.errors import refuse
from ablations.measure.measurement import MACS_PER_S, Column, Measurement, Setting, integer, table

if TYPE_CHECKING:
    from ablations.cells import Cell

Tool = Literal["torch-meta", "torch", "fvcore", "ptflops", "ptflops-aten", "thop", "calflops", "torchinfo"]
TOOLS: tuple[Tool, ...] = get_args(Tool)

WITH_MACS = ("convolution", "depth-wise convolution", "linear layer", "fused attention", "explicit attention")
"""The nets of one layer whose MACs count here; all others have none."""


@dataclass(frozen=True, kw_only=True)
class Counters(Measurement):
    """What a tool that counts FLOPs or MACs says of one image's forward pass, called as its front page says."""

    name: ClassVar[str] = "counters"
    main_metric: ClassVar[str] = "macs_counted"
    axes: ClassVar[tuple[str, ...]] = ("resolution", "tool", "arm")
    pools_machines: ClassVar[bool] = True
    takes_baselines: ClassVar[bool] = False
    columns: ClassVar[dict[str, Column]] = {
        "macs": integer("MACs of one image's forward pass.", "MACs"),
        "macs_counted": integer("The same as the tool counts them; where it counts FLOPs, half of these.", "MACs"),
        "counted_of_layers": table("What the tool counts of nets of one layer: a MAC, or a value of a layer without."),
        "tool_version": Column("Version of the tool."),
    }

    resolution: Size = condition(224)
    """Side of the input in pixels, or height and width."""
    tool: Tool = condition("fvcore")
    """What counts. `torch` is its FlopCounterMode on the CPU and `torch-meta` the same on tensors without numbers;
    `ptflops` has two ways to count."""

    @property
    def is_computed(self) -> bool:
        return True

    @property
    def package(self) -> str:
        """The Python package that the tool is."""
        return self.tool.partition("-")[0]

    def typical_seconds(self, macs: int) -> float:
        return 3 + (0 if self.tool == "torch-meta" else macs / MACS_PER_S)

    @classmethod
    def check_needs(cls, cells: Sequence[Cell], setting: Setting) -> None:
        for cell in cells:
            if find_spec(cell.conditions.package) is None:
                allowed = "one that is installed; `pip install 'pvt-ablations[counters]'` installs all of them"
                raise refuse("tool", cell.conditions.tool, allowed)

    def run(self, cell: Cell, setting: Setting) -> dict[str, Any]:
        """Counts in a process of its own: some tools replace functions of torch and do not always put them back."""
        from importlib.metadata import version

        from ablations.measure.counting_tools import count_cell
        from ablations.measure.macs import trace_macs
        from ablations.measure.network import at_any_size, input_shape, meta_network
        from ablations.measure.process import run_in_fresh_process

        macs = trace_macs(meta_network(at_any_size(cell)), input_shape(cell)).total
        counted = run_in_fresh_process(count_cell, cell, imports=("ablations.measure.counting_tools",))
        return {"macs": macs, "tool_version": version(self.package), **counted}
