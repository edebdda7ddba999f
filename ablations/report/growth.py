"""How MACs grow with the input, where linear SRA starts to pay, and what they are made of."""

from typing import Any

import numpy as np
import pandas as pd

from ablations.analysis.paper import NAMES, standard_costs
from ablations.config import ARMS, VARIANTS, build_config
from ablations.cost import find_crossover, linear_sra_formula, sra_formula

SCALED_VARIANT, SCALED_BASE = "b2", "published"
"""Whose arms are drawn against the input's size: the models of the paper's Figure 4."""

WITH_SRA, WITH_LINEAR_SRA = "v1+ope+cffn", "v1+ope+cffn+lsra"

CROSSOVER_SIDES = range(32, 2049, 32)
POOL_SIZES = (1, 3, 5, 7, 9, 14)


def scaling_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the MACs of b2's arms and of other classifiers at squares, where there are three sizes or more.

    `exponent` is the slope of log(macs) against log(pixels), by least squares over all sizes; `last_exponent` that
    between the two largest. 1 is linear in pixels, 2 quadratic.
    """
    costs = standard_costs(records)
    if costs.empty:
        return pd.DataFrame()
    chosen = costs[(costs["head"] == "classifier") & costs["macs"].notna() & costs["resolution"].str.isdecimal()]
    own = (chosen["variant"] == SCALED_VARIANT) & (chosen["base"] == SCALED_BASE)
    chosen = chosen[chosen["arm"].isna() | own]
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
            last_exponent=(macs[-1] - macs[-2]) / (pixels[-1] - pixels[-2]),
            sizes=f"{curve['resolution'].iloc[0]} to {curve['resolution'].iloc[-1]}",
            last_sizes=f"{curve['resolution'].iloc[-2]} to {curve['resolution'].iloc[-1]}",
        )
        tables.append(table)
    order = {model: place for place, model in enumerate(_scaled_models())}
    tables.sort(key=lambda table: order.get(table["model"].iloc[0], len(order)))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _scaled_models() -> list[str]:
    return [f"pvt:{SCALED_VARIANT}/{arm}/{SCALED_BASE}" for arm in ARMS]


def crossover_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns from which side on PVT v2-Li takes fewer MACs than PVT v2, for each P.

    For each of the paper's variants that there are records of.

    In closed form, over squares of multiples of 32 px. Empty where the records have nothing of the kind.
    """
    if not _has_both_attentions(records):
        return pd.DataFrame()
    rows = []
    present = set(standard_costs(records)["variant"])
    for variant in (name for name, sizes in VARIANTS.items() if name in present and "stem_stride" not in sizes):
        sra = build_config(variant, WITH_SRA)
        row: dict[str, Any] = {"head": "classifier", "variant": variant}
        for pool_size in POOL_SIZES:
            linear_sra = build_config(variant, WITH_LINEAR_SRA, pool_size=pool_size)
            row[f"crossover_px_p{pool_size}"] = find_crossover(sra, linear_sra, CROSSOVER_SIDES)
        rows.append(row)
    return pd.DataFrame(rows).convert_dtypes()


def _has_both_attentions(records: pd.DataFrame) -> bool:
    costs = standard_costs(records)
    return {WITH_SRA, WITH_LINEAR_SRA} <= set(costs.loc[costs["head"] == "classifier", "arm"])


def complexity_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns one attention layer of each stage of PVTv2-B2 and B2-Li: the paper's terms beside the traced layer's.

    `products` are attention's two, `reduction` is the convolution of the keys and values, in MACs. The layer's
    linear projections are in neither.
    """
    if not _has_both_attentions(records):
        return pd.DataFrame()
    costs = standard_costs(records)
    chosen = costs[(costs["variant"] == "b2") & (costs["base"] == "published") & (costs["head"] == "classifier")]
    traced = {(row["arm"], row["resolution"]): row["breakdown"] for _, row in chosen.iterrows()}
    rows: list[dict[str, Any]] = []
    for resolution in chosen["resolution"].unique():
        both = [traced[arm, resolution] for arm in (WITH_SRA, WITH_LINEAR_SRA) if (arm, resolution) in traced]
        both = [breakdown for breakdown in both if "stages.0.blocks.attn" in breakdown]  # not so in an older record
        if not resolution.isdecimal() or len(both) < 2:
            continue
        config = build_config("b2", WITH_LINEAR_SRA)
        for stage, (height, width) in enumerate(config.stage_sizes(int(resolution))):
            channels, sr_ratio, depth = config.embed_dims[stage], config.sr_ratios[stage], config.depths[stage]
            products, reduction = sra_formula(height, width, channels, sr_ratio)
            row = {"head": "classifier", "resolution": resolution, "pixels": int(resolution) ** 2, "stage": stage + 1}
            row |= {"height": height, "width": width, "channels": channels, "sr_ratio": sr_ratio}
            row |= {"pool_size": config.pool_size, "paper_sra_products": products, "paper_sra_reduction": reduction}
            row["paper_linear_sra_products"] = linear_sra_formula(height, width, channels, config.pool_size)
            for name, breakdown in zip(("sra", "linear_sra"), both, strict=True):
                for part, module in (("products", "attn"), ("reduction", "attn.sr")):
                    macs = breakdown.get(f"stages.{stage}.blocks.{module}", {"macs": 0})["macs"]
                    row[f"{name}_{part}"] = macs // depth
            rows.append(row)
    return pd.DataFrame(rows)


PARTS = {
    "patch embedding": ("patch_embed.proj",),
    "attention: linear": ("attn.q", "attn.kv", "attn.proj"),
    "attention: reduction": ("attn.sr",),
    "attention: products": ("attn",),
    "feed-forward: linear": ("mlp.fc1", "mlp.fc2"),
    "feed-forward: convolution": ("mlp.dwconv",),
    "classifier": ("head",),
}
"""What a PVT's MACs are made of, and the modules of each part."""


def part_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the MACs of b2's published arms by part, at each size; the parts sum to `macs`."""
    costs = standard_costs(records)
    if "breakdown" not in costs:
        return pd.DataFrame()
    own = (costs["variant"] == SCALED_VARIANT) & (costs["base"] == SCALED_BASE) & (costs["head"] == "classifier")
    part_of = {module: part for part, modules in PARTS.items() for module in modules}
    rows = []
    for _, record in costs[own].iterrows():
        working = {name: counts["macs"] for name, counts in record["breakdown"].items() if counts["macs"]}
        if not {_within_stage(name) for name in working} <= part_of.keys():
            continue  # an older record, which is broken down otherwise
        parts = dict.fromkeys(PARTS, 0)
        for name, macs in working.items():
            parts[part_of[_within_stage(name)]] += macs
        columns = {key: record[key] for key in ("variant", "base", "head", "resolution", "pixels", "arm", "macs")}
        rows.append(columns | parts)
    return pd.DataFrame(rows)


def _within_stage(name: str) -> str:
    """Returns a module's name within its stage: `attn.q` of `stages.0.blocks.attn.q`."""
    return name.split(".", 2)[2].removeprefix("blocks.") if name.startswith("stages.") else name


def at_both_ends(values: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of the smallest and of the largest inputs."""
    if values.empty:
        return values
    return values[values["pixels"].isin([values["pixels"].min(), values["pixels"].max()])].reset_index(drop=True)
