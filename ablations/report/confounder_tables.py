"""The tables of what comes with the change of base: how much of the published first step it is."""

from functools import partial

from ablations.analysis.grouping import CONDITIONS
from ablations.records import METRICS
from ablations.report.effect_choice import bases_beside
from ablations.report.tables import PAIRED, Column, Table, show_interval, show_plain, show_points, show_signed


def _share_of_step(metric: str) -> Column:
    return Column("of the step, %", show_plain(f"{metric}_share_percent", "+z.0f"))


def _confounder_table(
    measurement: str,
    words: str,
    *,
    titled_by: tuple[str, ...],
    columns: tuple[Column, ...] = (),
    spread: tuple[Column, ...] = (),
    how: str,
) -> Table:
    return Table(
        name=f"confounders_{measurement}",
        measurement=measurement,
        title=f"How much of the published first step is the base: {words}",
        values=partial(bases_beside, measurement=measurement),
        conditions=tuple(name for name in CONDITIONS[measurement] if name != "base"),
        titled_by=titled_by,
        rows_by="part",
        columns=(Column("Part", lambda row: row["part"]), *columns),
        spread=spread,
        about=(
            "The paper's row v1+ope has v2's confounders (no position embedding, average pooling, a norm after every stage) "
            "and its v1 has v1's. The published step is the change of base at v1 and then ope in base v2, or ope in "
            "base v1 and then the change of base. The ReLU of the released linear models is the other difference "
            f"between the published cumulative and base v2. {how}"
        ),
    )


CONFOUNDER_TABLES: tuple[Table, ...] = (
    _confounder_table(
        "cost",
        "parameters and MACs",
        titled_by=("variant", "head"),
        columns=(Column(METRICS["params"].title, show_signed("params", "params_part")), _share_of_step("params")),
        spread=(Column("{} px: " + METRICS["macs"].title, show_signed("macs", "macs_part")), _share_of_step("macs")),
        how="In brackets in percent of arm v1 in base v1. Exact.",
    ),
    _confounder_table(
        "memory",
        "peak memory",
        titled_by=("variant", "mode", "attention", "device", "method"),
        spread=(
            Column("{} px: MiB", show_signed("peak_memory_bytes", "peak_memory_bytes_part")),
            _share_of_step("peak_memory_bytes"),
        ),
        how="In brackets in percent of arm v1 in base v1. Exact.",
    ),
    _confounder_table(
        "accuracy",
        "accuracy",
        titled_by=("data", "variant"),
        columns=(
            Column("n", show_plain("n_pairs", "d")),
            Column("Points of top-1", show_points("top1_part")),
            Column("95 % interval", show_interval("top1_part")),
        ),
        how=PAIRED,
    ),
)
"""One for each measurement."""
