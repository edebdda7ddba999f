"""The commands: each is a dataclass whose fields are its flags and whose `run` does what it is for."""

from typing import Any

from ablations.commands.benchmarks import BenchmarkCount, BenchmarkEpoch
from ablations.commands.compare import Compare
from ablations.commands.cost_memory_speed import ClosedForm, MeasureCost, MeasureCounters, MeasureMemory, MeasureSpeed
from ablations.commands.evaluate import Evaluate
from ablations.commands.list import List
from ablations.commands.new_toggle import NewToggleFile
from ablations.commands.power import Power
from ablations.commands.records import Records
from ablations.commands.report import BuildReport
from ablations.commands.run import Run
from ablations.commands.status import Cancel, Plan, Status
from ablations.commands.train import MeasureAccuracy, MeasureDetection, MeasureSegmentation

COMMANDS: dict[str, Any] = {
    "run": Run,
    "cost": MeasureCost,
    "counters": MeasureCounters,
    "memory": MeasureMemory,
    "speed": MeasureSpeed,
    "accuracy": MeasureAccuracy,
    "detect": MeasureDetection,
    "segment": MeasureSegmentation,
    "evaluate": Evaluate,
    "compare": Compare,
    "report": BuildReport,
    "records": Records,
    "power": Power,
    "plan": Plan,
    "status": Status,
    "cancel": Cancel,
    "list": List,
    "new-toggle": NewToggleFile,
    "closed-form": ClosedForm,
    "benchmark-count": BenchmarkCount,
    "benchmark-epoch": BenchmarkEpoch,
}
"""Every command by its name, the commonest first."""
