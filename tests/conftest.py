"""Fixtures for every test: folders, and records of the study `quick` with made-up numbers and the committed ones.

What takes long to import (pandas, matplotlib, torch) is imported where it is used, so that one file's tests begin at
once.
"""

from __future__ import annotations

import gc
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ablations.cells import Cell
from ablations.config import TOGGLES
from ablations.cost import count_macs, count_params, module_costs
from ablations.measure import Accuracy, Cost, Memory, Speed
from ablations.studies import find_study

if TYPE_CHECKING:
    import pandas as pd

RESULTS = Path(__file__).parents[1] / "results"


def pytest_collection_finish() -> None:
    """Has the collector of garbage leave alone what was imported: it takes a tenth of the time of all tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def outside_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Has all tests keep out of the user's cache, and wait for no disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ABLATIONS_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        # What tests write need not outlive the machine, and waiting for the disk takes longer than most of them.
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True)
def registered_toggles() -> Iterator[None]:
    """Has each test forget the toggles that it registered."""
    before = dict(TOGGLES)
    yield
    TOGGLES.clear()
    TOGGLES.update(before)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of unpacked data sets that ABLATIONS_DATA_DIR names; the test is skipped where it names none."""
    name = os.environ.get("ABLATIONS_DATA_DIR")
    if not name:
        pytest.skip("ABLATIONS_DATA_DIR is not set")
    folder = Path(name)
    assert folder.is_dir(), f"ABLATIONS_DATA_DIR={name!r} is not a folder"
    return folder


ENVIRONMENT = {"device_name": "Imaginary CPU", "torch": "2.8.0", "threads": 2, "commit": "0123abc"}


