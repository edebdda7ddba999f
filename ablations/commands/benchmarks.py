"""The benchmarks against other people's code, printed: the count beside fvcore's, an epoch beside timm's."""

from dataclasses import dataclass, fields
from statistics import median
from typing import Any

from ablations.cells import Arm, arm_cell
from ablations.commands.arms import DEFAULT_BASE, Arms, split_arms
from ablations.commands.shared_flags import Command, DataFolder, with_flags_of
from ablations.config import PVT_V2, as_pair, build_config
from ablations.cost import count_macs
from ablations.data.registry import count_classes, data_directory
from ablations.errors import refuse
from ablations.measure import Accuracy
from ablations.recipes import recipe_values
from ablations.studies import parse_size


@dataclass(frozen=True, kw_only=True)
class BenchmarkCount(Command):
    """Time the count of MACs: our trace beside fvcore's on real tensors, interleaved in one process."""

    variant: str | None = None
    """Size, b2 by default; see `list`."""
    arm: str = PVT_V2
    """Toggles that are on, or a published model such as PVTv2-B2; see `list`."""
    resolution: str = "1024"
    """Pixels, such as 224 or 800x1280."""
    repeats: int = 6
    """Counts of each."""

    @property
    def model(self) -> Arm:
        named, _ = split_arms((self.arm,), tuple(filter(None, [self.variant])), ())
        if named:
            ((variant, arm),) = named.values()
            return Arm(variant=variant, arm=arm, base="published")
        return Arm(variant=self.variant or Arms.DEFAULT_VARIANT, arm=self.arm, base=DEFAULT_BASE)

    def run(self, *_: Any) -> int:
        """Prints how long our count of MACs and fvcore's take, interleaved, and what they count.

        Raises InputError for an impossible resolution, and for too few repeats for an interval.
        """
        config = build_config(self.model.variant, self.model.arm, self.model.base)
        size = as_pair(config.check_size("resolution", parse_size(self.resolution)))

        from ablations.measure.fvcore_count import count_with_fvcore
        from ablations.measure.interleaved import Step, time_interleaved
        from ablations.measure.macs import trace_macs
        from ablations.measure.samples import NEEDED_PAIRS, paired_ratio, summarise_times
        from ablations.model import build_model

        if self.repeats < NEEDED_PAIRS:
            raise refuse("repeats", self.repeats, f"{NEEDED_PAIRS} or more")
        model = build_model(config).eval()
        shape = (1, config.in_chans, *size)
        counts: dict[str, Step] = {
            "trace on meta": lambda: trace_macs(model, shape),
            "fvcore, real": lambda: count_with_fvcore(model, shape, device="cpu"),
        }
        samples = time_interleaved(counts, repeats=self.repeats, device="cpu")
        print(f"{self.model.name} at {self.resolution} px, {self.repeats} repeats of each interleaved")
        for name, times in samples.items():
            summary = summarise_times(times)
            print(f"{name:14} median {summary['median']:.3f} s, IQR {100 * summary['iqr_over_median']:.0f} % of it")
        third = count_with_fvcore(model, shape, device="cpu")
        closed, traced = count_macs(config, size), trace_macs(model, shape).total
        print(f"MACs: closed form {closed:,}, trace {traced:,}, fvcore {sum(third.products.values()):,}")
        print(f"fvcore counts beside them: {', '.join(f'{name} {count:,}' for name, count in third.others.items())}")
        ratio, low, high = paired_ratio(samples["fvcore, real"], samples["trace on meta"])
        print(f"fvcore takes {ratio:.2f} times as long as the trace (95 % interval {low:.2f} to {high:.2f})")
        return 0


