"""Peak memory beside libraries' models: what is compared with what, and what counts as above."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ablations.design import Memory, build_cell

from ablations.records import load_records
from ablations.report.library_memory import library_memory_values
from ablations.report.memory_tables import MEMORY_TABLES
from ablations.report.memory_values import model_memory_values
from ablations.report.tables import render_markdown

MIB = 2**20

V2 = "pvt:b0/v1+ope+cffn/published"
V2_LI = "pvt:b0/v1+ope+cffn+lsra/published"


@pytest.fixture
def read(tmp_path: Path, write_cell: Callable[..., Path]) -> Callable[..., pd.DataFrame]:
    """`read((model, MiB, conditions), ...)` returns the records of such peaks; None MiB is of a size refused."""

    def write_and_read(*peaks: tuple[str, float | None, dict[str, Any]]) -> pd.DataFrame:
        for model, mib, conditions in peaks:
            result: dict[str, Any] = {
                "peak_memory_bytes": None if mib is None else int(mib * MIB),
                "memory_method": "tracked_storages",
                "parameter_bytes": MIB,
                "input_bytes": MIB,
            }
            if "in-memory" in conditions:
                conditions = dict(conditions)
                result["resident_peak_bytes"] = conditions.pop("in-memory") * MIB
            write_cell(tmp_path, build_cell(model, Memory(**conditions)), result)
        return load_records(tmp_path)

    return write_and_read


def test_ours_stands_beside_each_layout_of_each_library(read: Callable[..., pd.DataFrame]) -> None:
    records = read(
        (V2, 90, {"in-memory": 99}),
        ("timm:pvt_v2_b0", 100, {"channels_last": False, "in-memory": 110}),
        ("timm:pvt_v2_b0", 90, {}),
        ("transformers:pvt_v2_b0", 120, {"channels_last": False}),
        (V2_LI, 80, {}),
        ("timm:pvt_v2_b0?linear=True", 60, {"channels_last": False}),
        ("timm:pvt_v2_b0?linear=True", 75, {}),
    )
    values = library_memory_values(records).set_index("arm")
    assert list(values.index) == ["v1+ope+cffn", "v1+ope+cffn+lsra"]
    v2, v2_li = (values.loc[arm] for arm in values.index)
    assert (v2["timm_bytes"], v2["timm_channels_last_bytes"]) == (100 * MIB, 90 * MIB)
    assert v2["timm_change_percent"] == pytest.approx(-10)
    assert v2["timm_channels_last_change_percent"] == 0
    assert v2["transformers_change_percent"] == pytest.approx(-25)
    assert pd.isna(v2["transformers_channels_last_bytes"])
    assert v2["timm_resident_change_percent"] == pytest.approx(-10)
    assert v2_li["timm_change_percent"] == pytest.approx(100 / 3)
    assert list(values["above"]) == [False, True]
    table = next(table for table in MEMORY_TABLES if table.name == "memory_libraries")
    text = " ".join(render_markdown(table, library_memory_values(records)).split())
    assert "100.0 (-10.00 %) | 90.00 (equal)" in text
    assert "110.0 (-10.00 %)" in text
    assert "tracked_storages" in text


def test_v1_is_compared_with_transformers(read: Callable[..., pd.DataFrame]) -> None:
    v1 = "pvt:b2/v1/published"
    values = library_memory_values(read((v1, 41, {}), ("transformers:pvt_b2", 40, {"channels_last": False})))
    assert list(values["above"]) == [True]
    assert list(values["case"]) == ["b2 v1, 224 px"]
    assert values["timm_bytes"].isna().all()


@pytest.mark.parametrize(
    ("model", "conditions"),
    [
        ("pvt:b0/v1+ope+cffn/v1", {}),
        ("pvt:b1/v1+ope+cffn/published", {}),
        (V2_LI, {}),
        (V2, {"resolution": 256}),
        (V2, {"mode": "training"}),
        (V2, {"batch_size": 2}),
        (V2, {"channels_last": False}),
        (V2, {"method": "predicted"}),
    ],
)
def test_what_differs_in_more_than_the_library_is_not_compared(
    model: str, conditions: dict[str, Any], read: Callable[..., pd.DataFrame]
) -> None:
    theirs = ("timm:pvt_v2_b0", 100, {"channels_last": False})
    assert library_memory_values(read((model, 90, conditions), theirs)).empty


@pytest.mark.parametrize("machine", [{"threads": 1}, {"torch": "2.9.0"}, {"device_name": "Another CPU"}], ids=str)
def test_what_was_measured_on_two_machines_is_not_compared(
    machine: dict[str, Any], tmp_path: Path, write_cell: Callable[..., Path]
) -> None:
    result = {"peak_memory_bytes": MIB, "memory_method": "tracked_storages"}
    write_cell(tmp_path, build_cell(V2, Memory()), result)
    write_cell(tmp_path, build_cell("timm:pvt_v2_b0", Memory(channels_last=False)), result, **machine)
    assert library_memory_values(load_records(tmp_path)).empty
    write_cell(tmp_path, build_cell("timm:pvt_v2_b0", Memory()), result)
    (row,) = library_memory_values(load_records(tmp_path)).to_dict("records")
    assert (row["timm_channels_last_change_percent"], row["threads"]) == (0, 2)
    assert pd.isna(row["timm_bytes"])


def test_predictions_are_compared_whichever_machine_made_them(tmp_path: Path, write_cell: Callable[..., Path]) -> None:
    result = {"peak_memory_bytes": MIB, "memory_method": "predicted_storages"}
    write_cell(tmp_path, build_cell(V2, Memory(method="predicted")), result)
    write_cell(tmp_path, build_cell("timm:pvt_v2_b0", Memory(method="predicted")), result, threads=1)
    assert len(library_memory_values(load_records(tmp_path))) == 1


def test_a_size_that_a_library_refuses_makes_no_row(read: Callable[..., pd.DataFrame]) -> None:
    assert library_memory_values(read((V2, 90, {}), ("timm:pvt_v2_b0", None, {"channels_last": False}))).empty


@pytest.mark.parametrize("peaks", [[], [("timm:pvt_v2_b0", 9, {})], [("timm:resnet18", 9, {})], [(V2, 9, {})]])
def test_without_pairs_there_is_no_row(peaks: list[Any], read: Callable[..., pd.DataFrame]) -> None:
    assert library_memory_values(read(*peaks)).empty


def test_equal_models_do_not_stand_among_models_by_name(read: Callable[..., pd.DataFrame]) -> None:
    values = model_memory_values(
        read(("timm:pvt_v2_b0", 9, {}), ("transformers:pvt_b2", 9, {}), ("timm:resnet18", 9, {}))
    )
    assert list(values["model"]) == ["timm:resnet18"]
