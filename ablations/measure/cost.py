"""Measurement `cost`: parameters and MACs of one image's forward pass, counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from ablations.conditions import condition
from ablations.config import Size
from ablations.cost import count_macs, count_params, has_closed_form
from ablations.measure.measurement import COUNT, Column, Measurement, Setting, integer, table

if TYPE_CHECKING:
    from ablations.cells import Cell

Head = Literal["classifier", "retinanet", "mask_rcnn", "fcos", "semantic_fpn"]
HEADS: tuple[Head, ...] = get_args(Head)


@dataclass(frozen=True, kw_only=True)
class Cost(Measurement):
    """Parameters and MACs of one image's forward pass."""

    name: ClassVar[str] = "cost"
    main_metric: ClassVar[str] = "params"
    responses: ClassVar[tuple[str, ...]] = ("params", "macs")
    axes: ClassVar[tuple[str, ...]] = ("resolution", "arm")
    pools_machines: ClassVar[bool] = True
    columns: ClassVar[dict[str, Column]] = {
        "params": integer("Parameters.", "parameters"),
        "macs": integer("MACs of one image's forward pass.", "MACs"),
        "macs_traced": integer("The same by tracing, where macs is in closed form.", "MACs"),
        "macs_by_operator": table("The same by the operator's name.", "MACs", of={"*": COUNT}),
        "breakdown": table(
            "params and macs of each module by itself; repeated blocks are one.",
            of={"*": {"params": COUNT, "macs": COUNT}},
        ),
        "other_values": table("Values that layers without MACs read, by kind of layer.", "values", of={"*": COUNT}),
        "counted_on": Column("What was traced where a model does not run on shapes alone: real tensors."),
        "refused": Column("Why the model cannot take this input."),
    }

    resolution: Size = condition(224)
    """Side of the input in pixels, or height and width."""
    head: Head = condition("classifier")
    """What stands on the backbone: its own classifier, a detector for COCO's 80 classes, or Semantic FPN for 150."""

    @property
    def is_computed(self) -> bool:
        return True

    @classmethod
    def check_needs(cls, cells: Sequence[Cell], setting: Setting) -> None:
        from ablations.measure.network import check_builds

        check_builds(cells)

    def run(self, cell: Cell, setting: Setting) -> dict[str, Any]:
        """Counts; where a model refuses the size, or an image's content decides the work, there are no MACs."""
        from ablations.measure.macs import trace_macs
        from ablations.measure.network import (
            REFUSALS,
            at_any_size,
            input_shape,
            made_ready,
            meta_network,
            refusal,
            traceable_part,
        )

        shape = input_shape(cell)
        network = made_ready(meta_network(at_any_size(cell)), shape)
        params = {name: parameter.numel() for name, parameter in network.named_parameters()}
        result: dict[str, Any] = {"params": sum(params.values()), "macs": None}
        part = traceable_part(network, self.head)
        if part is None:
            return result | {"refused": "the second stage's work depends on what the first proposes"}
        try:
            traced = trace_macs(part, shape)
        except REFUSALS as error:
            return result | {"refused": refusal(error, cell, part, shape)}
        if cell.config is not None and self.head == "classifier" and has_closed_form(cell.config):
            counted = count_macs(cell.config, self.resolution), count_params(cell.config)
            if counted != (traced.total, result["params"]):
                raise RuntimeError(
                    f"closed form {counted}, trace {(traced.total, result['params'])}: (macs, params) differ"
                )
            result["macs_traced"] = traced.total
        if traced.on_real_tensors:
            result["counted_on"] = "real tensors"
        return result | {
            "macs": traced.total,
            "macs_by_operator": traced.by_operator,
            "breakdown": _break_down(params, traced.by_module),
            "other_values": traced.other_values,
        }


def _break_down(params: dict[str, int], macs: dict[str, int]) -> dict[str, dict[str, int]]:
    """Returns what each module has by itself, from parameters by name and MACs by module.

    Repeated blocks are one row: a module's name loses its numbers, but for those of `stages` and `layers`.
    """
    rows: dict[str, Counter[str]] = {}
    owners = [(name.rpartition(".")[0], "params", count) for name, count in params.items()]
    for name, metric, count in [*owners, *((name, "macs", count) for name, count in macs.items())]:
        merged = re.sub(r"(?<!^stages)(?<!^layers)(?<!\.stages)(?<!\.layers)\.\d+(?=\.|$)", "", name)
        rows.setdefault(merged, Counter())[metric] += count
    return {name: {"params": row["params"], "macs": row["macs"]} for name, row in rows.items()}
