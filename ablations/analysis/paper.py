"""Our counts beside the paper's prints: one row for each row of its tables, and why a print differs.

What the paper calls GFLOPs are MACs. Differences are ours over the print, in percent.
"""

from collections.abc import Callable
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal
from typing import Any

import pandas as pd

from ablations.catalogue import FAMILIES, MODELS, OWN_RESOLUTIONS, PAPER_TABLES
from ablations.config import ARMS, PAPER_TOGGLES, PVT_V1, PVT_V2, PVT_V2_LI, VARIANTS, arm_name, build_config
from ablations.paper import load_paper_table

PRINTED = {
    ("table2_imagenet", "classifier"): ("params_m", "gflops"),
    ("table3_coco", "retinanet"): ("retinanet_params_m", None),
    ("table3_coco", "mask_rcnn"): ("maskrcnn_params_m", None),
    ("table4_detectors", "fcos"): ("params_m", "gflops_1280x800"),
    ("table5_ade20k", "semantic_fpn"): ("params_m", "gflops_512"),
}
"""Of each table and head, the columns that print parameters (M) and MACs (G)."""

BUILT_AS = {"ATSS": "fcos"}
"""The head that stands for a detector of the paper's Table 4; the others are quoted."""

NAMES = {model: name for name, model in MODELS.items()}
"""The paper's names of models, by ours."""


def standard_costs(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the cost records of models as their names say they are: no other P, classes or attention kernel."""
    costs = records[records["measurement"] == "cost"]
    costs = costs.reindex(columns=list(dict.fromkeys([*costs, "head", "resolution", "pixels", "params", "macs"])))
    if "pool_size" not in costs:
        return costs
    defaults = {variant: build_config(variant).pool_size for variant in VARIANTS}
    is_arm = costs["arm"].notna()
    changed = is_arm & ((costs["pool_size"] != costs["variant"].map(defaults)) | (costs["attention"] != "fused"))
    return costs[~changed.fillna(False)]


def paper_values(records: pd.DataFrame, table: str) -> pd.DataFrame:
    """Returns a row for each row of a table of the paper (PAPER_TABLES) and head that there is a record of.

    Of Table 4 it returns all rows, if there is a record of any: those that are not built have the print alone.
    """
    wanted = PAPER_TABLES[table]
    counted = _by_place(standard_costs(records))
    printed = load_paper_table(table).rename(columns={"backbone": "model"})
    rows = []
    for head in wanted.heads:
        params_column, macs_column = PRINTED[table, head]
        for _, print_row in printed.iterrows():
            detector = print_row.get("detector")
            built = detector is None or BUILT_AS.get(detector) == head
            record = counted.get((wanted.models[print_row["model"]], head, _size_text(wanted.resolution)))
            if built and record is None:
                continue
            row: dict[str, Any] = {"resolution": _size_text(wanted.resolution), "head": head if built else ""}
            if detector is not None:
                row |= {"row": f"{detector} {print_row['model']}", "detector": detector}
            row |= {"name": print_row["model"], "model": wanted.models[print_row["model"]] if built else ""}
            digits = 0 if table == "table4_detectors" else 1
            row |= _beside("params", "m", record if built else None, print_row[params_column], digits)
            if macs_column:
                row |= _beside("macs", "g", record if built else None, print_row[macs_column], digits)
            elif record is not None:
                row["macs"] = record["macs"]
            if "top1" in print_row:
                row["paper_top1_percent"] = print_row["top1"]
            columns = {params_column: "params", macs_column: "macs", "top1": None}
            row["note"] = _note(table, print_row, columns, record)
            rows.append(row)
    values = pd.DataFrame(rows)
    if values.empty or not values["head"].any():
        return pd.DataFrame()
    return _with_whole_counts(values)


def _with_whole_counts(table: pd.DataFrame) -> pd.DataFrame:
    return table.astype({name: "Int64" for name in ("params", "macs") if name in table})


def _beside(metric: str, unit: str, record: pd.Series | None, printed: float, digits: int) -> dict[str, Any]:
    """Returns our count, the paper's print and the difference in percent, as columns of a metric."""
    divisor = {"m": 1e6, "g": 1e9}[unit]
    ours = None if record is None else record[metric]
    if ours is None or pd.isna(ours):
        difference, agrees = None, None
    else:
        difference = 100 * (ours / divisor / printed - 1)
        agrees = as_printed(ours / divisor, "" if digits else "whole number") == printed
    columns = {metric: ours, f"paper_{metric}_{unit}": printed}
    return columns | {f"{metric}_difference_percent": difference, f"{metric}_rounds_to_print": agrees}


def _by_place(costs: pd.DataFrame) -> dict[tuple[str, str, str], pd.Series]:
    return {(row["model"], row["head"], row["resolution"]): row for _, row in costs.iterrows()}


def _size_text(size: int | tuple[int, int]) -> str:
    return str(size) if isinstance(size, int) else f"{size[0]}x{size[1]}"


def _note(table: str, printed: pd.Series, columns: dict[Any, str | None], record: pd.Series | None) -> str:
    """Returns why the prints of a row differ from what was counted, as far as the errata say."""
    errata = load_paper_table("errata")
    own = errata[(errata["table"] == table) & (errata["model"] == printed["model"])]
    notes = []
    for _, erratum in own.iterrows():
        metric = columns.get(erratum["column"])
        words = REASONS[erratum["reason"]][0]
        explained = explain(erratum["reason"], metric, record) if metric and record is not None else None
        if explained is not None:
            words = f"{words} ({explained:.2f})"
        if isinstance(erratum["note"], str):
            words = f"{words}, {erratum['note']}"
        notes.append(f"{_COLUMN_WORDS[metric]}: {words}")
    return "; ".join(notes)


_COLUMN_WORDS = {"params": "parameters", "macs": "GFLOPs", None: "top-1"}


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
    "source": ("printed as elsewhere", None),
    "unexplained": ("unexplained", None),
    "whole number": ("rounded to a whole number", None),
    "cut off": ("what cutting off gives, not rounding", None),
    "other layers": ("what counting norms, activations and pools too gives", other_layers),
    "no attention": ("what leaving attention's products out gives", lambda record: -attention_products(record)),
}
"""Why a print differs: in words, and what its counter adds to ours where that can be counted."""


