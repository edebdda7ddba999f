"""How far other people's counters of FLOPs are from the true MACs, and what each of them leaves out."""

from typing import get_args

import pandas as pd

from ablations.analysis.grouping import CONDITIONS, group_by, join_groups, split_by_conditions, without
from ablations.config import AttentionKernel
from ablations.measure.counters import TOOLS, WITH_MACS

KERNELS: tuple[AttentionKernel, ...] = get_args(AttentionKernel)

TRUE = "true count"
"""What stands in the place of a tool in the row of the true MACs."""

COUNTER_CONDITIONS = without(CONDITIONS["counters"], "attention")
"""The columns that are equal within one arm's rows, which have the kernels of attention side by side."""

FAINT = 0.01
"""A share or a value of which a tool counts less is none: what is left of rounding."""


def counter_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each arm, tool and size of the input, the true count's first.

    For each kernel of attention it has the MACs that the tool counts, `macs_fused` and `macs_explicit`, and by how
    many percent that is off the true ones. `leaves_out` and `counts_beside` say in words what the tool counts
    otherwise than here, as nets of one layer show.
    """
    groups = split_by_conditions(records, "counters")
    if not groups:
        return pd.DataFrame()
    arms = group_by(pd.concat([group.rows for group in groups]), (*COUNTER_CONDITIONS, "arm"))
    return join_groups((arm, _by_kernel(arm.rows)) for arm in arms)


def _by_kernel(rows: pd.DataFrame) -> pd.DataFrame:
    table = []
    for (resolution, pixels), at in rows.groupby(["resolution", "pixels"], sort=False):
        place = {"resolution": resolution, "pixels": pixels}
        true = dict(zip(at["attention"], at["macs"], strict=True))
        table.append({**place, "tool": TRUE} | {f"macs_{kernel}": true.get(kernel) for kernel in KERNELS})
        for tool in (name for name in TOOLS if name in set(at["tool"])):
            own = at[at["tool"] == tool]
            counted = dict(zip(own["attention"], own["macs_counted"], strict=True))
            layers = own["counted_of_layers"].iloc[0]
            row = {**place, "tool": tool, "leaves_out": _left_out(layers), "counts_beside": _beside(layers)}
            for kernel in KERNELS:
                macs = counted.get(kernel)
                row[f"macs_{kernel}"] = macs
                row[f"macs_{kernel}_off_percent"] = None if macs is None else 100 * (macs / true[kernel] - 1)
            table.append(row)
    return pd.DataFrame(table)


def _left_out(layers: dict[str, float]) -> str:
    """Returns what a tool counts less of than there is, in words."""
    words = [
        name if layers[name] < FAINT else f"{name} (all but 1 of {round(1 / layers[name])} tokens)"
        for name in WITH_MACS
        if layers[name] < 1 - FAINT
    ]
    return ", ".join(words).replace("fused attention, explicit attention", "attention's products")


def _beside(layers: dict[str, float]) -> str:
    """Returns what a tool counts that are no MACs, in words, with the count of a value."""
    return ", ".join(
        f"{name} {count:.3g}" for name, count in layers.items() if name not in WITH_MACS and count >= FAINT
    )
