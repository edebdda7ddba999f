"""The tables of cost as people read them."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from ablations.cells import arm_cell, build_cell
from ablations.measure import Cost
from ablations.paper import load_paper_table
from ablations.records import load_records
from ablations.report import paper
from ablations.report.cost import TABLES as COST_TABLES
from ablations.report.cost import render_breakdown
from ablations.report.tables import render_markdown

BY_NAME = {table.name: table for table in (*paper.TABLES, *COST_TABLES)}
SWIN = build_cell(model="timm:swin_small", conditions=Cost())


def render(name: str, values: pd.DataFrame) -> str:
    return render_markdown(BY_NAME[name], values)


def render_records(name: str, results: Path) -> str:
    return render(name, BY_NAME[name].values(load_records(results)))


def rows_of(text: str) -> list[list[str]]:
    """The rows of all groups of a table, headings too, as cells."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| --")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


@pytest.mark.parametrize("name", BY_NAME)
def test_every_table_of_the_paper_is_whole(name, paper_tables):
    table, text = BY_NAME[name], render(name, paper_tables[name])
    assert text.startswith(f"# {table.title}\n\n{table.about}\n\n## ")
    assert text.count("Conditions: ") == text.count("\n## ") > 0
    assert not re.search(r"\b(nan|None|NaT|inf)\b|<NA>", text)
    groups = [rows_of(group) for group in text.split("\n## ")[1:]]
    for heading, *rows in groups:
        assert len(rows) > 0
        assert {len(row) for row in rows} == {len(heading)}
        names = [tuple(row[:2]) for row in rows]
        assert len(set(names)) == len(names)


def test_models_word_for_word(tmp_path, write_cell):
    result = {"params": 49_606_258, "macs": 8_740_864_512}
    write_cell(tmp_path, SWIN, result)
    for side in (225, 256):
        refused = {"params": 49_606_258, "macs": None, "refused": f"AssertionError: height ({side}) is not (224)"}
        write_cell(tmp_path, replace(SWIN, conditions=Cost(resolution=side)), refused)
    write_cell(tmp_path, SWIN.of(name="timm:resnet18"), {"params": 11_689_512, "macs": 1_814_073_344})
    assert render_records("models", tmp_path) == (
        "# Models by name\n\n"
        "One image's forward pass, counted by tracing the model's operators on tensors without numbers. A dash is a "
        "size that was not counted, or that the model refuses: then its reason stands below.\n\n"
        "## classifier\n\n"
        "| Model             | Parameters, M | 224 px: G |\n"
        "| ----------------- | ------------: | --------: |\n"
        "| `timm:resnet18`   |         11.69 |     1.814 |\n"
        "| `timm:swin_small` |         49.61 |     8.741 |\n\n"
        "`timm:swin_small` at 225 px: AssertionError: height (225) is not (224). "
        "`timm:swin_small` at 256 px: AssertionError: height (256) is not (224). "
        "Conditions: classifier.\n"
    )


def test_a_size_that_one_model_refuses_is_a_dash_beside_anothers_number(tmp_path, write_cell):
    at_256 = Cost(resolution=256)
    write_cell(tmp_path, SWIN, {"params": 49_606_258, "macs": 8_740_864_512})
    refused = {"params": 49_606_258, "macs": None, "refused": "AssertionError: not a window."}
    write_cell(tmp_path, replace(SWIN, conditions=at_256), refused)
    write_cell(
        tmp_path, replace(SWIN.of(name="timm:resnet18"), conditions=at_256), {"params": 10**7, "macs": 2 * 10**9}
    )
    text = render_records("models", tmp_path)
    assert sorted(rows_of(text)[1:]) == [
        ["`timm:resnet18`", "10.00", "-", "2.000"],
        ["`timm:swin_small`", "49.61", "8.741", "-"],
    ]
    # A size that was not measured is a dash too, but nothing is said to have refused it.
    assert text.count("AssertionError") == 1
    assert "`timm:swin_small` at 256 px: AssertionError: not a window. Conditions" in text