def explain(reason: str, metric: str, record: pd.Series) -> float | None:
    """Returns what the paper's counter would give by an erratum's reason (M or G), or None where no count does."""
    added = REASONS[reason][1]
    if added is None or not isinstance(record.get("other_values"), dict):  # an older record lacks them
        return None
    return (record[metric] + added(record)) / (1e6 if metric == "params" else 1e9)


def as_printed(value: float, reason: str = "") -> float:
    """Returns a value (M or G) with one decimal as the paper prints it, for the reason of an erratum.

    Counters print two decimals, which are rounded once more.
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
    printed = load_paper_table("table6_ablation")
    printed.index = pd.Index([cumulative_arm(row) for _, row in printed.iterrows()])
    tables = []
    for base, rows in chosen.groupby("base", sort=False):
        table = rows.set_index("arm")[["params", "macs"]].reindex(ARMS).dropna(how="all").astype("Int64")
        for metric, unit, column in (("params", "m", "retinanet_params_m"), ("macs", "g", "retinanet_gflops_1280x800")):
            cumulative = table[metric].reindex(printed.index)
            table[f"{metric}_step"] = cumulative.diff().reindex(table.index)
            if base == "published":
                table[f"paper_{metric}_{unit}"] = printed[column].reindex(table.index)
                table[f"paper_{metric}_step_{unit}"] = printed[column].diff().reindex(table.index)
                ours = table[metric].astype(float) / {"m": 1e6, "g": 1e9}[unit]
                table[f"{metric}_difference_percent"] = 100 * (ours / table[f"paper_{metric}_{unit}"] - 1)
        if base == "published":
            table.insert(0, "paper_setting", printed["setting"].reindex(table.index))
        conditions = {"variant": "b2", "base": base, "head": "retinanet", "resolution": "800x1280"}
        table = table.rename_axis("arm").reset_index()
        tables.append(pd.concat([pd.DataFrame([conditions] * len(table)), table], axis="columns"))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def backbone_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each backbone that the article names, family by family, at the size that it takes."""
    by_place = _by_place(standard_costs(records))
    rows = []
    for family, names in FAMILIES.items():
        for name in names:
            record = by_place.get((MODELS[name], "classifier", str(OWN_RESOLUTIONS.get(name, 224))))
            if record is not None:
                columns = {key: record[key] for key in ("model", "resolution", "params", "macs")}
                rows.append({"head": "classifier", "family": family, "name": name} | columns)
    return _with_whole_counts(pd.DataFrame(rows)) if rows else pd.DataFrame()


