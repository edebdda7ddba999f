"""How the numbers of records are shown: one label and one unit each."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Metric:
    """How a number of a record is shown: `label` for people, its `unit`, and what divides the stored value for it."""

    label: str
    unit: str
    divisor: float = 1.0

    @property
    def title(self) -> str:
        return self.titled(self.label)

    def titled(self, words: str) -> str:
        """Returns a heading of its own words and the unit, where it has one."""
        return f"{words}, {self.unit}" if self.unit else words


METRICS = {
    "params": Metric("Parameters", "M", 1e6),
    "macs": Metric("MACs", "G", 1e9),
    "peak_memory_bytes": Metric("Peak memory", "MiB", 2**20),
    "latency_s": Metric("Latency", "ms", 1e-3),
    "throughput_img_per_s": Metric("Throughput", "img/s"),
    "relative_speed": Metric("Speed, v1 = 1", "x"),
    "top1": Metric("Top-1", "%", 1e-2),
    "top5": Metric("Top-5", "%", 1e-2),
    "ap": Metric("AP", "%", 1e-2),
    "ap50": Metric("AP50", "%", 1e-2),
    "ap75": Metric("AP75", "%", 1e-2),
    "ap_small": Metric("AP, small", "%", 1e-2),
    "ap_medium": Metric("AP, medium", "%", 1e-2),
    "ap_large": Metric("AP, large", "%", 1e-2),
    "mask_ap": Metric("Mask AP", "%", 1e-2),
    "miou": Metric("mIoU", "%", 1e-2),
    "pixel_accuracy": Metric("Pixel accuracy", "%", 1e-2),
    "ece": Metric("Calibration error", "%", 1e-2),
}
"""Every metric that a table or figure shows. Stored values are counts, bytes, seconds and fractions."""

_COUNTS = (("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0))

SMALLER_UNITS = {"params": _COUNTS, "macs": _COUNTS, "peak_memory_bytes": (("MiB", 2.0**20), ("KiB", 2.0**10))}
"""Units of metrics that small models have little of, the largest first, and what divides a stored value for each."""


def in_unit_of(metric: str, size: float) -> Metric:
    """Returns a metric in the largest of its units that a stored value of `size` needs no leading zeros in."""
    units = SMALLER_UNITS.get(metric)
    if units is None:
        return METRICS[metric]
    unit, divisor = next((each for each in units if size >= each[1]), units[-1])
    return replace(METRICS[metric], unit=unit, divisor=divisor)
