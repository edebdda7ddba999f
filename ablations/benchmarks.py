"""Benchmarks against other people's code, printed: the count beside fvcore's, an epoch beside timm's."""

from dataclasses import replace
from statistics import median
from typing import Any

from ablations.cells import arm_cell
from ablations.config import PVT_V2, as_pair, build_config
from ablations.cost import count_macs
from ablations.data.registry import count_classes, data_directory
from ablations.errors import refuse
from ablations.measure import Accuracy
from ablations.recipes import recipe_values
from ablations.studies import parse_size


def benchmark_count(command: Any) -> int:
    """Prints how long our count of MACs and fvcore's take, interleaved, and what they count; returns the exit code.

    Raises InputError for an impossible resolution, and for too few repeats for an interval.
    """
    config = build_config(command.model.variant, command.model.arm, command.model.base)
    size = as_pair(config.check_size("resolution", parse_size(command.resolution)))

    from ablations.measure.fvcore_count import count_with_fvcore
    from ablations.measure.interleaved import Step, time_interleaved
    from ablations.measure.macs import trace_macs
    from ablations.measure.samples import NEEDED_PAIRS, paired_ratio, summarise_times
    from ablations.model import build_model

    if command.repeats < NEEDED_PAIRS:
        raise refuse("repeats", command.repeats, f"{NEEDED_PAIRS} or more")
    model = build_model(config).eval()
    shape = (1, config.in_chans, *size)
    counts: dict[str, Step] = {
        "trace on meta": lambda: trace_macs(model, shape),
        "fvcore, real": lambda: count_with_fvcore(model, shape, device="cpu"),
    }
    samples = time_interleaved(counts, repeats=command.repeats, device="cpu")
    print(f"{command.model.name} at {command.resolution} px, {command.repeats} repeats of each interleaved")
    for name, times in samples.items():
        summary = summarise_times(times)
        print(f"{name:14} median {summary['median']:.3f} s, IQR {100 * summary['iqr_over_median']:.0f} % of it")
    third = count_with_fvcore(model, shape, device="cpu")
    closed, traced, products = count_macs(config, size), trace_macs(model, shape).total, sum(third.products.values())
    print(f"MACs: closed form {closed:,}, trace {traced:,}, fvcore {products:,}")
    print(f"fvcore counts beside them: {', '.join(f'{name} {count:,}' for name, count in third.others.items())}")
    ratio, low, high = paired_ratio(samples["fvcore, real"], samples["trace on meta"])
    print(f"fvcore takes {ratio:.2f} times as long as the trace (95 % interval {low:.2f} to {high:.2f})")
    return 0


def benchmark_epoch_of(command: Any) -> int:
    """Prints how long steps of our training and of timm's take, interleaved; returns the exit code.

    Raises InputError for flags out of range, and for data or a device that is not there.
    """
    if command.steps is not None and command.steps != 0 and command.steps < 2:
        raise refuse("steps", command.steps, "2 or more, or 0 for an epoch")
    if command.workers is not None and command.workers < 0:
        raise refuse("workers", command.workers, "0 or more")
    conditions = _conditions_of(command)

    from ablations.baselines.equal import build_equal, check_equal
    from ablations.measure.allocator import keep_freed_memory
    from ablations.measure.environment import available_cores, check_device, describe_environment, use_full_float32
    from ablations.measure.samples import NEEDED_PAIRS
    from ablations.model import build_model
    from ablations.training.epoch_benchmark import COMPARED, Rounds, benchmark_epoch, check_alike

    check_device(command.device)
    check_alike(conditions)
    cell = arm_cell(command.variant, PVT_V2, "published", conditions)
    keep_freed_memory()
    use_full_float32()
    model = build_model(cell.arm_config, seed=conditions.seed).to(command.device)
    baseline = build_equal(model, "timm")
    check_equal(model, baseline, (2, 3, command.resolution, command.resolution))
    workers = available_cores() if command.workers is None else command.workers
    times = benchmark_epoch(
        model,
        baseline,
        conditions,
        command.data_dir,
        steps=command.steps,
        workers=workers,
        channels_last=command.channels_last,
    )

    def row(name: str, rounds: Rounds) -> str:
        rates = "  ".join(f"{rounds.images / median(side):7.1f} img/s" for side in (rounds.ours, rounds.timms))
        ratio, low, high = rounds.relative_speed
        interval = "95 % interval" if len(rounds.ours) >= NEEDED_PAIRS else "range"
        return f"{name:14}  {rates}  {ratio:6.2f} ({interval} {low:.2f} to {high:.2f}, n = {len(rounds.ours)})"

    machine = describe_environment(command.device)
    layout = "channels-last" if command.channels_last else "channels-first"
    print(
        f"{cell.name} on {conditions.data} at {conditions.resolution} px, batches of {conditions.batch_size}, "
        f"{conditions.precision}{', compiled' if conditions.compiled else ''}, on {machine['device_name']} "
        f"({command.device}, {machine['threads']} threads, torch {machine['torch']}, timm {machine['timm']})"
    )
    print(
        f"{len(times.whole.ours)} rounds of {times.whole.images // conditions.batch_size} interleaved steps of each, "
        f"of {times.steps_per_epoch} in an epoch; timm's {layout}, its loader with {workers} workers"
    )
    print(f"losses of {COMPARED} steps on one batch differ by {times.loss_difference:.1e} of them at most")
    print(f"{'':14}  {'ours':>13}  {'timm':>13}  ours over timm")
    print(row("epoch", times.whole))
    print(row("step alone", times.step))
    print(row("images alone", times.images))
    print(f"waiting for images: ours {times.ours_waiting:.1%} of the time, timm {times.timms_waiting:.1%}")
    return 0


def _conditions_of(command: Any) -> Accuracy:
    directory = data_directory(command.data_dir)
    data = command.data or ("imagenette224" if (directory / "imagenette224").is_dir() else "digits")
    names = ("resolution", "batch_size", "precision", "device", "compiled")
    values: dict[str, Any] = recipe_values("small")
    return replace(
        Accuracy(**values),
        data=data,
        num_classes=count_classes(data, command.data_dir),
        **{name: getattr(command, name) for name in names},
    )
