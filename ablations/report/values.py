"""The numbers of the tables, computed from records.

Functions take the base of `load_records` and return one row for each row of a table, behind the conditions that it
was measured under. Values keep the records' units, which their column names carry (`latency_s`, `peak_memory_bytes`);
`top1` and its differences are fractions.
"""

import pandas as pd

from ablations.analysis.grouping import (
    REFERENCE,
    compare_with_reference,
    join_groups,
    split_by_conditions,
    split_with_models,
)
from ablations.analysis.paper import paper_cumulative
from ablations.analysis.statistics import Estimate, estimate_mean, estimate_paired_difference
from ablations.studies import CUMULATIVE


def cost_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns params and macs of each arm and resolution, and their change against arm v1 in percent."""
    groups = split_by_conditions(records, "cost")
    return join_groups(
        (group, compare_with_reference(group.rows, ["params", "macs"], ["macs_traced"])) for group in groups
    )


def memory_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the peak memory of each arm and resolution, its change against v1 in percent, and what goes with it.

    Where memory ran out there is no peak, and `out_of_memory` says what was asked for and what was free.
    """
    groups = split_by_conditions(records, "memory")
    parts = ["parameter_bytes", "input_bytes", "resident_peak_bytes", "out_of_memory"]
    return join_groups((group, compare_with_reference(group.rows, ["peak_memory_bytes"], parts)) for group in groups)


def speed_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the median latency of each arm, its interquartile range, throughput and speed relative to v1.

    `share_of_peak` is of the MACs a second that matrix products reach; an older record has none.
    """
    tables = []
    beside_v1 = records[records["reference"] == "v1"] if "reference" in records else records
    for group in split_by_conditions(beside_v1, "speed"):
        rows = group.rows.reindex(columns=[*group.rows, *{"macs_per_s", "peak_macs_per_s"} - set(group.rows)])
        table = rows[["arm", "latency_s"]].assign(latency_iqr_s=rows["latency_s"] * rows["iqr_over_median"])
        others = ["noisy", "throughput_img_per_s", "relative_speed", "relative_speed_low", "relative_speed_high"]
        share = rows["macs_per_s"] / rows["peak_macs_per_s"]
        tables.append((group, table.join(rows[others]).assign(share_of_peak=share)))
    return join_groups(tables)


def accuracy_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns each arm's mean top-1 over seeds and its paired difference to v1, with 95 % t intervals.

    Behind the arms stand other models that were trained under the same conditions: they have no `arm`, but a `model`.
    """
    tables = []
    for group in split_with_models(records, "accuracy"):
        arms = group.rows["arm"].dropna().unique()
        names = group.rows["arm"].fillna(group.rows["model"])
        by_name = {name: rows.set_index("seed")["top1"] for name, rows in group.rows.groupby(names, sort=False)}
        reference = by_name.get(REFERENCE, pd.Series(dtype=float))
        rows = []
        for name, top1 in by_name.items():
            difference = estimate_paired_difference(top1, reference.iloc[:0] if name == REFERENCE else reference)
            rows.append(
                {
                    "arm": name if name in arms else None,
                    **({} if len(arms) == len(by_name) else {"model": None if name in arms else name}),
                    **_columns("n_seeds", "top1", estimate_mean(top1.tolist())),
                    **_columns("n_pairs", "top1_difference", difference),
                    "difference_is_resolved": difference.resolved,
                }
            )
        tables.append((group, pd.DataFrame(rows)))
    return join_groups(tables)


def _columns(count: str, metric: str, estimate: Estimate) -> dict[str, float]:
    ends = {f"{metric}_mean": estimate.mean, f"{metric}_low": estimate.low, f"{metric}_high": estimate.high}
    return {count: estimate.n, **ends}


def cumulative_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the paper's path through b2 at 224 px: our counts beside the paper's, and its top-1 (Tables 2 and 6)."""
    paper = paper_cumulative()
    if "resolution" not in records:
        return pd.DataFrame()
    chosen = records[(records["variant"] == "b2") & (records["base"] == "published") & (records["resolution"] == "224")]
    tables = []
    for group in split_by_conditions(chosen, "cost"):
        if group.conditions["head"] == "classifier":
            ours = group.rows.set_index("arm")[["params", "macs"]].reindex(list(CUMULATIVE)).astype("Int64")
            table = ours.join(ours.diff().add_suffix("_step")).join(paper).dropna(subset="params")
            table = table.reset_index(names="arm")
            table.insert(0, "resolution", "224")
            tables.append((group, table))
    return join_groups(tables)


MODULES = {
    **{"patch_embed.proj": "patch_embed", "embeddings": "embeddings", "head": "head"},
    **{
        "attn.q": "attn.q",
        "attn.kv": "attn.kv",
        "attn.sr": "attn.sr",
        "attn": "attn: products",
        "attn.proj": "attn.proj",
    },
    **{"mlp.fc1": "mlp.fc1", "mlp.dwconv": "mlp.dwconv", "mlp.fc2": "mlp.fc2"},
}
MODULE_KINDS = (
    *("patch_embed", "embeddings", "attn.q", "attn.kv", "attn.sr", "attn: products", "attn.proj"),
    *("mlp.fc1", "mlp.dwconv", "mlp.fc2", "norms", "head", "other"),
)
"""What a PVT is built of; `embeddings` are those of positions and the class token, `products` attention's two."""


def module_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the params and macs of each kind of module, over all stages, of the cumulative's arms at each resolution.

    One row for each `module` of MODULE_KINDS that some arm has. Of an older record without a breakdown there are none.
    """
    tables = []
    for group in split_by_conditions(records, "cost"):
        rows = [
            {
                "resolution": record["resolution"],
                "pixels": record["pixels"],
                "arm": record["arm"],
                "module": _kind(name),
            }
            | {"params": counts["params"], "macs": counts["macs"]}
            for _, record in group.rows[group.rows["arm"].isin(CUMULATIVE)].iterrows()
            if isinstance(record.get("breakdown"), dict)
            for name, counts in record["breakdown"].items()
        ]
        if rows:
            place = ["resolution", "pixels", "arm", "module"]
            sums = pd.DataFrame(rows).groupby(place, sort=False)[["params", "macs"]].sum().reset_index()
            tables.append((group, sums))
    return join_groups(tables)


def _kind(name: str) -> str:
    """Returns the kind of a module of a breakdown: `attn.q` of `stages.0.blocks.attn.q`."""
    within = name.split(".", 2)[2].removeprefix("blocks.") if name.startswith("stages.") else name
    is_norm = within.rpartition(".")[2].rstrip("12") == "norm"
    return "norms" if is_norm else MODULES.get(within, "other")
