"""The paper's tables as package data."""

from importlib import resources

import pytest

from ablations import paper
from ablations.errors import InputError
from ablations.paper import load_paper_table

NAMES = [file.name.removesuffix(".csv") for file in resources.files(paper).iterdir() if file.name.endswith(".csv")]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "errata"])
def test_every_table_loads_whole(name):
    table = load_paper_table(name)
    assert len(table) >= 4
    # Only the reduction ratios of the linear model and the pooled sizes of the others have nothing to say.
    assert not table.drop(columns=["sr_ratios", "linear_pool"], errors="ignore").isna().any(axis=None)


def test_every_erratum_names_a_cell_of_a_table_once():
    errata = load_paper_table("errata")
    assert not errata.drop(columns="note").isna().any(axis=None)
    assert not errata.duplicated(["table", "model", "column"]).any()
    for _, erratum in errata.iterrows():
        table = load_paper_table(erratum["table"])
        assert erratum["model"] in set(table["model"])
        assert erratum["column"] in table.columns.drop("model")


def test_an_erratum_that_no_count_explains_says_where_its_print_is_from():
    errata = load_paper_table("errata")
    assert not errata.loc[errata["reason"] == "source", "note"].isna().any()


def test_numbers_are_the_printed_ones():
    table = load_paper_table("table6_ablation").set_index("row")
    assert table.loc[4, "top1"] == 82.1
    assert table.loc[1, "retinanet_gflops_1280x800"] == 285.8
    # The paper prints 3.4 M for B0, which has 3.67 M: an erratum that is kept.
    assert load_paper_table("table2_imagenet").set_index("model").loc["PVTv2-B0", "params_m"] == 3.4


def test_an_unknown_table_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"paper table='table7'.*table1_architecture, .*table6_ablation"):
        load_paper_table("table7")
