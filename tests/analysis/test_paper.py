"""Our counts beside the paper's prints, from the committed records, and from folders that lack most of them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from ablations.analysis.cost import (
    backbone_values,
    cost_values,
    model_values,
    operator_values,
    standard_costs,
)
from ablations.analysis.paper import (
    REASONS,
    as_reported,
    cumulative_values,
    explain,
    imagenet_values,
    paper_cumulative,
    paper_values,
    table6_values,
)
from ablations.baselines.registry import FAMILIES, PAPER_TABLES
from ablations.cells import arm_cell, build_cell
from ablations.config import ARMS, BASES, CUMULATIVE, PAPER_TOGGLES, arm_name, build_config
from ablations.cost import count_macs, count_params, module_costs
from ablations.dense_recipes import CocoOneTimes
from ablations.measure import Accuracy, Cost, Detection
from ablations.measure.measurement import Setting
from ablations.paper import load_paper_table
from ablations.records import load_records
from ablations.report.build import build_report
from ablations.report.contents import list_figures
from ablations.report.cost import render_breakdown

ARM = arm_cell(variant="b2", arm="v1", base="published", conditions=Cost())
BASELINE = build_cell(model="timm:resnet18", conditions=Cost())


@pytest.fixture(scope="module")
def table2(paper_records) -> pd.DataFrame:
    return paper_values(paper_records, "table2_imagenet").set_index("name")


def errata_of(column: str) -> pd.DataFrame:
    errata = load_paper_table("errata")
    return errata[(errata["table"] == "table2_imagenet") & (errata["column"] == column)].set_index("model")


def test_committed_arms_have_the_counts_of_the_closed_form(paper_records):
    arms = paper_records[paper_records["arm"].notna() & (paper_records["head"] == "classifier")]
    assert len(arms) > 80
    for _, row in arms.iterrows():
        config = build_config(row["variant"], row["arm"], row["base"])
        assert row["params"] == count_params(config), row["model"]
        if row["resolution"].isdecimal():
            assert row["macs"] == count_macs(config, int(row["resolution"])), row["model"]


@pytest.mark.parametrize(
    ("model", "conditions"),
    [
        ("timm:resnet18", Cost()),
        ("baselines:localvit_t", Cost()),
        ("timm:twins_svt_small", Cost()),
        ("pvt:b2/v1+ope/published", Cost(head="retinanet", resolution=(800, 1280))),
        ("timm:resnet18", Cost(head="mask_rcnn", resolution=(800, 1280))),
    ],
    ids=str,
)
def test_committed_records_are_what_is_counted_now(paper_records, model, conditions):
    cell = build_cell(model, conditions)
    (record,) = (row for _, row in paper_records.iterrows() if row["key"] == cell.key)
    for name, value in cell.conditions.run(cell, Setting()).items():
        assert pd.isna(record[name]) if value is None else record[name] == value, name


def test_only_models_as_they_are_named_are_compared(tmp_path, write_cell):
    for cell in (
        ARM,
        ARM.of(overrides=(("pool_size", 3),)),
        ARM.of(overrides=(("attention", "explicit"),)),
        ARM.of(overrides=(("pool_size", 7),)),
    ):
        write_cell(tmp_path, cell)
    write_cell(tmp_path, BASELINE, {"params": 1, "macs": 2})
    write_cell(tmp_path, replace(ARM, conditions=Accuracy()))
    costs = standard_costs(load_records(tmp_path))
    assert sorted(costs["key"]) == sorted([ARM.key, BASELINE.key])


@pytest.mark.parametrize(
    ("table", "column"), [("table2_imagenet", "model"), ("table3_coco", "backbone"), ("table5_ade20k", "backbone")]
)
def test_the_catalogue_has_the_rows_of_the_papers_tables(table, column):
    names = PAPER_TABLES[table].models
    assert len(names) == len(set(names))
    assert set(names) == set(load_paper_table(table)[column])


def test_the_catalogue_has_the_backbones_of_table_4():
    assert set(PAPER_TABLES["table4_detectors"].models) == set(load_paper_table("table4_detectors")["backbone"])


@pytest.mark.parametrize("metric", ["params", "macs"])
def test_a_cell_of_table_2_rounds_to_its_print_or_has_an_erratum(table2, metric):
    column, unit = {"params": ("params_m", 10**6), "macs": ("gflops", 10**9)}[metric]
    printed = load_paper_table("table2_imagenet").set_index("model")[column]
    assert list(table2.index) == list(printed.index)
    assert len(table2) == 39
    tenths = (table2[metric] + unit // 20) // (unit // 10)  # half up
    differing = set(tenths.index[tenths != (10 * printed).round().astype(int)])
    assert differing == set(errata_of(column).index)


@pytest.mark.parametrize("metric", ["params", "macs"])
def test_a_reason_that_can_be_counted_gives_the_print(table2, paper_records, metric):
    column, unit = {"params": ("params_m", 1e6), "macs": ("gflops", 1e9)}[metric]
    printed = load_paper_table("table2_imagenet").set_index("model")[column]
    classifiers = paper_records[(paper_records["head"] == "classifier") & (paper_records["resolution"] == "224")]
    by_model = {row["model"]: row for _, row in classifiers.iterrows()}
    seen = set()
    for name, erratum in errata_of(column).iterrows():
        reason = erratum["reason"]
        if reason in ("whole number", "cut off", "other layers", "no attention"):
            record = by_model[table2.loc[name, "model"]]
            explained = explain(reason, metric, record)
            assert (explained is None) == (reason in ("whole number", "cut off"))
            value = table2.loc[name, metric] / unit if explained is None else explained
            assert as_reported(value, reason) == printed[name], name
            seen.add(reason)
    assert seen == {"params": {"whole number", "cut off"}, "macs": {"cut off", "other layers", "no attention"}}[metric]


def test_cells_without_an_erratum_round_as_reported(table2):
    for metric, column, unit in (("params", "params_m", 1e6), ("macs", "gflops", 1e9)):
        printed = load_paper_table("table2_imagenet").set_index("model")[column]
        plain = [name for name in table2.index if name not in errata_of(column).index]
        assert {name: as_reported(table2.loc[name, metric] / unit) for name in plain} == printed[plain].to_dict()


@pytest.mark.parametrize(
    ("value", "reason", "printed"),
    [
        (0.25, "", 0.3),  # half up, not half to even
        (0.249, "", 0.2),
        (20.5, "whole number", 21.0),
        (20.49, "whole number", 20.0),
        (4.599, "cut off", 4.5),
        (15.6489, "other layers", 15.7),  # by way of 15.65
        (15.6449, "other layers", 15.6),
        (2.8451, "no attention", 2.9),
    ],
)
def test_values_are_printed_by_the_reason(value, reason, printed):
    assert as_reported(value, reason) == printed


def test_what_a_counter_adds_by_hand():
    values = {"batch_norm": 1, "layer_norm": 2, "group_norm": 4, "relu": 8, "activation": 16, "pool": 32}
    record = pd.Series(
        {
            "macs": 10**10,
            "other_values": {
                kind: count * 10**8 for kind, count in (values | {"softmax": 64, "upsample": 128}).items()
            },
            "breakdown": {
                "blocks.attn": {"params": 0, "macs": 3 * 10**9},
                "blocks.attn.q": {"params": 5, "macs": 7 * 10**9},
                "blocks.norm": {"params": 9, "macs": 0},
            },
        }
    )
    # Twice the norms' values and once those of ReLUs, activations and pools: 14 + 56 tenths.
    assert explain("other layers", "macs", record) == pytest.approx(10 + 7.0)
    assert explain("no attention", "macs", record) == pytest.approx(10 - 3)
    for reason in ("misprint", "source", "unexplained", "whole number", "cut off"):
        assert explain(reason, "macs", record) is None
    assert set(load_paper_table("errata")["reason"]) == set(REASONS)


def test_differences_are_ours_over_the_print(table2):
    assert table2.loc["PVTv2-B0", "params_difference_percent"] == pytest.approx(100 * (3.666760 / 3.4 - 1))
    assert table2.loc["Twins-SVT-S", "macs_difference_percent"] == pytest.approx(100 * (2.927 / 2.8 - 1), abs=0.05)
    assert list(table2["reported_top1_percent"]) == list(load_paper_table("table2_imagenet")["top1"])


def test_a_note_says_which_cell_and_why_and_what_comes_out(table2):
    assert table2.loc["PVTv2-B0", "note"] == "parameters: misprinted, the released model has as many as ours"
    assert table2.loc["CvT-21", "note"] == (
        "parameters: rounded to a whole number; GFLOPs: what cutting off gives, not rounding"
    )
    assert table2.loc["ViT-Base/16", "note"] == "top-1: reported as elsewhere, it is the figure of DeiT-Base's row"
    counted = (("Twins-SVT-L", "what leaving attention", 14.8), ("ResNet152", "what counting norms", 11.6))
    for name, words, printed in counted:
        note = table2.loc[name, "note"].rpartition("GFLOPs: ")[2]
        assert note.startswith(words)
        # The number in brackets has two decimals, and is the print but for its last rounding.
        assert float(note[note.index("(") + 1 : note.index(")")]) == pytest.approx(printed, abs=0.0501)
    with_notes = set(table2.index[table2["note"] != ""])
    errata = load_paper_table("errata")
    assert with_notes == set(errata.loc[errata["table"] == "table2_imagenet", "model"])


@pytest.mark.parametrize("table", ["table3_coco", "table4_detectors", "table5_ade20k"])
def test_dense_networks_agree_with_the_papers_within_their_tolerance(paper_records, table):
    values = paper_values(paper_records, table)
    printed = load_paper_table(table)
    wanted = PAPER_TABLES[table]
    if table == "table4_detectors":
        assert list(values["detector"]) == list(printed["detector"])
        values = values[values["detector"] == "ATSS"]
        printed = printed[printed["detector"] == "ATSS"]
    assert len(values) == len(wanted.models) * len(wanted.heads)
    columns = {
        "retinanet": ("retinanet_params_m", None),
        "mask_rcnn": ("maskrcnn_params_m", None),
        "fcos": ("params_m", "gflops_1280x800"),
        "semantic_fpn": ("params_m", "gflops_512"),
    }
    for head, rows in values.groupby("head"):
        params, gflops = columns[head]
        paper = printed.set_index("backbone").loc[rows["name"]]
        assert list(rows["params"] / 1e6) == pytest.approx(list(paper[params]), rel=0.01)
        assert list(rows["reported_params_m"]) == list(paper[params])
        if gflops:
            assert list(rows["macs"] / 1e9) == pytest.approx(list(paper[gflops]), rel=0.02)
            assert list(rows["reported_macs_g"]) == list(paper[gflops])


def test_table_6_agrees_within_one_percent_with_its_steps(paper_records):
    values = table6_values(paper_records)
    own = values[values["base"] == "published"].set_index("arm")
    printed = {
        "v1": (34.2, 285.8),
        "v1+ope": (34.9, 288.6),
        "v1+ope+cffn": (35.1, 290.7),
        "v1+ope+cffn+lsra": (32.3, 227.4),
    }
    for arm, (params, gflops) in printed.items():
        assert own.loc[arm, "params"] / 1e6 == pytest.approx(params, rel=0.01)
        assert own.loc[arm, "macs"] / 1e9 == pytest.approx(gflops, rel=0.01)
        assert (own.loc[arm, "reported_params_m"], own.loc[arm, "reported_macs_g"]) == (params, gflops)
    cumulative = own.loc[list(printed)]
    assert list(cumulative["params_step"][1:] / 1e6) == pytest.approx([0.68, 0.19, -2.81], abs=0.005)
    assert list(cumulative["reported_params_step_m"][1:]) == pytest.approx([0.7, 0.2, -2.8])
    assert list(cumulative["macs_step"][1:]) == list(cumulative["macs"].astype(int).diff()[1:])
    assert list(cumulative["reported_macs_step_g"][1:]) == pytest.approx([2.8, 2.1, -63.3])
    assert own.loc[own.index.difference(printed), ["reported_params_m", "macs_step"]].isna().all(axis=None)


def test_table_6_has_all_arms_in_all_bases(paper_records):
    values = table6_values(paper_records)
    assert {base: list(rows["arm"]) for base, rows in values.groupby("base")} == {base: list(ARMS) for base in BASES}
    # In one base the step to + OPE has no position embeddings in it.
    steps = values[values["arm"] == "v1+ope"].set_index("base")["params_step"] / 1e6
    assert steps[["v1", "v2"]].to_list() == pytest.approx([1.07, 1.07], abs=0.01)
    assert values.loc[values["base"] != "published", "reported_params_m"].isna().all()


STEPS_M = [0.7, 0.2, -2.8]
"""What the paper's Table 6 adds to a RetinaNet's parameters, in M, row by row."""


def test_the_cumulative_ablation_has_the_papers_steps(tmp_path, write_cell):
    for conditions in (Cost(), Cost(resolution=(800, 1280)), Cost(resolution=512), Cost(head="retinanet")):
        for arm in ARMS:
            write_cell(tmp_path, replace(ARM.of(arm=arm), conditions=conditions))
    values = cumulative_values(load_records(tmp_path))
    # Detectors and other sizes are left out: the paper reports the backbones at 224 px.
    assert list(values["resolution"]) == ["224"] * 4
    assert list(values["head"]) == ["classifier"] * 4
    assert list(values["arm"]) == list(CUMULATIVE)
    assert list(values["params_step"][1:] / 1e6) == pytest.approx([0.68, 0.19, -2.81], abs=0.005)
    assert list(values["reported_retinanet_params_step_m"][1:]) == pytest.approx(STEPS_M)
    assert list(values["macs"].round(-6)) == [3_816_000_000, 3_938_000_000, 4_027_000_000, 3_889_000_000]
    assert list(values["macs_step"][1:]) == list(values["macs"].astype(int).diff()[1:])
    assert list(values["reported_gflops"].dropna()) == [3.8, 4.0, 3.9]


def test_a_cumulative_ablation_without_an_arm_has_no_step_over_it(tmp_path, write_cell):
    kept = [arm for arm in CUMULATIVE if arm != "v1+ope"]
    for arm in kept:
        write_cell(tmp_path, ARM.of(arm=arm))
    values = cumulative_values(load_records(tmp_path))
    assert list(values["arm"]) == kept
    assert list(values["params_step"].isna()) == [True, True, False]


def test_the_cumulative_ablation_is_the_papers():
    paper = paper_cumulative()
    rows = [row for _, row in load_paper_table("table6_ablation").iterrows()]
    assert tuple(arm_name(name for name in PAPER_TOGGLES if row[name]) for row in rows) == CUMULATIVE
    assert tuple(paper.index) == CUMULATIVE
    assert list(paper["reported_top1_percent"]) == [79.8, 81.1, 82.0, 82.1]
    assert list(paper["reported_retinanet_params_step_m"][1:]) == pytest.approx(STEPS_M)
    assert list(paper["reported_params_m"].dropna()) == [24.5, 25.4, 22.6]


@pytest.mark.parametrize("values_of", [cost_values, cumulative_values, imagenet_values, table6_values])
def test_no_records_make_no_counts(tmp_path, values_of):
    assert values_of(load_records(tmp_path)).empty


def test_every_backbone_that_the_article_names_has_a_row(paper_records):
    values = backbone_values(paper_records)
    assert [(row["family"], row["name"]) for _, row in values.iterrows()] == [
        (family, name) for family, names in FAMILIES.items() for name in names
    ]
    assert (values[["params", "macs"]] > 0).all(axis=None)
    crossvit = values["family"] == "CrossViT"
    assert list(values.loc[crossvit, "resolution"]) == ["240", "240"]
    assert set(values.loc[~crossvit, "resolution"]) == {"224"}


def test_a_row_of_backbones_is_of_the_smallest_input(tmp_path, write_cell):
    for side in (448, 224):
        cell = replace(BASELINE.of(name="timm:levit_256"), conditions=Cost(resolution=side))
        write_cell(tmp_path, cell, {"params": 10, "macs": side})
    (row,) = backbone_values(load_records(tmp_path)).to_dict("records")
    assert (row["name"], row["resolution"], row["macs"]) == ("LeViT-256", "224", 224)


def test_operators_sum_to_the_macs(paper_records):
    values = operator_values(paper_records)
    assert len(values) > 48
    kinds = ["macs_convolution", "macs_linear", "macs_batched_product"]
    assert (values[kinds] >= 0).all(axis=None)
    assert list(values[kinds].sum(axis="columns")) == list(values["macs"])
    assert not values["model"].duplicated().any()
    for model in ("pvt:b2/v1/published", "pvt:b2/v1+ope+cffn+lsra/published"):
        (row,) = values[values["model"] == model].to_dict("records")
        modules = module_costs(build_config(*model.removeprefix("pvt:").split("/")), 224)
        convolutions = ("patch_embed.proj", "attn.sr", "mlp.dwconv")
        assert row["macs_convolution"] == sum(each.macs for each in modules if each.name.endswith(convolutions))
        assert row["macs_batched_product"] == sum(each.macs for each in modules if each.name.endswith("attn"))


def test_operators_by_hand(tmp_path, write_cell):
    work = {
        "convolution": 5,
        "_convolution": 1,
        "addmm": 20,
        "mm": 30,
        "_addmm_activation": 50,
        "bmm": 4,
        "baddbmm": 90,
    }
    for side, times in ((224, 1), (448, 10)):
        by_operator = {name: times * macs for name, macs in work.items()}
        result = {
            "params": 7,
            "macs": 200 * times,
            "macs_by_operator": by_operator,
            "other_values": {"pool": 3 * times},
        }
        write_cell(tmp_path, replace(BASELINE, conditions=Cost(resolution=side)), result)
    (row,) = operator_values(load_records(tmp_path)).to_dict("records")
    assert (row["name"], row["resolution"]) == ("ResNet18", "224")
    assert (row["macs_convolution"], row["macs_linear"], row["macs_batched_product"]) == (6, 100, 94)
    assert row["values_pool"] == 3


REFUSAL = {
    "params": 28_288_354,
    "macs": None,
    "refused": "AssertionError: Input height (256) doesn't match model (224).",
}
COUNTED = {
    "params": 11_689_512,
    "macs": 1_814_073_344,
    "macs_by_operator": {"convolution": 1_813_561_344, "addmm": 512_000},
    "breakdown": {"conv1": {"params": 9408, "macs": 118_013_952}},
    "other_values": {"batch_norm": 2_483_712},
}
ONLY_PARAMS = {
    "params": 44_140_000,
    "macs": None,
    "refused": "the second stage's work depends on what the first proposes",
}


def write_nothing(results: Path, write_cell: Callable[..., Path]) -> None:
    pass


def write_no_costs(results: Path, write_cell: Callable[..., Path]) -> None:
    write_cell(results, replace(ARM.of(variant="pico", base="v2"), conditions=Accuracy()))


def write_a_model(results: Path, write_cell: Callable[..., Path]) -> None:
    write_cell(results, BASELINE.of(name="timm:resnet26"), COUNTED)


def write_a_model_of_table_2(results: Path, write_cell: Callable[..., Path]) -> None:
    write_cell(results, BASELINE, COUNTED)


def write_a_refusal(results: Path, write_cell: Callable[..., Path]) -> None:
    write_cell(results, build_cell(model="timm:swin_x", conditions=Cost(resolution=256)), REFUSAL)


def write_a_detector(results: Path, write_cell: Callable[..., Path]) -> None:
    write_cell(results, replace(BASELINE, conditions=Cost(head="fcos", resolution=(800, 1280))), COUNTED)


def write_small_arms(results: Path, write_cell: Callable[..., Path]) -> None:
    for arm in ("v1", "v1+ope"):
        write_cell(results, ARM.of(variant="pico", base="v2", arm=arm))


def write_linear_sra_alone(results: Path, write_cell: Callable[..., Path]) -> None:
    for side in (224, 320, 448):
        write_cell(results, replace(ARM.of(arm="v1+ope+cffn+lsra"), conditions=Cost(resolution=side)))


def write_mask_rcnn_alone(results: Path, write_cell: Callable[..., Path]) -> None:
    for side in (224, 512, (800, 1280)):
        for arm in ("v1", "v1+ope", "v1+ope+cffn", "v1+ope+cffn+lsra"):
            write_cell(
                results, replace(ARM.of(arm=arm), conditions=Cost(head="mask_rcnn", resolution=side)), ONLY_PARAMS
            )


def write_arms_of_b2(results: Path, write_cell: Callable[..., Path]) -> None:
    for arm in ARMS:
        for side in (224, (800, 1280)):
            write_cell(results, replace(ARM.of(arm=arm), conditions=Cost(resolution=side)))


def write_an_erratum(results: Path, write_cell: Callable[..., Path]) -> None:
    write_cell(results, ARM.of(variant="b5", arm="v1+ope+cffn"))


OF_B2 = {"table2_imagenet", "backbones", "cost", "cumulative"}

UNFILLED = {
    write_nothing: set(),
    write_no_costs: {"accuracy"},
    write_a_model: {"models", "operators"},
    write_a_model_of_table_2: {"table2_imagenet", "models", "operators"},
    write_a_refusal: {"models"},
    write_a_detector: {"models"},
    write_small_arms: {"comparison", "cost", "effects_cost", "operators"},
    write_linear_sra_alone: {*OF_B2 - {"backbones"}, "parts", "scaling", "operators"},
    write_mask_rcnn_alone: {"table3_coco", "cost"},
    write_arms_of_b2: {*OF_B2, "comparison", "crossover", "complexity", "parts", "operators"},
    write_an_erratum: {"table2_imagenet", "cost", "operators"},
}
"""What writes some records, and the tables that they are enough for."""


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(write, marks=[pytest.mark.slow] * (write in (write_no_costs, write_arms_of_b2, write_an_erratum)))
        for write in UNFILLED
    ],
    ids=lambda write: write.__name__,
)
def test_a_folder_that_lacks_records_gives_the_tables_that_it_can(tmp_path, write_cell, write):
    write(tmp_path, write_cell)
    build_report(tmp_path, everything=True)
    assert {path.stem for path in (tmp_path / "tables").glob("*.md")} == UNFILLED[write]
    records = load_records(tmp_path)
    assert render_breakdown(records, width=80).count(" px") == (records["measurement"] == "cost").sum()


def test_what_has_no_macs_is_in_no_figure(tmp_path, write_cell):
    write_mask_rcnn_alone(tmp_path, write_cell)
    assert list_figures(load_records(tmp_path)) == []


@pytest.mark.parametrize("table", PAPER_TABLES)
def test_rows_without_a_record_are_left_out(paper_records, table):
    wanted = PAPER_TABLES[table]
    kept = paper_records[paper_records["model"] != wanted.models["PVTv2-B2"]]
    values = paper_values(kept, table)
    built = values[values["head"] != ""]
    assert set(built["name"]) == set(wanted.models) - {"PVTv2-B2"}
    assert paper_values(paper_records[paper_records["head"].isna()], table).empty


def test_table_4_quotes_what_is_not_built(paper_records):
    values = paper_values(paper_records, "table4_detectors")
    quoted = values[values["head"] == ""]
    assert set(quoted["detector"]) == {"Cascade Mask R-CNN", "GFL", "Sparse R-CNN"}
    assert quoted[["params", "macs", "params_difference_percent", "macs_difference_percent"]].isna().all(axis=None)
    assert quoted[["reported_params_m", "reported_macs_g"]].notna().all(axis=None)


def test_models_are_those_that_are_no_arms(paper_records):
    values = model_values(paper_records)
    assert len(values) == paper_records["arm"].isna().sum()
    refused = values[values["macs"].isna()]
    assert set(refused["head"]) == {"mask_rcnn"}
    assert refused["refused"].notna().all()
    assert values.loc[values["macs"].notna(), "refused"].isna().all()
    names = dict(zip(values["model"], values["name"], strict=True))
    assert (names["transformers:cvt-13"], names["baselines:cpvt_s"]) == ("CvT-13", "CPVT-S")
    assert names["timm:resnet50?stem_type=deep,stem_width=32"] == "timm:resnet50?stem_type=deep,stem_width=32"


def test_the_paper_s_ap_stands_in_table_6_and_ours_only_where_it_was_measured_on_coco(
    write_dense, paper_records, tmp_path
):
    values = table6_values(paper_records)
    published = values[values["base"] == "published"].set_index("arm")
    assert published["reported_ap_percent"].dropna().to_dict() == {
        "v1": 40.4,
        "v1+ope": 42.2,
        "v1+ope+cffn": 44.6,
        "v1+ope+cffn+lsra": 43.6,
    }
    assert "ap_on_coco" not in values
    on_coco = Detection(**vars(CocoOneTimes()))
    write_dense(tmp_path, arm_cell("b2", "v1+ope+cffn", "published", on_coco), 0.441)
    write_dense(tmp_path, arm_cell("b2", "v1", "published", Detection()), 0.9)  # of BCCD
    values = table6_values(pd.concat([paper_records, load_records(tmp_path)], ignore_index=True))
    ours = values[values["base"] == "published"].set_index("arm")["ap_on_coco"].dropna()
    assert ours.to_dict() == {"v1+ope+cffn": 0.441}
