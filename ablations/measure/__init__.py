"""The measurements by name. Adding one is a file with its class, and an entry here. Importing this imports no torch."""

from ablations.measure.accuracy import Accuracy
from ablations.measure.cost import Cost
from ablations.measure.counters import Counters
from ablations.measure.detection import Detection
from ablations.measure.evaluation import Evaluation
from ablations.measure.measurement import Measurement
from ablations.measure.memory import Memory
from ablations.measure.segmentation import Segmentation
from ablations.measure.speed import Speed

MEASUREMENTS: dict[str, type[Measurement]] = {
    kind.name: kind for kind in (Cost, Memory, Speed, Accuracy, Evaluation, Detection, Segmentation, Counters)
}

__all__ = [
    "MEASUREMENTS",
    "Accuracy",
    "Cost",
    "Counters",
    "Detection",
    "Evaluation",
    "Measurement",
    "Memory",
    "Segmentation",
    "Speed",
]
