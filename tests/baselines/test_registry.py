"""The models that PVT v2 is compared with: all that the paper and the article name, each of its known size."""

import pytest
import torch

from ablations.baselines.registry import (
    BASELINES,
    FAMILIES,
    MODELS,
    OWN_RESOLUTIONS,
    PAPER_TABLES,
    SCALED,
)
from ablations.cells import build_cell
from ablations.measure import Cost
from ablations.measure.macs import trace_macs
from ablations.measure.network import build_network
from ablations.paper import load_paper_table

# Parameters in M, as they were counted elsewhere: of timm's, transformers' and PVT's models on `meta`, of T2T-ViT, CPVT
# and LocalViT by hand from their papers (T2T-ViT without the fixed position embedding).
PARAMETERS = {
    **{"PVTv1-Tiny": "13.23", "PVTv1-Small": "24.49", "PVTv1-Medium": "44.21", "PVTv1-Large": "61.37"},
    **{"PVTv2-B0": "3.67", "PVTv2-B1": "14.01", "PVTv2-B2": "25.36", "PVTv2-B2-Li": "22.55"},
    **{"PVTv2-B3": "45.24", "PVTv2-B4": "62.56", "PVTv2-B5": "81.96"},
    **{"ResNet18": "11.69", "ResNet50": "25.56", "ResNet101": "44.55", "ResNet152": "60.19"},
    **{"ResNeXt50-32x4d": "25.03", "ResNeXt101-32x4d": "44.18", "ResNeXt101-64x4d": "83.46"},
    **{"RegNetY-4G": "20.65", "RegNetY-8G": "39.18", "RegNetY-16G": "83.59"},
    **{"ViT-Base/16": "86.57", "ViT-S/16": "22.05", "ViT-S/32": "22.88"},
    **{"DeiT-Tiny/16": "5.72", "DeiT-Small/16": "22.05", "DeiT-Base/16": "86.57"},
    **{"T2T-ViT_t-14": "21.47", "T2T-ViT_t-19": "39.08", "T2T-ViT_t-24": "64.00"},
    **{"TNT-S": "23.77", "TNT-B": "65.43"},
    **{"Swin-T": "28.29", "Swin-S": "49.61", "Swin-B": "87.77"},
    **{"CvT-13": "20.00", "CvT-21": "31.62"},
    "CoaT-Lite Small": "19.84",
    **{"Twins-SVT-S": "24.06", "Twins-SVT-B": "56.07", "Twins-SVT-L": "99.27"},
    **{"CPVT-Ti": "5.68", "CPVT-S": "21.98"},
    **{"LocalViT-T": "5.9", "LocalViT-S": "22.4"},
    **{"CrossViT-S": "26.86", "CrossViT-15": "27.53"},
    **{"LeViT-256": "18.89", "LeViT-384": "39.13"},
}

# MACs in G of models that no table of the paper has, at 224 px or at their own size.
MACS = {
    **{"ViT-S/16": "4.60", "ViT-S/32": "1.14"},
    **{"CrossViT-S": "5.62", "CrossViT-15": "5.79"},
    **{"LeViT-256": "1.13", "LeViT-384": "2.35"},
}


def is_reported_as(count: int, reported: str, unit: float) -> bool:
    """Whether a count is what was reported, to its last digit."""
    return f"{count / unit:.{len(reported.partition('.')[2])}f}" == reported


@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_the_parameters_that_are_known_of_it(name: str) -> None:
    with torch.device("meta"):
        network = build_network(build_cell(MODELS[name], Cost()))
    count = sum(parameter.numel() for parameter in network.parameters())
    assert is_reported_as(count, PARAMETERS[name], 1e6), count


@pytest.mark.parametrize("name", MACS)
def test_a_model_beside_the_paper_s_has_the_macs_that_are_known_of_it(name: str) -> None:
    with torch.device("meta"):
        network = build_network(build_cell(MODELS[name], Cost()))
    side = OWN_RESOLUTIONS.get(name, 224)
    macs = trace_macs(network, (1, 3, side, side)).total
    assert is_reported_as(macs, MACS[name], 1e9), macs


@pytest.mark.parametrize(
    ("table", "column", "rows"),
    [
        ("table2_imagenet", "model", "group != ''"),
        ("table3_coco", "backbone", "backbone != ''"),
        ("table4_detectors", "backbone", "detector == 'ATSS'"),
        ("table5_ade20k", "backbone", "backbone != ''"),
    ],
)
def test_every_row_of_the_paper_has_a_model(table: str, column: str, rows: str) -> None:
    names = load_paper_table(table).query(rows)[column].tolist()
    assert sorted(PAPER_TABLES[table].models) == sorted(names)
    assert len(set(names)) == len(names)


def test_every_table_whose_rows_are_backbones_is_there() -> None:
    assert set(PAPER_TABLES) == {"table2_imagenet", "table3_coco", "table4_detectors", "table5_ade20k"}


def test_models_of_one_table_are_others_there_alone() -> None:
    resnet50 = {name: table.models["ResNet50"] for name, table in PAPER_TABLES.items()}
    assert resnet50 == dict.fromkeys(PAPER_TABLES, "timm:resnet50") | {
        "table5_ade20k": "timm:resnet50?stem_type=deep,stem_width=32"
    }


def test_every_family_that_the_article_names_has_its_models() -> None:
    named = "ViT DeiT T2T-ViT TNT CPVT CrossViT LocalViT Swin CvT CoaT LeViT Twins".split()
    assert sorted(FAMILIES) == sorted([*named, "PVT v1"])
    for family, names in FAMILIES.items():
        assert names
        assert all(name.replace("PVTv1", "PVT v1").startswith(family) for name in names)
        assert set(names) <= set(MODELS)


def test_no_model_has_two_names() -> None:
    assert len(set(MODELS.values())) == len(MODELS) == len(BASELINES)
    assert {*OWN_RESOLUTIONS, *SCALED} <= set(MODELS)