@with_flags_of(Accuracy, leave_out={each.name for each in fields(Accuracy)} - {"precision", "device", "compiled"})
@dataclass(frozen=True, kw_only=True)
class BenchmarkEpoch(DataFolder, Command):
    """Time an epoch of training beside timm's step and loader doing the same work, interleaved in one process."""

    variant: str = "b0"
    """Of PVT v2 as published, which timm has too."""
    data: str | None = None
    """`digits`, ... or an image folder; imagenette224 by default if the data directory has it, else digits."""
    resolution: int = 224
    """Side in pixels; more than 64."""
    batch_size: int = 64
    """Images of a step."""
    steps: int | None = None
    """Timed steps of each side; by default as many as take about 20 s, 0 is an epoch."""
    workers: int | None = None
    """Processes of timm's loader; one a core by default."""
    channels_last: bool = False
    """Lay timm's images and weights out channels-last, as ours are; by default as in timm's train.py."""

    FIRST = ("variant", "data", "data_dir", "resolution", "batch_size", "steps", "workers", "device")

    @property
    def conditions(self: Any) -> Accuracy:
        directory = data_directory(self.data_dir)
        data = self.data or ("imagenette224" if (directory / "imagenette224").is_dir() else "digits")
        names = ("resolution", "batch_size", "precision", "device", "compiled")
        given: dict[str, Any] = {name: getattr(self, name) for name in names} | {"data": data}
        return Accuracy(**(recipe_values("small") | given), num_classes=count_classes(data, self.data_dir))

    def run(self: Any, *_: Any) -> int:
        """Prints how long steps of our training and of timm's take, interleaved.

        Raises InputError for flags out of range, and for data or a device that is not there.
        """
        if self.steps is not None and self.steps != 0 and self.steps < 2:
            raise refuse("steps", self.steps, "2 or more, or 0 for an epoch")
        if self.workers is not None and self.workers < 0:
            raise refuse("workers", self.workers, "0 or more")
        conditions = self.conditions

        from ablations.baselines.equal import build_equal, check_equal
        from ablations.measure.allocator import keep_freed_memory
        from ablations.measure.environment import available_cores, check_device, describe_environment, use_full_float32
        from ablations.measure.samples import NEEDED_PAIRS
        from ablations.model import build_model
        from ablations.training.epoch_benchmark import COMPARED, Rounds, benchmark_epoch, check_alike

        check_device(self.device)
        check_alike(conditions)
        cell = arm_cell(self.variant, PVT_V2, "published", conditions)
        keep_freed_memory()
        use_full_float32()
        model = build_model(cell.arm_config, seed=conditions.seed).to(self.device)
        baseline = build_equal(model, "timm")
        check_equal(model, baseline, (2, 3, self.resolution, self.resolution))
        workers = available_cores() if self.workers is None else self.workers
        times = benchmark_epoch(
            model,
            baseline,
            conditions,
            self.data_dir,
            steps=self.steps,
            workers=workers,
            channels_last=self.channels_last,
        )

        def row(name: str, rounds: Rounds) -> str:
            rates = "  ".join(f"{rounds.images / median(side):7.1f} img/s" for side in (rounds.ours, rounds.timms))
            ratio, low, high = rounds.relative_speed
            interval = "95 % interval" if len(rounds.ours) >= NEEDED_PAIRS else "range"
            return f"{name:14}  {rates}  {ratio:6.2f} ({interval} {low:.2f} to {high:.2f}, n = {len(rounds.ours)})"

        machine = describe_environment(self.device)
        layout = "channels-last" if self.channels_last else "channels-first"
        print(
            f"{cell.name} on {conditions.data} at {conditions.resolution} px, batches of {conditions.batch_size}, "
            f"{conditions.precision}{', compiled' if conditions.compiled else ''}, on {machine['device_name']} "
            f"({self.device}, {machine['threads']} threads, torch {machine['torch']}, timm {machine['timm']})"
        )
        print(
            f"{len(times.whole.ours)} rounds of {times.whole.images // conditions.batch_size} interleaved steps of "
            f"each, of {times.steps_per_epoch} in an epoch; timm's {layout}, its loader with {workers} workers"
        )
        print(f"losses of {COMPARED} steps on one batch differ by {times.loss_difference:.1e} of them at most")
        print(f"{'':14}  {'ours':>13}  {'timm':>13}  ours over timm")
        print(row("epoch", times.whole))
        print(row("step alone", times.step))
        print(row("images alone", times.images))
        print(f"waiting for images: ours {times.ours_waiting:.1%} of the time, timm {times.timms_waiting:.1%}")
        return 0
