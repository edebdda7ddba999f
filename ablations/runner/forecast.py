"""How long cells take, by the records of their like."""

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

from ablations.cells import Cell, without_defaults
from ablations.measure import MEASUREMENTS
from ablations.records import iterate_records


class Forecast:
    """How long cells take, by the records of their like; all times in seconds."""

    def __init__(self, results: Path) -> None:
        self._longest: dict[str, float] = {}
        self._seen: dict[str, list[float]] = {}
        for record in iterate_records(results):
            if record["status"] == "done":
                # A training that was resumed took longer than its last sitting.
                self.learn(record, max(record["duration_s"], record["result"].get("train_s", 0.0)))

    def learn(self, description: dict[str, Any], seconds: float) -> None:
        workload = _workload(description)
        self._longest[workload] = max(seconds, self._longest.get(workload, 0.0))
        self._seen.setdefault(description["measurement"], []).append(seconds)

    def of_like(self, cell: Cell) -> float:
        """Returns the longest time of a cell of the same workload; 0 where there was none."""
        return self._longest.get(_workload(cell.describe()), 0.0)

    def left(self, cells: Sequence[Cell]) -> str:
        """Returns in words about how long the cells will take, as far as their measurements were seen before."""
        if not any(cell.measurement in self._seen for cell in cells):
            return "no forecast"
        known = [cell for cell in cells if cell.measurement in self._seen]
        seconds = sum(self.of_like(cell) or median(self._seen[cell.measurement]) for cell in known)
        return f"{'' if len(known) == len(cells) else 'over '}{timedelta(seconds=round(seconds))} left"


def _workload(description: dict[str, Any]) -> str:
    """Returns what cells share that take about the same time: all but arm, base and seed."""
    conditions = without_defaults(description["conditions"], MEASUREMENTS[description["measurement"]])
    conditions.pop("seed", None)
    model = description.get("model") or [description["variant"], description["config"]["attention"]]
    return json.dumps([description["measurement"], model, conditions])
