"""Growth with the input, the crossover and the article's formulas, against answers that are worked out here."""

from dataclasses import replace
from math import log2
from statistics import linear_regression

import numpy as np
import pandas as pd
import pytest

from ablations.analysis.cost import (
    PARTS,
    POOL_SIZES,
    at_both_ends,
    complexity_values,
    cost_values,
    crossover_values,
    part_values,
    scaling_values,
)
from ablations.baselines.registry import SCALED
from ablations.cells import arm_cell, build_cell
from ablations.config import ARMS, VARIANTS, build_config
from ablations.cost import count_macs
from ablations.measure import Cost
from ablations.records import load_records

SCALES = (224, 320, 448, 512, 640, 800, 1024, 1280, 1600, 2048)
"""The sides of the study `paper` at which counts are drawn against the size of the input."""

ARM = arm_cell(variant="b2", arm="v1", base="published", conditions=Cost())
BASELINE = build_cell(model="timm:planted", conditions=Cost())
SRA, LINEAR_SRA = "v1+ope+cffn", "v1+ope+cffn+lsra"


def write_curve(tmp_path, write_cell, macs_by_size, model="timm:planted", head="classifier"):
    for size, macs in macs_by_size.items():
        cell = replace(BASELINE.of(name=model), conditions=Cost(resolution=size, head=head))
        write_cell(tmp_path, cell, {"params": 1, "macs": macs, **({} if macs else {"refused": "too large"})})


def test_costs_change_against_v1_at_the_same_resolution_and_head(tmp_path, write_cell):
    planted = {
        ("classifier", 64, "v1"): (100, 1000),
        ("classifier", 64, "v1+ope"): (110, 900),
        ("classifier", 128, "v1"): (100, 4000),
        ("classifier", 128, "v1+ope"): (110, 5000),
        ("fcos", 128, "v1+ope"): (200, 9000),
    }
    for (head, side, arm), (params, macs) in planted.items():
        cell = replace(ARM.of(arm=arm), conditions=Cost(head=head, resolution=side))
        write_cell(tmp_path, cell, {"params": params, "macs": macs, "macs_traced": macs, "breakdown": {}})
    values = cost_values(load_records(tmp_path))
    places = zip(values["head"], values["resolution"].astype(int), values["arm"], strict=True)
    assert list(places) == list(planted)
    # The detector has no v1 beside it, so nothing to be compared with.
    changes = values[["params_change_percent", "macs_change_percent"]]
    assert changes["params_change_percent"].tolist()[:4] == pytest.approx([0, 10, 0, 10])
    assert changes["macs_change_percent"].tolist()[:4] == pytest.approx([0, -10, 0, 25])
    assert changes.iloc[4].isna().all()


@pytest.mark.parametrize(("power", "exponent"), [(2, 1.0), (3, 1.5), (4, 2.0)])
def test_a_power_law_has_its_exponent(tmp_path, write_cell, power, exponent):
    write_curve(tmp_path, write_cell, {side: 7 * side**power for side in (64, 96, 256, 1000)})
    values = scaling_values(load_records(tmp_path))
    assert list(values["resolution"]) == ["64", "96", "256", "1000"]
    assert list(values["exponent"]) == pytest.approx([exponent] * 4, abs=1e-12)
    assert list(values["last_exponent"]) == pytest.approx([exponent] * 4, abs=1e-12)
    assert set(values["sizes"]) == {"64 to 1000"}
    assert set(values["last_sizes"]) == {"256 to 1000"}


def test_a_sum_of_powers_is_fitted_over_all_and_steeper_at_the_end(tmp_path, write_cell):
    curve = {side: 10**5 * side**2 + side**4 for side in (128, 160, 256, 512)}
    write_curve(tmp_path, write_cell, curve)
    values = scaling_values(load_records(tmp_path))
    slope, _ = linear_regression([2 * log2(side) for side in curve], [log2(macs) for macs in curve.values()])
    assert values["exponent"].iloc[0] == pytest.approx(slope)
    assert values["last_exponent"].iloc[0] == pytest.approx(log2(curve[512] / curve[256]) / 2)
    assert 1 < slope < values["last_exponent"].iloc[0] < 2


def test_two_sizes_other_shapes_heads_and_refusals_are_no_curve(tmp_path, write_cell):
    write_curve(tmp_path, write_cell, {64: 1, 128: 4, (64, 256): 4})
    write_curve(tmp_path, write_cell, {64: 1, 128: 4, 256: None}, model="timm:refuses")
    write_curve(tmp_path, write_cell, {64: 1, 128: 4, 256: 16}, model="timm:resnet18", head="retinanet")
    assert scaling_values(load_records(tmp_path)).empty
    write_curve(tmp_path, write_cell, {256: 16})
    values = scaling_values(load_records(tmp_path))
    assert set(values["model"]) == {"timm:planted"}
    assert list(values["resolution"]) == ["64", "128", "256"]


