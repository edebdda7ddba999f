"""From one cell to its result: builds what is measured and measures it. Writes nothing."""

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ablations import cost
from ablations.baselines.equal import build_equal, check_equal
from ablations.config import ARMS, as_pair
from ablations.data.registry import data_directory
from ablations.design import Accuracy, AnyCell, Cell, Cost, Evaluation, Memory, Speed
from ablations.errors import first_line
from ablations.measure.bandwidth import measure_bandwidth
from ablations.measure.macs import UncountedOperator, trace_macs
from ablations.measure.matmul_peak import measure_matmul_peak
from ablations.measure.memory import METHODS, MIB, measure_in_process
from ablations.measure.operators import count_roofline, measure_operators
from ablations.measure.predict import predict_peak_memory
from ablations.measure.process import available_memory
from ablations.measure.samples import paired_ratio, summarise_times
from ablations.measure.speed import Step, time_interleaved
from ablations.measure.step import build_step, fused_kernels
from ablations.model import PVT, build_model
from ablations.model.checkpoint import load_weights
from ablations.networks import build_network, build_network_on, traceable_part
from ablations.training.accuracy import Files, measure_accuracy
from ablations.training.distributed import Ranks
from ablations.training.evaluation import evaluate_checkpoint

Tell = Callable[[str], None]
"""Takes a few words on how far a cell is."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the cells of a run are measured with, beside their own conditions."""

    data_dir: Path | None = None
    weights: Path | None = None
    """The file that evaluations take, which is loaded anew for each."""
    force: bool = False
    """Measure memory of the CPU even where a prediction says that there is not enough."""
    ranks: Ranks = field(default_factory=Ranks)
    """This process among those that train together."""
    workers: int = 1
    """Processes or threads that read images ahead."""
    deadline: float = math.inf
    """When a training has to end, in seconds of the monotonic clock."""


def measure_cell(
    cell: AnyCell,
    setting: Setting | None = None,
    *,
    files: Files | None = None,
    tell: Tell = lambda words: None,
) -> dict[str, Any]:
    """Returns the result of one cell: its metrics, and the raw samples they come from.

    A training writes its checkpoints and logs to `files`, and goes on from them.
    """
    setting = setting or Setting()
    match cell.conditions:
        case Cost():
            return _measure_cost(cell)
        case Memory():
            return _measure_memory(cell, cell.conditions, setting.force)
        case Accuracy():
            return _measure_accuracy(cell, cell.conditions, setting, files, tell)
    assert isinstance(cell, Cell)  # other models have no other conditions
    if isinstance(cell.conditions, Speed):
        return _measure_speed(cell, cell.conditions)
    return _evaluate(cell, cell.conditions, setting, tell)


def _measure_cost(cell: AnyCell) -> dict[str, Any]:
    """Counts a cell; where a model refuses the size, or an image's content decides the work, there are no macs."""
    conditions = cast(Cost, cell.conditions)
    network = meta_network(at_any_size(cell))
    params = {name: parameter.numel() for name, parameter in network.named_parameters()}
    result: dict[str, Any] = {"params": sum(params.values()), "macs": None}
    part = traceable_part(network, conditions.head)
    if part is None:
        return result | {"refused": "the second stage's work depends on what the first proposes"}
    try:
        traced = trace_macs(part, input_shape(cell))
    except (AssertionError, ValueError, RuntimeError) as error:
        if isinstance(cell, Cell) or not is_refusal(error):
            raise
        return result | {"refused": first_line(error)}
    if isinstance(cell, Cell) and conditions.head == "classifier":
        counted = cost.count_macs(cell.config, conditions.resolution), cost.count_params(cell.config)
        if counted != (traced.total, result["params"]):
            raise RuntimeError(
                f"closed form {counted}, trace {(traced.total, result['params'])}: (macs, params) differ"
            )
        result["macs_traced"] = traced.total
    return result | {
        "macs": traced.total,
        "macs_by_operator": traced.by_operator,
        "breakdown": _break_down(params, traced.by_module),
        "other_values": traced.other_values,
    }


def is_refusal(error: Exception) -> bool:
    """Whether a model's error is about its input's size: not about operators, or about tensors without numbers."""
    return not isinstance(error, UncountedOperator | NotImplementedError) and "meta" not in str(error)


def at_any_size(cell: AnyCell) -> AnyCell:
    """Returns the cell at the default size: it has the same network."""
    return replace(cell, conditions=replace(cast(Any, cell.conditions), resolution=Cost.resolution))