def made_up_result(cell: Cell) -> dict[str, Any]:
    """A result with the keys of a real one; costs are true, the rest plausible and the same every time."""
    chance = random.Random(cell.key)
    config, conditions = cell.config, cell.conditions
    params = count_params(config)
    match conditions:
        case Cost():
            macs = count_macs(config, conditions.resolution)
            return {"params": params, "macs": macs, "macs_traced": macs, **made_up_work(cell)}
        case Memory():
            assert isinstance(conditions.resolution, int)
            tokens = (conditions.resolution // config.stem_stride) ** 2
            keys = config.pool_size**2 if ("lsra" in config.toggles) else tokens // config.sr_ratios[0] ** 2
            held = 2 if conditions.mode == "inference" else 20 + 8 * ("cffn" in config.toggles)
            scores = 4 * tokens * keys * (held if cell.config.attention == "explicit" else 0)
            return {
                "peak_memory_bytes": 4 * params + 4 * tokens * 16 * held + scores,
                "parameter_bytes": 4 * params,
                "input_bytes": 12 * conditions.resolution**2,
                "memory_method": "tracked_storages",
            }
        case Speed():
            median = count_macs(config, conditions.resolution) * conditions.batch_size / 4e10
            ratio = 1.0 if cell.arm == "v1" else chance.uniform(0.7, 1.2)
            return {
                "latency_s": median,
                "throughput_img_per_s": conditions.batch_size / median,
                "samples": [median] * conditions.repeats,
                "reference_samples": [median * ratio] * conditions.repeats,
                "relative_speed": ratio,
                "relative_speed_low": 0.97 * ratio if cell.arm != "v1" else 1.0,
                "relative_speed_high": 1.02 * ratio if cell.arm != "v1" else 1.0,
                "iqr_over_median": 0.15 if cell.arm == "v1+ope" else 0.02,
                "noisy": cell.arm == "v1+ope",
                "macs_per_s": 30e9,
                "peak_macs_per_s": 40e9,
            }
        case Accuracy():
            gain = (
                0.02 * ("ope" in config.toggles)
                + 0.03 * ("cffn" in config.toggles)
                - 0.004 * ("lsra" in config.toggles)
            )
            return {
                "top1": 0.9 + gain + 0.003 * conditions.seed + chance.gauss(0, 0.002),
                "eval_loss": 0.6,
                "n_eval_images": 360,
                "n_train_images": 1437,
                "history": [{"epoch": 1, "loss": 0.6}],
                "train_s": 4.0,
                "train_img_per_s": 4000.0,
            }


KINDS = {"proj": "convolution", "sr": "convolution", "dwconv": "convolution", "attn": "bmm"}
"""The operators of a PVT's modules, by the last word of their names; attention's `proj` is a linear layer."""


def made_up_work(cell: Cell) -> dict[str, Any]:
    """True MACs by module and by operator; how many values other layers look at is made up."""
    breakdown: dict[str, dict[str, int]] = {}
    by_operator: Counter[str] = Counter()
    for name, params, macs in module_costs(cell.config, cell.conditions.resolution):
        row = breakdown.setdefault(re.sub(r"(?<!^stages)\.\d+(?=\.|$)", "", name), {"params": 0, "macs": 0})
        row["params"] += params
        row["macs"] += macs
        operator = "addmm" if name.endswith("attn.proj") else KINDS.get(name.rpartition(".")[2], "addmm")
        by_operator[operator] += macs
    return {
        "breakdown": breakdown,
        "macs_by_operator": {operator: macs for operator, macs in by_operator.items() if macs},
        "other_values": {"layer_norm": 3000, "softmax": 200, "activation": 10_000},
    }


def write(results: Path, cell: Cell, result: dict[str, Any] | None, **environment: Any) -> Path:
    """Writes the record of a cell; without a result it failed."""
    from ablations.records import write_record

    return write_record(
        results,
        cell,
        study="quick",
        result=result,
        failure=None if result else "RuntimeError: out of memory",
        environment=ENVIRONMENT | environment,
        started="2026-01-02T03:04:05+00:00",
        duration_s=1.5,
    )


@pytest.fixture(scope="session")
def write_cell() -> Callable[..., Path]:
    """`write_cell(results, cell, result=None, **environment)` writes a record, with a made-up result by default."""
    return lambda results, cell, result=None, **environment: write(
        results, cell, result or made_up_result(cell), **environment
    )


@pytest.fixture(scope="session")
def write_failure() -> Callable[..., Path]:
    """`write_failure(results, cell)` writes the record of a cell that failed."""
    return lambda results, cell: write(results, cell, None)


@pytest.fixture(scope="session")
def quick_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with a record of every cell of `quick`; tests do not write into it."""
    results = tmp_path_factory.mktemp("results")
    for cell in find_study("quick").cells():
        write(results, cell, made_up_result(cell))
    return results


@pytest.fixture(scope="session")
def quick_records(quick_results: Path) -> pd.DataFrame:
    from ablations.records import load_records

    return load_records(quick_results)


@pytest.fixture(scope="session")
def paper_records() -> pd.DataFrame:
    """The committed records of the study `paper`, all of them."""
    from ablations.records import load_records

    records = load_records(RESULTS, "cost")
    keys = {cell.key for cell in find_study("paper").cells()}
    assert keys <= set(records["key"]), "results/ has not all of the study `paper`"
    return records[records["key"].isin(keys)].reset_index(drop=True)


@pytest.fixture
def write_beside_libraries(tmp_path: Path) -> Callable[..., Path]:
    """`write_beside_libraries(cell, libraries, seconds=0.1, **changes)` writes a record of speed.

    `libraries` has each library's time over ours, with an interval from 0.9 to 1.1 times that. Our step has 40 % matrix
    products, 20 % depth-wise convolutions and no rest; a library's, in the default layout, has half products and half
    copies. Changes are of the result; None leaves a key out.
    """

    def profiled(seconds: float, shares: dict[str, float]) -> dict[str, Any]:
        operators = [
            {"kind": kind, "operator": name, "calls": 3, "seconds": half, "samples": [half] * 5}
            for kind, half in ((kind, share * seconds / 2) for kind, share in shares.items())
            for name in ("one", "two")  # each kind twice, under different names
        ]
        rest = seconds * (1 - sum(shares.values()))
        return {"operators": operators, "step_overhead_s": rest, "step_overhead_samples": [rest] * 5}

    def write_timed(cell: Cell, libraries: dict[str, float], seconds: float = 0.1, **changes: Any) -> Path:
        repeats = cell.conditions.repeats
        references = {
            name: {
                "latency_s": ratio * seconds,
                "noisy": False,
                "samples": [ratio * seconds] * repeats,
                "relative_speed": ratio,
                "relative_speed_low": 0.9 * ratio,
                "relative_speed_high": 1.1 * ratio,
                **({} if "," in name else profiled(ratio * seconds, {"matrix products": 0.5, "copies": 0.5})),
            }
            for name, ratio in libraries.items()
        }
        result = {
            "latency_s": seconds,
            "throughput_img_per_s": cell.conditions.batch_size / seconds,
            "iqr_over_median": 0.02,
            "noisy": False,
            "macs_per_s": 30e9,
            "peak_macs_per_s": 40e9,
            "samples": [seconds] * repeats,
            **profiled(seconds, {"matrix products": 0.4, "depth-wise convolutions": 0.2}),
            "roofline": [
                {"kind": "matrix products", "calls": 3, "macs": 900, "bytes": 10, "bound_s": 0.35 * seconds},
                {"kind": "depth-wise convolutions", "calls": 3, "macs": 90, "bytes": 80, "bound_s": 0.15 * seconds},
                {"kind": "other", "calls": 1, "macs": 0, "bytes": 80, "bound_s": 0.3 * seconds},
            ],
            "uncounted": [],
            "references": references,
        } | changes
        return write(tmp_path, cell, {name: value for name, value in result.items() if value is not None})

    return write_timed