def test_other_variants_and_bases_are_not_drawn_beside_the_papers(tmp_path, write_cell):
    for side in (224, 320, 448):
        for changes in ({}, {"variant": "b1"}, {"base": "v2"}):
            write_cell(tmp_path, replace(ARM.of(**changes), conditions=Cost(resolution=side)))
    assert set(scaling_values(load_records(tmp_path))["model"]) == {"pvt:b2/v1/published"}


def test_figure_4_has_the_papers_models_and_all_arms(paper_records):
    values = scaling_values(paper_records)
    curves = values.drop_duplicates("name").set_index("name")
    named = {"v1": "PVTv1-Small", SRA: "PVTv2-B2", LINEAR_SRA: "PVTv2-B2-Li"}
    assert list(curves.index)[:8] == [named.get(arm, arm) for arm in ARMS]
    assert set(curves.index[8:]) == set(SCALED)
    assert values.groupby("name")["resolution"].agg(list).to_list() == [[str(side) for side in SCALES]] * 11
    for name, arm in (("PVTv1-Small", "v1"), ("PVTv2-B2-Li", LINEAR_SRA)):
        config = build_config("b2", arm)
        ends = [count_macs(config, side) for side in SCALES[-2:]]
        expected = log2(ends[1] / ends[0]) / (2 * log2(SCALES[-1] / SCALES[-2]))
        assert curves.loc[name, "last_exponent"] == pytest.approx(expected)
    # A convolution's work is that of its pixels; attention over all tokens tends to 2, linear SRA to 1.
    assert curves.loc["ResNet50", "exponent"] == pytest.approx(1, abs=0.001)
    assert curves.loc["ViT-S/16", "last_exponent"] > 1.8
    linear = curves.index.isin(["PVTv2-B2-Li"]) | curves["arm"].str.contains("lsra", na=False)
    assert curves.loc[linear, "last_exponent"].to_list() == pytest.approx([1] * 4, abs=0.002)
    assert (curves.loc[curves["arm"].notna() & ~linear, "last_exponent"] > 1.7).all()


def last_side_that_linear_sra_loses(variant: str, pool_size: int) -> int:
    sra, linear = build_config(variant, SRA), build_config(variant, LINEAR_SRA, pool_size=pool_size)
    lost = [side for side in range(32, 2049, 32) if count_macs(linear, side) >= count_macs(sra, side)]
    return max(lost, default=0)


@pytest.fixture(scope="module")
def crossover(paper_records) -> pd.DataFrame:
    return crossover_values(paper_records).set_index("variant")


@pytest.mark.parametrize(("variant", "pool_size"), [("b0", 7), ("b2", 1), ("b2", 7), ("b5", 14)])
def test_the_crossover_is_the_first_side_after_the_last_that_loses(crossover, variant, pool_size):
    expected = last_side_that_linear_sra_loses(variant, pool_size) + 32
    assert crossover.loc[variant, f"crossover_px_p{pool_size}"] == expected


def test_the_crossover_has_every_published_variant_and_grows_with_the_grid(crossover):
    assert list(crossover.index) == [name for name in VARIANTS if name not in ("pico", "nano")]
    sides = crossover[[f"crossover_px_p{pool_size}" for pool_size in POOL_SIZES]]
    assert (sides.diff(axis="columns").iloc[:, 1:] > 0).all(axis=None)
    # With P = 7 linear SRA takes a tenth more at 128 px and 3.4 % less at 224 px.
    assert 128 < crossover.loc["b2", "crossover_px_p7"] <= 224


@pytest.mark.parametrize("arms", [(SRA,), (LINEAR_SRA,), ("v1", "v1+lsra")], ids=str)
def test_without_both_attentions_there_is_no_crossover_and_no_complexity(tmp_path, write_cell, arms):
    for arm in arms:
        write_cell(tmp_path, ARM.of(arm=arm))
    assert crossover_values(load_records(tmp_path)).empty
    assert complexity_values(load_records(tmp_path)).empty


STAGES_AT_224 = [(56, 64, 8), (28, 128, 4), (14, 320, 2), (7, 512, 1)]
"""Side of the map in tokens, channels and R of each stage of b2."""