def _at_any_step(cell: AnyCell, conditions: Memory) -> AnyCell:
    """Returns the cell with the conditions that its network has, or keeps from a prediction; defaults for others."""
    kept = {name: getattr(conditions, name) for name in ("checkpointing", "channels_last")}
    return replace(cell, conditions=Memory(mode="training", **kept))


@lru_cache(maxsize=2 * len(ARMS))
def meta_network(cell: AnyCell) -> nn.Module:
    """Returns the network of a cell without numbers; the same one for equal cells."""
    with torch.device("meta"):
        return build_network(cell)


def _break_down(params: dict[str, int], macs: dict[str, int]) -> dict[str, dict[str, int]]:
    """Returns what each module has by itself, from parameters by name and MACs by module.

    Repeated blocks are one row: a module's name loses its numbers, but for those of `stages` and `layers`.
    """
    rows: dict[str, Counter[str]] = {}
    owners = [(name.rpartition(".")[0], "params", count) for name, count in params.items()]
    for name, metric, count in [*owners, *((name, "macs", count) for name, count in macs.items())]:
        merged = re.sub(r"(?<!^stages)(?<!^layers)(?<!\.stages)(?<!\.layers)\.\d+(?=\.|$)", "", name)
        rows.setdefault(merged, Counter())[metric] += count
    return {name: {"params": row["params"], "macs": row["macs"]} for name, row in rows.items()}


def _measure_memory(cell: AnyCell, conditions: Memory, force: bool) -> dict[str, Any]:
    """Measures in fresh processes, or predicts in this one; a refused size and too little memory are results too."""
    if conditions.method == "predicted":
        return _predict_memory(cell, conditions)
    unknown = {"peak_memory_bytes": None, "memory_method": METHODS[conditions.device]}
    predicted = _foresee(cell, conditions)
    if "refused" in predicted:
        return unknown | {"refused": predicted["refused"]}
    if conditions.device == "cpu" and not force:
        needed, free = predicted.get("peak_memory_bytes", 0), available_memory("cpu")
        if needed > free:
            told = f"predicted to need {needed / MIB:.1f} MiB, free {free / MIB:.1f} MiB; not run"
            return unknown | {"out_of_memory": told}
    build = partial(build_network_on, conditions.device, cell)
    return measure_in_process(build, input_shape(cell, conditions.batch_size), **memory_arguments(conditions))


def _predict_memory(cell: AnyCell, conditions: Memory) -> dict[str, Any]:
    network = meta_network(_at_any_step(cell, conditions)).to("meta")
    try:
        return predict_peak_memory(network, input_shape(cell, conditions.batch_size), **memory_arguments(conditions))
    except (AssertionError, ValueError, RuntimeError) as error:
        if isinstance(cell, Cell) or not is_refusal(error):
            raise
        return {"peak_memory_bytes": None, "memory_method": "predicted_storages", "refused": first_line(error)}


def _foresee(cell: AnyCell, conditions: Memory) -> dict[str, Any]:
    """Returns the prediction for a measured cell; nothing for a model that does not run without numbers."""
    try:
        return _predict_memory(cell, conditions)
    except Exception:  # whatever a strange model may do; the measurement has a limit of its own
        return {}


def memory_arguments(conditions: Memory) -> dict[str, Any]:
    """Returns what a measurement and a prediction are told of the conditions; the network has the others in it."""
    return {name: getattr(conditions, name) for name in ("mode", "precision", "device", "channels_last")}


