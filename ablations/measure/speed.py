"""Measurement `speed`: time of one inference or training step, interleaved with that of other models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ablations.conditions import condition
from ablations.config import PVT_V1
from ablations.cost import count_macs, has_closed_form
from ablations.errors import refuse
from ablations.measure.measurement import (
    COUNT,
    LARGEST,
    MACS_PER_S,
    NAME,
    NUMBER,
    SECONDS,
    Column,
    Setting,
    StepMeasurement,
    number,
    positive,
    table,
)

if TYPE_CHECKING:
    from ablations.cells import Cell
    from ablations.measure.interleaved import Step

Reference = Literal["v1", "timm", "transformers", "timm+transformers"]

SAMPLES = (SECONDS,)

SIGNED = Column("A difference.", kind="number", least=-LARGEST)

OPERATORS = [{"operator": NAME, "kind": NAME, "calls": COUNT, "seconds": NUMBER, "samples": [NUMBER]}]

OWN = "own"
"""What the samples of a cell's own model go by, beside those of its references."""


@dataclass(frozen=True, kw_only=True)
class Speed(StepMeasurement):
    """Time of one inference or training step, timed interleaved with others in one process."""

    name: ClassVar[str] = "speed"
    main_metric: ClassVar[str] = "latency_s"
    needed: ClassVar[tuple[str, ...]] = ("throughput_img_per_s",)
    axes: ClassVar[tuple[str, ...]] = ("arm",)
    takes_baselines: ClassVar[bool] = False
    columns: ClassVar[dict[str, Column]] = {
        "latency_s": positive("Median time of a step.", "s"),
        "throughput_img_per_s": positive("Images a second, from the median.", "img/s"),
        "iqr_over_median": number("Interquartile range of the times over their median."),
        "noisy": Column("Whether that is over a tenth.", kind="boolean"),
        "samples": table("Time of each step.", "s", of=SAMPLES),
        "relative_speed": positive("Arm v1's time over this arm's, timed interleaved: the median ratio."),
        "relative_speed_low": positive("Lower end of its 95 % interval."),
        "relative_speed_high": positive("Upper end of its 95 % interval."),
        "reference_samples": table("Time of each step of arm v1.", "s", of=SAMPLES),
        "references": table(
            "The same of each library's model, by its name; relative_speed is its time over ours.",
            of={
                "*": {
                    **{"latency_s": SECONDS, "noisy": Column("As of ours.", kind="boolean"), "samples": SAMPLES},
                    **{f"relative_speed{end}": positive("A ratio.") for end in ("", "_low", "_high")},
                    **{"operators?": OPERATORS, "step_overhead_s?": SIGNED, "step_overhead_samples?": [SIGNED]},
                }
            },
        ),
        "macs_per_s": positive("MACs a second; a training step counts as three forward passes.", "MACs/s"),
        "peak_macs_per_s": positive("What large matrix products reach on the same machine.", "MACs/s"),
        "peak_samples": table("Time of each of those products.", "s", of={"*": SAMPLES}),
        "peak_bytes_per_s": positive("What a copy of tensors too large for caches reads and writes a second.", "B/s"),
        "bandwidth_samples": table(
            "Time of each of those copies and of smaller ones, by the bytes of one.", "s", of={"*": SAMPLES}
        ),
        "attention_kernels": Column("The kernels that fused attention is held to."),
        "operators": table(
            "A row an operator of a profiled step: kind, name, calls, own time and samples.", "s", of=OPERATORS
        ),
        "step_overhead_s": replace(
            SIGNED,
            meaning="What that step took beside all operators: Python, autograd, dispatch, launches, the profiler.",
            unit="s",
        ),
        "step_overhead_samples": table("The same of each profiled step.", "s", of=[SIGNED]),
        "roofline": table(
            "A row a kind of operator: calls, MACs, bytes, and their time at the machine's rates.",
            "s",
            of=[{"kind": NAME, "calls": COUNT, "macs": COUNT, "bytes": COUNT, "bound_s": NUMBER}],
        ),
        "uncounted": table(
            "Operators of which nobody knows whether they multiply; they count with their bytes.", of=[NAME]
        ),
    }

    batch_size: int = condition(8, least=1)
    """Images of a step."""
    repeats: int = condition(10, least=6, unit="steps")
    """Timed steps of each of the models, after the warm-up; fewer than six have no 95 % interval."""
    reference: Reference = condition("v1")
    """What is timed beside it: arm v1 in the same base, or libraries' models with the same weights, in two layouts."""
    channels_last: bool = condition(True)
    """Whether images and the weights of convolutions lie in memory channels-last, or channels-first."""
    compiled: bool = condition(False)
    """Whether all of them are compiled by `torch.compile`, for this cell alone and with static shapes."""

    def check(self) -> None:
        super().check()
        if self.head != "classifier" and self.libraries:
            raise refuse("head", self.head, f"classifier beside {self.reference}, which has no other")

    @classmethod
    def needed_with(cls, conditions: Mapping[str, Any]) -> tuple[str, ...]:
        beside_v1 = conditions.get("reference", "v1") == "v1"
        return (*cls.needed, "reference_samples" if beside_v1 else "references")

    @classmethod
    def check_result(cls, result: dict[str, Any]) -> None:
        times = [result.get("samples"), result.get("reference_samples")]
        times += [each["samples"] for each in (result.get("references") or {}).values()]
        if len({len(each) for each in times if each is not None}) > 1:
            raise ValueError("its result has not as many samples of each model, which were timed interleaved")

    @property
    def libraries(self) -> tuple[str, ...]:
        """The libraries whose models are timed beside it."""
        return () if self.reference == "v1" else tuple(self.reference.split("+"))

    def typical_seconds(self, macs: int) -> float:
        models = 1 + max(2 * len(self.libraries), 1)
        step = 0.008 + self.batch_size * macs / MACS_PER_S
        passes = 1 if self.mode == "inference" else 3
        return 0.2 + (self.repeats + 4) * models * passes * step

    @classmethod
    def check_needs(cls, cells: Sequence[Cell], setting: Setting) -> None:
        from ablations.baselines.equal import check_has_baseline

        for cell in cells:
            for library in cell.conditions.libraries:
                check_has_baseline(cell.arm_config, library, cell.conditions.resolution)

    def run(self, cell: Cell, setting: Setting) -> dict[str, Any]:
        """Times a cell's step interleaved with its references', arm v1's or those of libraries.

        Beside libraries its operators are timed after that, and those of libraries in their default layout. A compiled
        model has none: its kernels are the compiler's, several operators in one.
        """
        from ablations.measure.interleaved import time_interleaved
        from ablations.measure.network import meta_network
        from ablations.measure.peaks import measure_matmul_peak
        from ablations.measure.samples import paired_ratio, summarise_times
        from ablations.measure.step import fused_kernels

        macs = _count_macs(cell) * self.batch_size
        own, compared = self._steps(cell)
        samples = time_interleaved({OWN: own} | compared, repeats=self.repeats, device=self.device)
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
        work = macs * (3 if self.mode == "training" else 1)
        peak = measure_matmul_peak(self.device, self.precision)
        result = {
            "latency_s": summary["median"],
            "throughput_img_per_s": self.batch_size / summary["median"],
            "iqr_over_median": summary["iqr_over_median"],
            "noisy": summary["noisy"],
            "macs_per_s": work / summary["median"],
            "peak_macs_per_s": peak["macs_per_s"],
            "samples": samples[OWN],
            "peak_samples": peak["samples"],
        }
        if kernels := fused_kernels(meta_network(cell), self.device):
            result["attention_kernels"] = "+".join(kernels)
        if self.libraries:
            if not self.compiled:
                result |= self._operators(own, compared, references, peak["macs_per_s"])
            return result | {"references": references}
        (v1,) = references.values()
        ratios = {name: v1[name] for name in ("relative_speed", "relative_speed_low", "relative_speed_high")}
        return result | ratios | {"reference_samples": v1["samples"]}

    def _steps(self, cell: Cell) -> tuple[Step, dict[str, Step]]:
        """Returns the step of a cell's model, and those that it is compared with by name."""
        from ablations.baselines.equal import build_equal, check_equal
        from ablations.measure.network import build_network_on, input_shape
        from ablations.measure.step import build_step
        from ablations.model.compiled import compile_alone

        shape = input_shape(cell, self.batch_size)

        def step(model: Any, channels_last: bool) -> Step:
            if self.compiled:
                compile_alone(model)
            return build_step(model, shape, channels_last=channels_last, **self.step)

        own = build_network_on(self.device, cell)
        models = {}
        if not self.libraries and cell.arm != PVT_V1:
            models[PVT_V1] = build_network_on(self.device, cell.of(arm=PVT_V1)), self.channels_last
        for library in self.libraries:
            for name, channels_last in ((library, False), (f"{library}, channels-last", True)):
                models[name] = build_equal(own, library, channels_last), channels_last
                check_equal(own, models[name][0], shape)
        return step(own, self.channels_last), {name: step(*model) for name, model in models.items()}

    def _operators(
        self, own: Step, compared: dict[str, Step], references: dict[str, dict[str, Any]], macs_per_s: float
    ) -> dict[str, Any]:
        """Returns where the time of our step goes, and adds to `references` where that of libraries' goes."""
        from ablations.measure.operators import count_roofline, measure_operators
        from ablations.measure.peaks import measure_bandwidth

        default_layout = {library: compared[library] for library in self.libraries}
        operators = measure_operators({OWN: own} | default_layout, self.device)
        ours = operators.pop(OWN)
        for name, each in operators.items():
            references[name] |= each
        bandwidth = measure_bandwidth(self.device)
        return {
            **ours,
            **count_roofline(own, macs_per_s=macs_per_s, bytes_per_s=bandwidth["rates"]),
            "peak_bytes_per_s": bandwidth["bytes_per_s"],
            "bandwidth_samples": bandwidth["samples"],
        }


def _count_macs(cell: Cell) -> int:
    """Returns the MACs of one image, traced where there is no closed form."""
    if has_closed_form(cell.arm_config) and cell.conditions.head == "classifier":
        return count_macs(cell.arm_config, cell.conditions.resolution)
    from ablations.measure.macs import trace_macs
    from ablations.measure.network import input_shape, meta_network

    return trace_macs(meta_network(cell), input_shape(cell)).total