def test_the_formulas_at_224_px_by_hand(paper_records):
    values = complexity_values(paper_records)
    first = values[(values["resolution"] == "224") & (values["stage"] == 1)].iloc[0]
    assert first["reported_sra_products"] == 2 * 3136**2 * 64 / 64 == 19_668_992
    assert first["reported_sra_reduction"] == 3136 * 64**2 * 64 == 822_083_584
    assert first["reported_linear_sra_products"] == 2 * 3136 * 49 * 64 == 19_668_992
    assert (first["sra_products"], first["sra_reduction"]) == (19_668_992, 3136 * 64**2)
    assert (first["linear_sra_products"], first["linear_sra_reduction"]) == (19_668_992, 49 * 64**2)
    at_224 = values[values["resolution"] == "224"]
    assert list(zip(at_224["height"], at_224["channels"], at_224["sr_ratio"], strict=True)) == STAGES_AT_224
    assert list(at_224["reported_sra_products"]) == [2 * n**4 * c / r**2 for n, c, r in STAGES_AT_224]
    assert list(at_224["reported_sra_reduction"]) == [n**2 * c**2 * r**2 for n, c, r in STAGES_AT_224]
    assert list(at_224["reported_linear_sra_products"]) == [2 * n**2 * 49 * c for n, c, _ in STAGES_AT_224]


def test_the_traced_layer_equals_the_formulas_where_it_should(paper_records):
    values = complexity_values(paper_records)
    assert sorted(set(values["resolution"].astype(int))) == list(SCALES)
    assert values.groupby("resolution")["stage"].agg(list).to_list() == [[1, 2, 3, 4]] * len(SCALES)
    # Every side is a multiple of 32 px, so that R divides every map.
    assert list(values["sra_products"]) == list(values["reported_sra_products"])
    assert list(values["linear_sra_products"]) == list(values["reported_linear_sra_products"])
    tokens, channels = values["height"] * values["width"], values["channels"]
    reduced = values["sr_ratio"] > 1
    assert list(values["sra_reduction"]) == list((tokens * channels**2).where(reduced, 0))
    # What the paper prints for it is R squared times as much.
    factor = values["reported_sra_reduction"] / values["sra_reduction"].replace(0, np.nan)
    assert list(factor[reduced]) == list(values["sr_ratio"][reduced] ** 2)
    assert list(values["linear_sra_reduction"]) == list(49 * channels**2)


def test_the_formula_is_too_large_where_the_ratio_does_not_divide_the_map(tmp_path, write_cell):
    for arm in (SRA, LINEAR_SRA):
        write_cell(tmp_path, replace(ARM.of(arm=arm), conditions=Cost(resolution=240)))
    values = complexity_values(load_records(tmp_path)).set_index("stage")
    # 60 tokens a side make 7 reduced ones of 8, and 4 left over.
    assert values.loc[1, "height"] == 60
    assert values.loc[1, "sra_products"] == 2 * 60**2 * 7**2 * 64 < values.loc[1, "reported_sra_products"]
    assert values.loc[1, "sra_reduction"] == 7**2 * 64**2 * 8**2
    assert values.loc[1, "linear_sra_products"] == values.loc[1, "reported_linear_sra_products"]


@pytest.mark.slow
def test_parts_sum_to_the_macs(paper_records):
    values = part_values(paper_records)
    assert len(values) == len(ARMS) * len(SCALES)
    assert list(values[list(PARTS)].sum(axis="columns")) == list(values["macs"])
    for _, row in values.iterrows():
        assert row["macs"] == count_macs(build_config("b2", row["arm"]), int(row["resolution"]))


@pytest.mark.slow
def test_parts_by_hand(paper_records):
    values = part_values(paper_records)
    values = values[values["resolution"] == "224"].set_index("arm")
    depths, widths = (3, 4, 6, 3), (8, 8, 4, 4)
    stages = [(n * n, c, r, d, e) for (n, c, r), d, e in zip(STAGES_AT_224, depths, widths, strict=True)]
    own = values.loc[LINEAR_SRA]
    assert own["classifier"] == 512 * 1000
    assert own["attention: products"] == sum(d * 2 * n * 49 * c for n, c, _, d, _ in stages)
    assert own["attention: reduction"] == sum(d * 49 * c**2 for _, c, _, d, _ in stages)
    # q and proj of every token, k and v of every one that is left.
    assert own["attention: linear"] == sum(d * c**2 * (2 * n + 2 * 49) for n, c, _, d, _ in stages)
    assert own["feed-forward: linear"] == sum(d * 2 * n * e * c**2 for n, c, _, d, e in stages)
    assert own["feed-forward: convolution"] == sum(d * 9 * n * e * c for n, c, _, d, e in stages)
    chans = (3, 64, 128, 320)
    kernels = (7, 3, 3, 3)
    entries = zip(stages, chans, kernels, strict=True)
    assert own["patch embedding"] == sum(n * c * before * kernel**2 for (n, c, *_), before, kernel in entries)
    assert (values.loc[~values.index.str.contains("cffn"), "feed-forward: convolution"] == 0).all()


def test_both_ends_are_the_smallest_and_the_largest_input(paper_records):
    assert list(at_both_ends(part_values(paper_records))["resolution"]) == ["224"] * 8 + ["2048"] * 8
    assert at_both_ends(pd.DataFrame()).empty
