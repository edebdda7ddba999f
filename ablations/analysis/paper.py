"""The paper's tables: our counts beside the reported numbers, and why a reported number differs.

What the paper calls GFLOPs are MACs. Differences are ours over the reported number, in percent.
"""

from collections.abc import Callable
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal
from typing import Any

import pandas as pd

from ablations.analysis.cost import by_place, standard_costs, with_whole_counts
from ablations.analysis.grouping import cached_for_records, join_groups, split_by_conditions
from ablations.baselines.registry import PAPER_TABLES
from ablations.config import ARMS, CUMULATIVE, PVT_V1, PVT_V2, PVT_V2_LI, size_text
from ablations.measure.metrics import METRICS
from ablations.paper import load_paper_table

REPORTED = {
    ("table2_imagenet", "classifier"): ("params_m", "gflops"),
    ("table3_coco", "retinanet"): ("retinanet_params_m", None),
    ("table3_coco", "mask_rcnn"): ("maskrcnn_params_m", None),
    ("table4_detectors", "fcos"): ("params_m", "gflops_1280x800"),
    ("table5_ade20k", "semantic_fpn"): ("params_m", "gflops_512"),
}
"""Of each table and head, the columns that report parameters (M) and MACs (G)."""

BUILT_AS = {"ATSS": "fcos"}
"""The head that stands for a detector of the paper's Table 4; the others are quoted."""

DIVISORS = {name: (METRICS[name].unit.lower(), METRICS[name].divisor) for name in ("params", "macs")}
"""The unit in which the paper reports a metric, as columns name it, and what divides ours for it."""

ARM_FAMILIES = {PVT_V1: "PVT v1", PVT_V2: "PVT v2", PVT_V2_LI: "PVT v2-Li"}
"""What the paper calls the arms that are rows of its Table 2."""

BASELINE_FAMILIES = {
    "ResNet": ("ResNet",),
    "ResNeXt": ("ResNeXt",),
    "RegNetY": ("RegNetY",),
    "ViT, DeiT": ("ViT", "DeiT"),
    "T2T-ViT": ("T2T",),
    "TNT": ("TNT",),
    "Swin": ("Swin",),
    "CvT": ("CvT",),
    "CoaT-Lite": ("CoaT",),
    "Twins-SVT": ("Twins",),
}
"""How the paper's names of a family's models begin."""


_BACKBONES = {PVT_V1: "PVTv1-Small", PVT_V2: "PVTv2-B2", PVT_V2_LI: "PVTv2-B2-Li"}


def paper_cumulative() -> pd.DataFrame:
    """Returns what the paper reports of the arms of CUMULATIVE, by arm; steps are differences between rows."""
    table = load_paper_table("table6_ablation")
    backbones = load_paper_table("table2_imagenet").set_index("model")
    backbones = backbones.reindex([_BACKBONES.get(arm) for arm in CUMULATIVE])
    columns = {
        "reported_setting": table["setting"],
        "reported_params_m": backbones["params_m"].to_numpy(),
        "reported_retinanet_params_step_m": table["retinanet_params_m"].diff(),
        "reported_gflops": backbones["gflops"].to_numpy(),
        "reported_top1_percent": table["top1"],
        "reported_top1_step_points": table["top1"].diff(),
    }
    return pd.DataFrame(columns).set_index(pd.Index(CUMULATIVE, name="arm"))