def _measure_speed(cell: Cell, conditions: Speed) -> dict[str, Any]:
    """Times a cell's step interleaved with its references', arm v1's or those of libraries.

    Beside libraries its operators are timed after that, and theirs, of the models in the default layout. A compiled model has
    none: its kernels are the compiler's, several operators in one.
    """
    own, compared = _speed_steps(cell, conditions)
    samples = time_interleaved({OWN: own} | compared, repeats=conditions.repeats, device=conditions.device)
    summary = summarise_times(samples[OWN])
    references = {}
    for name in compared or (OWN,):  # arm v1 is its own reference
        times = summarise_times(samples[name])
        ratio, low, high = paired_ratio(samples[name], samples[OWN])
        references[name] = {
            "latency_s": times["median"],
            "noisy": times["noisy"],
            "relative_speed": ratio,
            "relative_speed_low": low,
            "relative_speed_high": high,
            "samples": samples[name],
        }
    macs = cost.count_macs(cell.config, conditions.resolution) * conditions.batch_size
    work = macs * (3 if conditions.mode == "training" else 1)
    peak = _matmul_peak(conditions.device, conditions.precision)
    result = {
        "latency_s": summary["median"],
        "throughput_img_per_s": conditions.batch_size / summary["median"],
        "iqr_over_median": summary["iqr_over_median"],
        "noisy": summary["noisy"],
        "macs_per_s": work / summary["median"],
        "peak_macs_per_s": peak["macs_per_s"],
        "samples": samples[OWN],
        "peak_samples": peak["samples"],
    }
    if kernels := fused_kernels(meta_network(cell), conditions.device):
        result["attention_kernels"] = "+".join(kernels)
    if conditions.reference != "v1":
        if not conditions.compiled:
            default_layout = {name: compared[name] for name in conditions.reference.split("+")}
            operators = measure_operators({OWN: own} | default_layout, conditions.device)
            result |= operators.pop(OWN) | _count_roofline(own, conditions.device, peak["macs_per_s"])
            for name, each in operators.items():
                references[name] |= each
        return result | {"references": references}
    (v1,) = references.values()
    ratios = {name: v1[name] for name in ("relative_speed", "relative_speed_low", "relative_speed_high")}
    return result | ratios | {"reference_samples": v1["samples"]}


def _count_roofline(step: Step, device: str, macs_per_s: float) -> dict[str, Any]:
    bandwidth = _bandwidth(device)
    return {
        **count_roofline(step, macs_per_s=macs_per_s, bytes_per_s=bandwidth["rates"]),
        "peak_bytes_per_s": bandwidth["bytes_per_s"],
        "bandwidth_samples": bandwidth["samples"],
    }


OWN = "own"


def _speed_steps(cell: Cell, conditions: Speed) -> tuple[Step, dict[str, Step]]:
    """Returns the step of a cell's model, and those that it is compared with by name."""
    shape = input_shape(cell, conditions.batch_size)

    def step(model: nn.Module, channels_last: bool) -> Step:
        if conditions.compiled:
            model.compile()
        how = {name: getattr(conditions, name) for name in ("mode", "precision", "device")}
        return build_step(model, shape, channels_last=channels_last, **how)

    own = cast(PVT, build_network_on(conditions.device, cell))
    if conditions.reference == "v1":
        others = [replace(cell, arm="v1")] if cell.arm != "v1" else []
        models = {each.arm: (build_network_on(conditions.device, each), conditions.channels_last) for each in others}
    else:
        models = {}
        for library in conditions.reference.split("+"):
            for name, channels_last in ((library, False), (f"{library}, channels-last", True)):
                models[name] = build_equal(own, library, channels_last), channels_last
                check_equal(own, models[name][0], shape)
    return step(own, conditions.channels_last), {name: step(*model) for name, model in models.items()}


@cache
def _matmul_peak(device: str, precision: str) -> dict[str, Any]:
    return measure_matmul_peak(device, precision)


@cache
def _bandwidth(device: str) -> dict[str, Any]:
    return measure_bandwidth(device)


def _measure_accuracy(
    cell: AnyCell, conditions: Accuracy, setting: Setting, files: Files | None, tell: Tell
) -> dict[str, Any]:
    return measure_accuracy(
        lambda: build_network(cell),
        conditions,
        setting.data_dir,
        ranks=setting.ranks,
        workers=setting.workers,
        files=files,
        deadline=setting.deadline,
        progress=lambda words: tell(f"{cell.name} {words}"),
    )


def _evaluate(cell: Cell, conditions: Evaluation, setting: Setting, tell: Tell) -> dict[str, Any]:
    model = build_model(cell.config)
    load_weights(model, cast(Path, setting.weights))
    names = ("protocol", "resolution", "batch_size", "device", "precision", "skip_unreadable")
    how: dict[str, Any] = {name: getattr(conditions, name) for name in names}
    scores = evaluate_checkpoint(
        model,
        data_directory(setting.data_dir) / conditions.data,
        **how,
        workers=setting.workers,
        progress=lambda done, total: tell(f"{cell.name} {conditions.resolution} px, {done}/{total} images"),
    )
    return {name: value for name, value in scores.items() if name not in names}


def input_shape(cell: AnyCell, batch_size: int = 1) -> tuple[int, int, int, int]:
    in_chans = cell.config.in_chans if isinstance(cell, Cell) else 3
    return (batch_size, in_chans, *as_pair(cell.conditions.resolution))
