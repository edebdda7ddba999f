"""Records of the study `quick` with made-up numbers, for tests of what is made of records."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ablations.cost import count_macs, count_params, part_costs
from ablations.design import Accuracy, Cell, Cost, Memory, Speed, find_study
from ablations.records import load_records, write_record

ENVIRONMENT = {"device_name": "Imaginary CPU", "torch": "2.8.0", "threads": 2, "commit": "0123abc"}


def made_up_result(cell: Cell) -> dict[str, Any]:
    """A result with the keys of a real one; costs are true, the rest plausible and the same every time."""
    chance = random.Random(cell.key)
    config, conditions = cell.config, cell.conditions
    params = count_params(config)
    match conditions:
        case Cost():
            macs = count_macs(config, conditions.resolution)
            parts = part_costs(config, conditions.resolution).values()
            breakdown = {part.name: {"params": part.params, "macs": part.macs} for part in parts}
            return {"params": params, "macs": macs, "macs_traced": macs, "breakdown": breakdown}
        case Memory():
            assert isinstance(conditions.resolution, int)
            tokens = (conditions.resolution // config.stem_stride) ** 2
            keys = config.pool_size**2 if config.linear_sra else tokens // config.sr_ratios[0] ** 2
            held = 2 if conditions.mode == "inference" else 20 + 8 * config.conv_feed_forward
            scores = 4 * tokens * keys * (held if cell.attention == "explicit" else 0)
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
            }
        case Accuracy():
            gain = 0.02 * config.overlapping_patch_embed + 0.03 * config.conv_feed_forward - 0.004 * config.linear_sra
            return {
                "top1": 0.9 + gain + 0.003 * conditions.seed + chance.gauss(0, 0.002),
                "eval_loss": 0.6,
                "n_eval_images": 360,
                "n_train_images": 1437,
                "history": [{"epoch": 1, "loss": 0.6}],
                "train_s": 4.0,
                "train_img_per_s": 4000.0,
            }


def write(results: Path, cell: Cell, result: dict[str, Any] | None, **environment: Any) -> Path:
    """Writes the record of a cell; without a result it failed."""
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
    return load_records(quick_results)