@cached_for_records
def cumulative_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the paper's path through b2 at 224 px: our counts and the paper's numbers (its Tables 2 and 6)."""
    if "resolution" not in records:
        return pd.DataFrame()
    chosen = records[(records["variant"] == "b2") & (records["base"] == "published") & (records["resolution"] == "224")]
    tables = []
    for group in split_by_conditions(chosen, "cost"):
        if group.conditions["head"] == "classifier":
            ours = group.rows.set_index("arm")[["params", "macs"]].reindex(list(CUMULATIVE)).astype("Int64")
            table = ours.join(ours.diff().add_suffix("_step")).join(paper_cumulative()).dropna(subset="params")
            table = table.reset_index(names="arm")
            table.insert(0, "resolution", "224")
            tables.append((group, table))
    return join_groups(tables)


def paper_values(records: pd.DataFrame, table: str) -> pd.DataFrame:
    """Returns a row for each row of a table of the paper (PAPER_TABLES) and head that there is a record of.

    Of Table 4 it returns all rows, if there is a record of any: those that are not built have reported numbers alone.
    """
    wanted = PAPER_TABLES[table]
    counted = by_place(standard_costs(records))
    reported = load_paper_table(table).rename(columns={"backbone": "model"})
    digits = 0 if table == "table4_detectors" else 1
    rows = []
    for head in wanted.heads:
        columns = dict(zip(DIVISORS, REPORTED[table, head], strict=True))
        for _, paper_row in reported.iterrows():
            detector = paper_row.get("detector")
            built = detector is None or BUILT_AS.get(detector) == head
            model, resolution = wanted.models[paper_row["model"]], size_text(wanted.resolution)
            record = counted.get((model, head, resolution)) if built else None
            if built and record is None:
                continue
            row: dict[str, Any] = {"resolution": resolution, "head": head if built else ""}
            if detector is not None:
                row |= {"row": f"{detector} {paper_row['model']}", "detector": detector}
            row |= {"name": paper_row["model"], "model": model if built else ""}
            for metric, column in columns.items():
                if column:
                    row |= _beside(metric, record, paper_row[column], digits)
                elif record is not None:
                    row[metric] = record[metric]
            if "top1" in paper_row:
                row["reported_top1_percent"] = paper_row["top1"]
            row["note"] = _note(table, paper_row, {column: metric for metric, column in columns.items()}, record)
            rows.append(row)
    values = pd.DataFrame(rows)
    return with_whole_counts(values) if not values.empty and values["head"].any() else pd.DataFrame()


def _beside(metric: str, record: pd.Series | None, reported: float, digits: int) -> dict[str, Any]:
    """Returns our count, the reported number and the difference in percent, as columns of a metric."""
    unit, divisor = DIVISORS[metric]
    ours = None if record is None or pd.isna(record[metric]) else record[metric]
    difference = None if ours is None else 100 * (ours / divisor / reported - 1)
    agrees = None if ours is None else as_reported(ours / divisor, "" if digits else "whole number") == reported
    columns = {metric: ours, f"reported_{metric}_{unit}": reported}
    return columns | {f"{metric}_difference_percent": difference, f"{metric}_rounds_to_reported": agrees}


def _note(table: str, paper_row: pd.Series, metrics: dict[Any, str], record: pd.Series | None) -> str:
    """Returns why the reported numbers of a row differ from what was counted, as far as the errata say."""
    errata = load_paper_table("errata")
    own = errata[(errata["table"] == table) & (errata["model"] == paper_row["model"])]
    notes = []
    for _, erratum in own.iterrows():
        metric = metrics.get(erratum["column"])
        words = REASONS[erratum["reason"]][0]
        explained = explain(erratum["reason"], metric, record) if metric and record is not None else None
        if explained is not None:
            words = f"{words} ({explained:.2f})"
        if isinstance(erratum["note"], str):
            words = f"{words}, {erratum['note']}"
        notes.append(f"{_METRIC_WORDS[metric]}: {words}")
    return "; ".join(notes)


_METRIC_WORDS = {"params": "parameters", "macs": "GFLOPs", None: "top-1"}


def other_layers(record: pd.Series) -> int:
    """Returns what counters of modules add for layers that only look at each value.

    Two a value for a norm with weights, one for an activation, and one for what goes into a pool.
    """
    values = record["other_values"]
    norms = sum(values.get(kind, 0) for kind in ("batch_norm", "layer_norm", "group_norm"))
    return 2 * norms + sum(values.get(kind, 0) for kind in ("relu", "activation", "pool"))


def attention_products(record: pd.Series) -> int:
    """Returns the MACs of modules that have no weights of their own: products of activations."""
    return sum(row["macs"] for row in record["breakdown"].values() if not row["params"])


REASONS: dict[str, tuple[str, Callable[[pd.Series], int] | None]] = {
    "misprint": ("misprinted, the released model has as many as ours", None),
    "source": ("reported as elsewhere", None),
    "unexplained": ("unexplained", None),
    "whole number": ("rounded to a whole number", None),
    "cut off": ("what cutting off gives, not rounding", None),
    "other layers": ("what counting norms, activations and pools too gives", other_layers),
    "no attention": ("what leaving attention's products out gives", lambda record: -attention_products(record)),
}
"""Why a reported number differs: in words, and what its counter adds to ours where that can be counted."""


def explain(reason: str, metric: str, record: pd.Series) -> float | None:
    """Returns what the paper's counter would give by an erratum's reason (M or G), or None where no count does."""
    added = REASONS[reason][1]
    if added is None or not isinstance(record.get("other_values"), dict):  # Mask R-CNN's are not counted
        return None
    return (record[metric] + added(record)) / DIVISORS[metric][1]


def as_reported(value: float, reason: str = "") -> float:
    """Returns a value (M or G) with one decimal as the paper reports it, for the reason of an erratum.

    Counters give two decimals, which are rounded once more.
    """
    exact = Decimal(repr(float(value)))  # numpy's floats have another repr
    if reason == "whole number":
        return float(exact.quantize(Decimal("1"), ROUND_HALF_UP))
    if reason == "cut off":
        return float(exact.quantize(Decimal("0.1"), ROUND_FLOOR))
    if reason:
        exact = exact.quantize(Decimal("0.01"), ROUND_HALF_UP)
    return float(exact.quantize(Decimal("0.1"), ROUND_HALF_UP))


def table6_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the RetinaNets of Table 6 on b2's arms: in base `published` beside the paper's rows, and all others.

    Steps are differences to the row above, in the paper's order.
    """
    costs = standard_costs(records)
    chosen = costs[(costs["variant"] == "b2") & (costs["head"] == "retinanet") & (costs["resolution"] == "800x1280")]
    reported = load_paper_table("table6_ablation").set_index(pd.Index(CUMULATIVE))
    columns = {"params": "retinanet_params_m", "macs": "retinanet_gflops_1280x800"}
    tables = []
    for base, rows in chosen.groupby("base", sort=False):
        table = rows.set_index("arm")[["params", "macs"]].reindex(ARMS).dropna(how="all").astype("Int64")
        for metric, (unit, divisor) in DIVISORS.items():
            table[f"{metric}_step"] = table[metric].reindex(list(CUMULATIVE)).diff().reindex(table.index)
            if base == "published":
                column = reported[columns[metric]]
                table[f"reported_{metric}_{unit}"] = column.reindex(table.index)
                table[f"reported_{metric}_step_{unit}"] = column.diff().reindex(table.index)
                ours = table[metric].astype(float) / divisor
                table[f"{metric}_difference_percent"] = 100 * (ours / table[f"reported_{metric}_{unit}"] - 1)
        if base == "published":
            table.insert(0, "reported_setting", reported["setting"].reindex(table.index))
            table["reported_ap_percent"] = reported["retinanet_ap"].reindex(table.index)
            if not (ours := _ap_on_coco(records)).empty:
                table["ap_on_coco"] = ours.reindex(table.index)
        conditions = {"variant": "b2", "base": base, "head": "retinanet", "resolution": "800x1280"}
        table = table.rename_axis("arm").reset_index()
        tables.append(pd.concat([pd.DataFrame([conditions] * len(table)), table], axis="columns"))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _ap_on_coco(records: pd.DataFrame) -> pd.Series:
    """Returns the mean AP by arm of b2's RetinaNets that were trained on COCO here, at the paper's size."""
    wanted: dict[str, Any] = {
        "measurement": "detection",
        "data": "coco",
        "head": "retinanet",
        "variant": "b2",
        "base": "published",
    }
    wanted |= {"resolution": "800", "pyramid_width": 256, "tuning_images": 0, "train_images": 0}
    chosen = records
    for name, value in wanted.items():
        chosen = chosen[chosen[name] == value] if name in chosen else chosen.iloc[:0]
    return chosen.groupby("arm")["ap"].mean().astype(float) if "ap" in chosen else pd.Series(dtype=float)


@cached_for_records
def imagenet_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns `paper_values` of Table 2, each row with its `family`, and its `arm` if it is one."""
    values = paper_values(records, "table2_imagenet")
    if values.empty:
        return values
    arms = values["model"].str.split("/").str[1].where(values["model"].str.startswith("pvt:"))
    families = [
        ARM_FAMILIES[arm] if pd.notna(arm) else _baseline_family(name)
        for name, arm in zip(values["name"], arms, strict=True)
    ]
    return values.assign(arm=arms, family=families)


def _baseline_family(name: str) -> str:
    return next(family for family, beginnings in BASELINE_FAMILIES.items() if name.startswith(beginnings))