def model_values(records: pd.DataFrame, arms: bool = False) -> pd.DataFrame:
    """Returns params and macs of every model that is no arm, by head and resolution, and why there are no macs.

    With `arms`, those too.
    """
    costs = records[(records["measurement"] == "cost") & (records["variant"].isna() | arms)]
    if costs.empty:
        return pd.DataFrame()
    table = costs.reindex(columns=["head", "model", "resolution", "pixels", "params", "macs", "refused"])
    table.insert(2, "name", [NAMES.get(model, model) for model in table["model"]])
    return table.reset_index(drop=True)


OPERATORS = {
    "convolution": ("convolution", "_convolution"),
    "linear": ("addmm", "mm", "_addmm_activation"),
}
"""Kinds of operators by name; every other one multiplies two things that both depend on the image, or in batches."""


def operator_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns each classifier's MACs by kind of operator, at its smallest input, and other layers' values."""
    costs = standard_costs(records)
    costs = costs[(costs["head"] == "classifier") & costs["macs"].notna()]
    if "macs_by_operator" not in costs:
        return pd.DataFrame()
    rows = []
    for _, record in costs.dropna(subset="macs_by_operator").iterrows():
        by_operator = record["macs_by_operator"]
        kinds = {f"macs_{kind}": sum(by_operator.get(name, 0) for name in names) for kind, names in OPERATORS.items()}
        rows.append(
            {
                **{key: record[key] for key in ("head", "resolution", "pixels", "model")},
                "name": NAMES.get(record["model"], record["model"]),
                "macs": record["macs"],
                **kinds,
                "macs_batched_product": record["macs"] - sum(kinds.values()),
                **{f"values_{kind}": count for kind, count in record["other_values"].items()},
            }
        )
    table = pd.DataFrame(rows, columns=None if rows else ["model", "pixels"])
    return table[table["pixels"] == table.groupby("model")["pixels"].transform("min")].reset_index(drop=True)


_BACKBONES = {PVT_V1: "PVTv1-Small", PVT_V2: "PVTv2-B2", PVT_V2_LI: "PVTv2-B2-Li"}


def paper_cumulative() -> pd.DataFrame:
    """Returns what the paper prints for the four arms of its Table 6, by arm; steps are differences between rows."""
    table = load_paper_table("table6_ablation")
    arms = [cumulative_arm(row) for _, row in table.iterrows()]
    backbones = load_paper_table("table2_imagenet").set_index("model").reindex([_BACKBONES.get(arm) for arm in arms])
    columns = {
        "paper_setting": table["setting"],
        "paper_params_m": backbones["params_m"].to_numpy(),
        "paper_retinanet_params_step_m": table["retinanet_params_m"].diff(),
        "paper_gflops": backbones["gflops"].to_numpy(),
        "paper_top1_percent": table["top1"],
        "paper_top1_step_points": table["top1"].diff(),
    }
    return pd.DataFrame(columns).set_index(pd.Index(arms, name="arm"))


def cumulative_arm(row: pd.Series) -> str:
    """Returns the arm of a row of the paper's Table 6."""
    return arm_name(name for name in PAPER_TOGGLES if row[name])