def test_heads_stand_apart(paper_tables):
    text = render("models", paper_tables["models"])
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == ["classifier", "retinanet", "mask_rcnn", "fcos", "semantic_fpn"]
    mask_rcnn = text.partition("## mask_rcnn")[2].partition("## fcos")[0]
    assert "G" not in rows_of(mask_rcnn)[0][-1]
    assert mask_rcnn.count("depends on what the first proposes") == 1
    assert mask_rcnn.count("` at 800x1280 px") == len(rows_of(mask_rcnn)) - 1


def test_table_2_word_for_word(tmp_path, write_cell):
    for variant, arm in (("b0", "v1+ope+cffn"), ("b1", "v1")):
        write_cell(tmp_path, arm_cell(variant=variant, arm=arm, base="published", conditions=Cost()))
    text = render_records("table2_imagenet", tmp_path)
    assert text.partition("\n\n## ")[2] == (
        "classifier, 224 px\n\n"
        "| Model      | Parameters, M | reported | difference, % | GFLOPs (MACs) | reported | difference, % "
        "| Reported top-1, % |                                Why the reported number differs |\n"
        "| ---------- | ------------: | -------: | ------------: | ------------: | -------: | ------------: "
        "| ----------------: | -------------------------------------------------------------: |\n"
        "| PVTv2-B0   |         3.667 |      3.4 |          +7.8 |        0.5661 |      0.6 |          -5.7 "
        "|              70.5 | parameters: misprinted, the released model has as many as ours |\n"
        "| PVTv1-Tiny |         13.23 |     13.2 |          +0.2 |         1.933 |      1.9 |          +1.7 "
        "|              75.1 |                                                              - |\n\n"
        "Conditions: classifier, 224 px.\n"
    )


def test_table_2_has_the_note_of_every_erratum(paper_tables):
    heading, *rows = rows_of(render("table2_imagenet", paper_tables["table2_imagenet"]))
    notes = {row[0]: row[-1] for row in rows}
    assert heading[-1] == "Why the reported number differs"
    errata = load_paper_table("errata")
    assert {name for name, note in notes.items() if note != "-"} == set(errata["model"])
    words = {"params_m": "parameters: ", "gflops": "GFLOPs: ", "top1": "top-1: "}
    for _, erratum in errata.iterrows():
        assert words[erratum["column"]] in notes[erratum["model"]]
        if isinstance(erratum["note"], str):
            assert erratum["note"] in notes[erratum["model"]]


def test_table_3_has_no_column_for_what_cannot_be_counted(paper_tables):
    retinanet, mask_rcnn = render("table3_coco", paper_tables["table3_coco"]).split("\n## ")[1:]
    assert rows_of(retinanet)[0] == [
        *("Model", "Parameters, M", "reported", "difference, %", "GFLOPs (MACs), 800×1280")
    ]
    assert rows_of(mask_rcnn)[0] == ["Model", "Parameters, M", "reported", "difference, %"]


def test_quoted_rows_say_so_and_have_no_number_of_ours(paper_tables):
    rows = rows_of(render("table4_detectors", paper_tables["table4_detectors"]))[1:]
    assert len(rows) == len(load_paper_table("table4_detectors")) == 16
    for detector, _, ours_is, params, paper_params, _, macs, paper_macs, _ in rows:
        built = detector == "ATSS"
        assert ours_is == ("torchvision's FCOS" if built else "quoted, not built")
        assert (params == "-") == (macs == "-") == (not built)
        assert paper_params.isdecimal()
        assert paper_macs.isdecimal()
    assert ["Sparse R-CNN", "PVTv2-B2", "quoted, not built", "-", "107", "-", "-", "215", "-"] in rows


