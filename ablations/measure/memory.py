"""Measurement `memory`: the peak of one inference or training step, measured in fresh processes or predicted."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ablations.conditions import condition
from ablations.config import NUM_STAGES
from ablations.errors import refuse
from ablations.measure.measurement import (
    COUNT,
    LARGEST,
    MACS_PER_S,
    Column,
    Device,
    Setting,
    StepMeasurement,
    integer,
    table,
)

if TYPE_CHECKING:
    from ablations.cells import Cell

Method = Literal["measured", "predicted"]


@dataclass(frozen=True, kw_only=True)
class Memory(StepMeasurement):
    """Peak memory of one inference or of one training step (forward, backward, AdamW), counted from the second on."""

    name: ClassVar[str] = "memory"
    main_metric: ClassVar[str] = "peak_memory_bytes"
    needed: ClassVar[tuple[str, ...]] = ("memory_method",)
    responses: ClassVar[tuple[str, ...]] = ("peak_memory_bytes",)
    axes: ClassVar[tuple[str, ...]] = ("resolution", "arm")
    split_by: ClassVar[tuple[str, ...]] = ("memory_method",)
    columns: ClassVar[dict[str, Column]] = {
        "peak_memory_bytes": integer("Peak memory of the step.", "B"),
        "memory_method": Column("How the peak was found."),
        "parameter_bytes": integer("What the parameters take.", "B"),
        "input_bytes": integer("What the images take.", "B"),
        "resident_peak_bytes": integer(
            "What a process of its own grew by at its peak, kernels' buffers included.", "B"
        ),
        "resident_method": Column("How that was found."),
        "peak_reserved_bytes": integer("What CUDA's allocator held at its peak.", "B"),
        "left_over_bytes": integer(
            "What was still allocated after the step beside what it began with.", "B", least=-LARGEST
        ),
        "out_of_memory": Column("What was asked for and what was free, where memory ran out."),
        "refused": Column("Why the model cannot take this input."),
        "peak_operator": Column("The operator that reached the predicted peak."),
        "peak_phase": Column("Where in the step that was."),
        "bytes_at_peak": table("What the predicted peak is made of, by kind.", "B", of={"*": COUNT}),
        "activations_by_stage": table(
            "Activations at the predicted peak, by the stage that made them.", "B", of={"*": COUNT}
        ),
    }

    device: Device = condition("cpu")
    """Where it runs, or whose memory is predicted."""
    method: Method = condition("measured")
    """`predicted` runs shapes alone, for a device that need not be there."""
    channels_last: bool = condition(True)
    """Whether images and the weights of convolutions lie in memory channels-last, or channels-first."""
    checkpointing: str = condition("none")
    """Stages whose blocks keep no activations and run anew in the backward pass: `none`, or such as `1` or `1+2`."""

    def check(self) -> None:
        super().check()
        if parse_stages(self.checkpointing) and self.mode != "training":
            raise refuse("checkpointing", self.checkpointing, "none where mode is inference: nothing is kept there")

    @property
    def is_computed(self) -> bool:
        return self.method == "predicted"

    def environment(self, setting: Setting) -> dict[str, Any]:
        return {} if self.is_computed else {"keeps_freed_memory": False}

    def typical_seconds(self, macs: int) -> float:
        if self.is_computed:
            return 0.3 if self.mode == "inference" else 1.0
        fixed, steps = (0.5, 5) if self.mode == "inference" else (0.8, 15)
        return fixed + steps * self.batch_size * macs / MACS_PER_S

    @property
    def step(self) -> dict[str, Any]:
        return super().step | {"channels_last": self.channels_last}

    @classmethod
    def check_needs(cls, cells: Sequence[Cell], setting: Setting) -> None:
        from ablations.measure.network import check_builds

        check_builds(cells)

    def run(self, cell: Cell, setting: Setting) -> dict[str, Any]:
        """Measures in fresh processes, or predicts in this one; a refused size and too little memory are results."""
        if self.method == "predicted":
            return self._predict(cell)
        from ablations.measure.network import build_network_on, input_shape
        from ablations.measure.peak_memory import METHODS, MIB, measure_in_process
        from ablations.measure.process import available_memory

        unknown = {"peak_memory_bytes": None, "memory_method": METHODS[self.device]}
        predicted: dict[str, Any] = {}
        with suppress(Exception):  # whatever a strange model may do; the measurement has a limit of its own
            predicted = self._predict(cell)
        if "refused" in predicted:
            return unknown | {"refused": predicted["refused"]}
        if self.device == "cpu" and not setting.force:
            needed, free = predicted.get("peak_memory_bytes", 0), available_memory("cpu")
            if needed > free:
                told = f"predicted to need {needed / MIB:.1f} MiB, free {free / MIB:.1f} MiB; not run"
                return unknown | {"out_of_memory": told}
        build = partial(build_network_on, self.device, cell)
        return measure_in_process(build, input_shape(cell, self.batch_size), **self.step)

    def _predict(self, cell: Cell) -> dict[str, Any]:
        import torch

        from ablations.measure.macs import copy_to_meta
        from ablations.measure.network import REFUSALS, input_shape, made_ready, meta_network, refusal
        from ablations.measure.predict import predict_peak_memory

        # Only these decide the network, or change it and stay: one network serves all other conditions.
        fields = ("head", "checkpointing", "channels_last")
        kept = Memory(mode="training", **{name: getattr(self, name) for name in fields})
        network, shape = meta_network(replace(cell, conditions=kept)), input_shape(cell, self.batch_size)
        if cell.config is None:
            network = copy_to_meta(made_ready(network, shape))
        try:
            with nullcontext() if cell.config else torch.device("meta"):  # for what a model makes itself
                return predict_peak_memory(network, shape, **self.step)
        except REFUSALS as error:
            why = refusal(error, cell, network, shape)
            return {"peak_memory_bytes": None, "memory_method": "predicted_storages", "refused": why}


def parse_stages(checkpointing: str) -> tuple[int, ...]:
    """Returns the stages, from 1, that a text such as `1+2` names; none for `none`. Raises InputError for another."""
    if checkpointing == "none":
        return ()
    stages = checkpointing.split("+")
    if stages != sorted(set(stages) & {str(stage) for stage in range(1, NUM_STAGES + 1)}):
        raise refuse("checkpointing", checkpointing, "none, or stages in their order, such as 1, 1+2 or 1+2+3+4")
    return tuple(map(int, stages))
