"""Parameters and MACs: of arms and other models, by module and by operator, and how they grow with the input."""

from typing import Any

import numpy as np
import pandas as pd

from ablations.analysis.grouping import cached_for_records, compare_with_reference, name_changes, squares
from ablations.baselines.registry import FAMILIES, MODELS, OWN_RESOLUTIONS
from ablations.config import ARMS, PVT_V2, PVT_V2_LI, VARIANTS, base_confounders, build_config
from ablations.cost import find_crossover, linear_sra_formula, sra_formula

NAMES = {model: name for name, model in MODELS.items()}
"""The paper's names of models, by ours."""

SCALED_VARIANT, SCALED_BASE = "b2", "published"
"""Whose arms are broken down and drawn against the input's size: the models of the paper's Figure 4."""

CROSSOVER_SIDES = range(32, 2049, 32)
"""Sides in pixels."""

POOL_SIZES = (1, 3, 5, 7, 9, 14)

USUAL_POOLS = {variant: build_config(variant).pool_size for variant in VARIANTS}
"""The P of each variant, where nothing is said of it."""


@cached_for_records
def standard_costs(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the cost records of models as their names say: with their own P, attention kernel and confounders."""
    costs = records[records["measurement"] == "cost"]
    costs = costs.reindex(columns=list(dict.fromkeys([*costs, "head", "resolution", "pixels", "params", "macs"])))
    if "pool_size" not in costs:
        return costs
    is_arm = costs["arm"].notna()
    changed = is_arm & ((costs["pool_size"] != costs["variant"].map(USUAL_POOLS)) | (costs["attention"] != "fused"))
    return costs[~changed.fillna(False) & name_changes(costs)["changed"].isna()]


def has_lost_class_token(values: pd.DataFrame) -> pd.Series:
    """Returns for each row whether it is an arm whose base gives a class token that the head leaves out.

    Every head but the classifier reads maps. Rows have a `head`, and `base` and `arm` or a `model` that names them.
    """
    if "base" not in values:  # pvt:VARIANT/ARM/BASE
        values = values.join(values["model"].str.extract(r"^pvt:[^/]*/(?P<arm>.*)/(?P<base>.*)$"))
    is_lost = [
        head not in ("", "classifier") and pd.notna(arm) and base_confounders(base, arm)["pooling"] == "class_token"
        for head, arm, base in values[["head", "arm", "base"]].itertuples(index=False)
    ]
    return pd.Series(is_lost, index=values.index, dtype=bool)


def cost_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns params and macs of each arm and resolution, and their change against arm v1 in percent."""
    return compare_with_reference(records, "cost", ["params", "macs"], ["macs_traced"])


def model_values(records: pd.DataFrame, arms: bool = False) -> pd.DataFrame:
    """Returns params and macs of every model that is no arm, by head and resolution, and why there are no macs.

    With `arms`, those too.
    """
    costs = records[(records["measurement"] == "cost") & (records["variant"].isna() | arms)]
    columns = ["head", "model", "resolution", "pixels", "params", "macs", "refused"]
    counted_on = costs.reindex(columns=["counted_on"])["counted_on"]
    table = costs.reindex(columns=[*columns, *(["counted_on"] if counted_on.notna().any() else [])])
    table.insert(2, "name", [NAMES.get(model, model) for model in table["model"]])
    return table.reset_index(drop=True)


def backbone_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each backbone that the article names, family by family, at the size that it takes."""
    counted = by_place(standard_costs(records))
    rows = []
    for family, names in FAMILIES.items():
        for name in names:
            record = counted.get((MODELS[name], "classifier", str(OWN_RESOLUTIONS.get(name, 224))))
            if record is not None:
                columns = {key: record[key] for key in ("model", "resolution", "params", "macs")}
                rows.append({"head": "classifier", "family": family, "name": name} | columns)
    return with_whole_counts(pd.DataFrame(rows)) if rows else pd.DataFrame()


@cached_for_records
def scaling_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the MACs of b2's arms and of other classifiers at squares, where there are three sizes or more.

    `exponent` is the slope of log(macs) against log(pixels), by least squares over all sizes; `last_exponent` that
    between the two largest. 1 is linear in pixels, 2 quadratic.
    """
    costs = standard_costs(records)
    if costs.empty:
        return pd.DataFrame()
    counted = (costs["head"] == "classifier") & costs["macs"].notna()
    chosen = squares(costs[counted & (costs["arm"].isna() | _is_scaled(costs))])
    tables = []
    for model, rows in chosen.groupby("model", sort=False):
        curve = rows.sort_values("pixels")
        if len(curve) < 3:
            continue
        pixels, macs = (np.log(curve[name].to_numpy(dtype=float)) for name in ("pixels", "macs"))
        arm = curve["arm"].iloc[0] if pd.notna(curve["arm"].iloc[0]) else None
        table = curve[["head", "resolution", "pixels", "macs"]].assign(
            model=model,
            name=NAMES.get(str(model), arm or model),
            arm=arm,
            exponent=np.polyfit(pixels, macs, 1)[0],
            last_exponent=last_exponent(curve["pixels"], curve["macs"]),
            sizes=f"{curve['resolution'].iloc[0]} to {curve['resolution'].iloc[-1]}",
            last_sizes=f"{curve['resolution'].iloc[-2]} to {curve['resolution'].iloc[-1]}",
        )
        tables.append(table)
    tables.sort(key=lambda table: ARMS.index(table["arm"].iloc[0]) if table["arm"].iloc[0] else len(ARMS))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def last_exponent(pixels: pd.Series, values: pd.Series) -> float:
    """Returns the slope of log(values) against log(pixels) between the last two."""
    (rise,), (run,) = (np.diff(np.log(each.to_numpy(dtype=float)[-2:])) for each in (values, pixels))
    return float(rise / run)


def _is_scaled(costs: pd.DataFrame) -> pd.Series:
    """Returns for each row whether it is an arm of SCALED_VARIANT in SCALED_BASE with a classifier."""
    is_own = (costs["variant"] == SCALED_VARIANT) & (costs["base"] == SCALED_BASE) & (costs["head"] == "classifier")
    return is_own & costs["arm"].isin(ARMS)


@cached_for_records
def crossover_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns from which side on PVT v2-Li takes fewer MACs than PVT v2, for each P.

    In closed form, over squares of multiples of 32 px, for each of the paper's variants that there are records of.
    """
    if not _has_both_attentions(records):
        return pd.DataFrame()
    rows = []
    present = set(standard_costs(records)["variant"])
    for variant in (name for name, sizes in VARIANTS.items() if name in present and "stem_stride" not in sizes):
        sra = build_config(variant, PVT_V2)
        row: dict[str, Any] = {"head": "classifier", "variant": variant}
        for pool_size in POOL_SIZES:
            linear_sra = build_config(variant, PVT_V2_LI, pool_size=pool_size)
            row[f"crossover_px_p{pool_size}"] = find_crossover(sra, linear_sra, CROSSOVER_SIDES)
        rows.append(row)
    return pd.DataFrame(rows).convert_dtypes()


def _has_both_attentions(records: pd.DataFrame) -> bool:
    costs = standard_costs(records)
    return {PVT_V2, PVT_V2_LI} <= set(costs.loc[costs["head"] == "classifier", "arm"])


@cached_for_records
def complexity_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns one attention layer of each stage of PVTv2-B2 and B2-Li: the paper's terms beside the traced layer's.

    `products` are attention's two, `reduction` is the convolution of the keys and values, in MACs. The layer's
    linear projections are in neither.
    """
    if not _has_both_attentions(records):
        return pd.DataFrame()
    costs = standard_costs(records)
    chosen = squares(costs[_is_scaled(costs)])
    traced = chosen.set_index(["arm", "resolution"])["breakdown"]
    config = build_config(SCALED_VARIANT, PVT_V2_LI)
    rows: list[dict[str, Any]] = []
    for resolution in chosen["resolution"].unique():
        both = [traced[arm, resolution] for arm in (PVT_V2, PVT_V2_LI) if (arm, resolution) in traced]
        if len(both) < 2:
            continue
        for stage, (height, width) in enumerate(config.stage_sizes(int(resolution))):
            channels, sr_ratio, depth = config.embed_dims[stage], config.sr_ratios[stage], config.depths[stage]
            products, reduction = sra_formula(height, width, channels, sr_ratio)
            row = {"head": "classifier", "resolution": resolution, "pixels": int(resolution) ** 2, "stage": stage + 1}
            row |= {"height": height, "width": width, "channels": channels, "sr_ratio": sr_ratio}
            row |= {"pool_size": config.pool_size}
            row |= {"reported_sra_products": products, "reported_sra_reduction": reduction}
            row["reported_linear_sra_products"] = linear_sra_formula(height, width, channels, config.pool_size)
            for name, breakdown in zip(("sra", "linear_sra"), both, strict=True):
                for part, module in (("products", "attn"), ("reduction", "attn.sr")):
                    macs = breakdown.get(f"stages.{stage}.blocks.{module}", {"macs": 0})["macs"]
                    row[f"{name}_{part}"] = macs // depth
            rows.append(row)
    return pd.DataFrame(rows)


KIND_OF = {
    **{"patch_embed.proj": "patch_embed", "attn": "attn: products"},
    **dict.fromkeys(("pos_embed", "cls_token"), "embeddings"),
}
"""The kinds of modules that are not called like these."""

MODULE_KINDS = (
    *("patch_embed", "embeddings", "attn.q", "attn.kv", "attn.sr", "attn: products", "attn.proj"),
    *("mlp.fc1", "mlp.dwconv", "mlp.fc2", "norms", "head", "other"),
)
"""What a PVT is built of; `embeddings` are those of positions and the class token, `products` attention's two."""


def module_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the params and macs of each kind of module, over all stages, of b2's published arms at each resolution.

    One row for each `module` of MODULE_KINDS that an arm has.
    """
    costs = standard_costs(records)
    if "breakdown" not in costs:
        return pd.DataFrame()
    of_record = ["variant", "base", "head", "resolution", "pixels", "arm"]
    rows = [
        {**record[of_record], "module": _kind(name), "params": counts["params"], "macs": counts["macs"]}
        for _, record in costs[_is_scaled(costs)].dropna(subset="breakdown").iterrows()
        for name, counts in record["breakdown"].items()
    ]
    if not rows:
        return pd.DataFrame()
    return pd.DataFrame(rows).groupby([*of_record, "module"], sort=False)[["params", "macs"]].sum().reset_index()


def _kind(name: str) -> str:
    """Returns the kind of a module of a breakdown: `attn.q` of `stages.0.blocks.attn.q`."""
    within = name.split(".", 2)[2].removeprefix("blocks.") if name.startswith("stages.") else name
    if within.rpartition(".")[2].rstrip("12") == "norm":
        return "norms"
    kind = KIND_OF.get(within, within)
    return kind if kind in MODULE_KINDS else "other"


PARTS = {
    "patch embedding": ("patch_embed",),
    "attention: linear": ("attn.q", "attn.kv", "attn.proj"),
    "attention: reduction": ("attn.sr",),
    "attention: products": ("attn: products",),
    "feed-forward: linear": ("mlp.fc1", "mlp.fc2"),
    "feed-forward: convolution": ("mlp.dwconv",),
    "classifier": ("head",),
}
"""What a PVT's MACs are made of, and the kinds of modules of each part."""


def part_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the MACs of `module_values` by part, a row for each arm and size; the parts sum to `macs`."""
    modules = module_values(records)
    if modules.empty:
        return modules
    place = [name for name in modules if name not in ("module", "params", "macs")]
    wide = modules.pivot_table(index=place, columns="module", values="macs", aggfunc="sum", sort=False)
    wide = wide.reindex(columns=MODULE_KINDS).fillna(0).astype("int64")
    sums = {part: wide[list(kinds)].sum(axis="columns") for part, kinds in PARTS.items()}
    return pd.DataFrame({"macs": wide.sum(axis="columns"), **sums}).reset_index()


def at_both_ends(values: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of the smallest and of the largest inputs."""
    if values.empty:
        return values
    return values[values["pixels"].isin([values["pixels"].min(), values["pixels"].max()])].reset_index(drop=True)


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


def by_place(costs: pd.DataFrame) -> dict[tuple[str, str, str], pd.Series]:
    return {(row["model"], row["head"], row["resolution"]): row for _, row in costs.iterrows()}


def with_whole_counts(table: pd.DataFrame) -> pd.DataFrame:
    return table.astype({name: "Int64" for name in ("params", "macs") if name in table})
