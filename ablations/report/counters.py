"""How other people's tools count FLOPs: the table."""

import pandas as pd

from ablations.analysis.counters import COUNTER_CONDITIONS, KERNELS, counter_values
from ablations.report.tables import NOTHING, Show, Table, TableColumn, metric_text


def _show_count(kernel: str) -> Show:
    """Shows the MACs that a tool counts and, in brackets, by how much that is off."""

    def show(row: pd.Series) -> str:
        macs, off = row[f"macs_{kernel}"], row.get(f"macs_{kernel}_off_percent")
        if pd.isna(macs):
            return NOTHING
        return metric_text("macs", macs) + ("" if pd.isna(off) else f" ({off:+z.1f} %)")

    return show


TABLES = (
    Table(
        name="counters",
        measurement="counters",
        title="How other tools count the FLOPs of these models",
        values=counter_values,
        conditions=(*COUNTER_CONDITIONS, "arm"),
        titled_by=("variant", "arm", "base"),
        rows_by="tool",
        columns=(
            TableColumn("Tool", "tool"),
            TableColumn("Leaves out", "leaves_out"),
            TableColumn("Counts too, for each value", "counts_beside"),
        ),
        spread=tuple(TableColumn("{} px, " + f"{kernel} attention: GMACs", _show_count(kernel)) for kernel in KERNELS),
        about=(
            "What tools say of one image's forward pass, in G, and in brackets how far that is off the true count of "
            "convolutions and matrix products. Each is called as its front page says: `torch` is its FlopCounterMode "
            "on the CPU, `torch-meta` the same on tensors without numbers, and ptflops has two ways to count. torch "
            "counts FLOPs, two a MAC, which are halved here; fvcore and thop say FLOPs and mean MACs; of calflops the "
            "table has the MACs. Nets of one layer show what a tool leaves out, and what it adds for each value of a "
            "layer that has no MACs here."
        ),
    ),
)
"""The table of other people's counts."""

FIGURES = ()