def test_table_6_has_the_papers_columns_in_base_published_alone(paper_tables):
    published, *others = render("table6_ablation", paper_tables["table6_ablation"]).split("\n## ")[1:]
    assert published.startswith("b2, base published, retinanet, 800×1280 px\n")
    assert sum("reported" in title for title in rows_of(published)[0]) == 4
    assert ["++ CFFN (PVTv2-B2)", "v1+ope+cffn"] in [row[:2] for row in rows_of(published)]
    assert "-63.3 |" in published
    for text in others:
        assert rows_of(text)[0] == ["Arm", "Parameters, M", "step", "GFLOPs (MACs)", "step"]
        assert len(rows_of(text)) == 9
        assert "paper" not in text


def test_the_tables_say_what_the_papers_unit_is():
    for name in ("table2_imagenet", "table4_detectors", "table5_ade20k", "table6_ablation"):
        assert "What the paper calls GFLOPs are MACs" in BY_NAME[name].about


def test_scaling_has_a_column_for_each_size(tmp_path, write_cell):
    for side in (64, 128, 256):
        write_cell(tmp_path, replace(SWIN, conditions=Cost(resolution=side)), {"params": 1, "macs": 10**6 * side**3})
    text = render_records("scaling", tmp_path)
    assert rows_of(text) == [
        ["Model", "Exponent", "at the end", "64 px: G", "128 px: G", "256 px: G"],
        ["timm:swin_small", "1.500", "1.500", "262.1", "2,097", "16,777"],
    ]
    assert "## classifier, 64 to 256 px\n" in text


def test_complexity_shows_both_ends_with_the_printed_and_the_traced_term(paper_tables):
    text = render("complexity", paper_tables["complexity"])
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["224 px", "2048 px"]
    first = rows_of(text)[1]
    # 2 x 3136 tokens squared x 64 / 64, and 3136 x 64 squared with and without R squared, in millions.
    assert first == ["1", "56 × 56", "64", "8", "19.67", "19.67", "822.08", "12.85", "19.67", "19.67", "0.20"]
    assert "R² times too large" in text


def test_parts_show_shares_that_sum_to_all(paper_tables):
    rows = rows_of(render("parts", paper_tables["parts"]))
    shares = [[float(share) for share in re.findall(r"\((\d+\.\d) %\)", " ".join(row))] for row in rows[1:9]]
    assert [len(own) for own in shares] == [7] * 8
    assert [sum(own) for own in shares] == pytest.approx([100] * 8, abs=0.35)


def test_a_breakdown_word_for_word(tmp_path, write_cell):
    breakdown = {
        "": {"params": 1_000_000, "macs": 0},
        "fc": {"params": 2_500_000, "macs": 40_000_000},
        "blocks.0.conv": {"params": 3_000_000, "macs": 1_500_000_000},
    }
    write_cell(tmp_path, SWIN, {"params": 6_500_000, "macs": 1_540_000_000, "breakdown": breakdown})
    refused = {"params": 6_500_000, "macs": None, "refused": "AssertionError"}
    write_cell(tmp_path, replace(SWIN, conditions=Cost(resolution=256)), refused)
    assert render_breakdown(load_records(tmp_path), width=80) == (
        "timm:swin_small, classifier, 224 px\n\n"
        "Module, repeated blocks as one  Parameters, M  MACs, G\n"
        "blocks.0.conv                           3.000    1.500\n"
        "fc                                      2.500  0.04000\n"
        "(the model itself)                      1.000        0\n\n"
        "timm:swin_small, classifier, 256 px\n\n"
        "No breakdown: AssertionError"
    )


def test_every_counted_record_has_a_breakdown_that_sums_to_it(paper_records):
    counted = paper_records[paper_records["macs"].notna()]
    for _, row in counted.iterrows():
        rows = row["breakdown"].values()
        assert sum(each["macs"] for each in rows) == row["macs"] == sum(row["macs_by_operator"].values())
        assert sum(each["params"] for each in rows) == row["params"]
    text = render_breakdown(paper_records, width=80)
    headings = re.findall(r"^\S+.*, \S+ px(?:, P = \d+)?$", text, re.MULTILINE)
    assert (len(headings), text.count("No breakdown: ")) == (len(paper_records), len(paper_records) - len(counted))
