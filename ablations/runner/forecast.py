"""How long cells take: what is typical of their work, scaled by what cells like them took. All times in seconds."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

from ablations.cells import Cell, without_defaults
from ablations.config import PVTConfig
from ablations.cost import count_macs, has_closed_form
from ablations.measure import MEASUREMENTS
from ablations.records.folder import read_records

UNKNOWN_MACS = 10**9
"""Of an image, where there is no closed form."""


@dataclass
class Pace:
    """How long some cells took, and how long cells of as much work typically take."""

    taken: float = 0.0
    typical: float = 0.0

    def add(self, taken: float, typical: float) -> None:
        self.taken += taken
        self.typical += typical


class Forecast:
    """How long cells take.

    A cell is expected to take what is typical of its work, times the pace of the cells of its
    workload in this run. If this run has met none, it is the mean of the workload's records; if
    there are none, the pace of the same measurement decides, and then that of all cells that are
    measured or trained: what a count takes says nothing of them.
    """

    def __init__(self, results: Path) -> None:
        self._times: dict[str, list[float]] = defaultdict(list)
        self._finished: dict[str, Pace] = defaultdict(Pace)
        for record in read_records(results).records:
            if record["status"] == "done":
                # A training that was resumed took longer than its last sitting.
                seconds = max(record["duration_s"], record["result"].get("train_s", 0.0))
                self._times[_workload(record)].append(seconds)

    def learn(self, cell: Cell, seconds: float) -> None:
        """Takes into account how long a cell of this run took."""
        for level in _levels(cell):
            self._finished[level].add(seconds, _typical(cell))
        self._times[_levels(cell)[0]].append(seconds)

    def longest_of_like(self, cell: Cell) -> float:
        """Returns the longest time of a cell of the same workload; 0 where there was none."""
        return max(self._times.get(_levels(cell)[0], ()), default=0.0)

    def left(
        self, phases: Iterable[tuple[Collection[Cell], int]], running: Mapping[Cell, tuple[float, float, float]]
    ) -> float:
        """Returns how long phases will still take, each of cells in so many processes.

        `running` has of each cell under way how long it took, which share of it was done in that
        time, and which share is still to be done.
        """
        under_way: dict[str, Pace] = defaultdict(Pace)
        for cell, (taken, done, _) in running.items():
            for level in _levels(cell) if done else ():
                under_way[level].add(taken, done * _typical(cell))
        seconds = 0.0
        for cells, processes in phases:
            each = [self._remaining(cell, running.get(cell), under_way) for cell in cells]
            seconds += max(sum(each) / processes, max(each, default=0.0))
        return seconds

    def _remaining(
        self, cell: Cell, progress: tuple[float, float, float] | None, under_way: Mapping[str, Pace]
    ) -> float:
        whole = self._expect(cell, under_way)
        if progress is None:
            return whole
        taken, done, to_do = progress
        # A cell that does not tell how far it is goes on as expected.
        return whole * to_do if done else max(whole * to_do - taken, 0.0)

    def _expect(self, cell: Cell, under_way: Mapping[str, Pace]) -> float:
        """Returns how long the whole cell takes."""
        workload, *wider = _levels(cell)
        factor = self._factor(workload, under_way)
        if not factor and workload in self._times:  # of records, as this run has met none
            return mean(self._times[workload])
        factors = (factor, *(self._factor(level, under_way) for level in wider), 1.0)
        return _typical(cell) * next(filter(None, factors))

    def _factor(self, level: str, under_way: Mapping[str, Pace]) -> float:
        """Returns how much slower than typical cells are; 0 where none was met.

        Those that are finished tell it best.
        """
        for paces in (self._finished, under_way):
            if level in paces and paces[level].typical > 0:
                return paces[level].taken / paces[level].typical
        return 0.0


@cache
def _typical(cell: Cell) -> float:
    counted = cell.config is not None and has_closed_form(cell.config)
    macs = count_macs(cell.arm_config, cell.conditions.resolution) if counted else UNKNOWN_MACS
    return cell.conditions.typical_seconds(macs)


@cache
def _levels(cell: Cell) -> tuple[str, ...]:
    """Returns what a cell has in common with those that go at its pace, the closest first."""
    closest = (_workload(cell.describe()), cell.measurement)
    return closest if cell.conditions.is_computed else (*closest, "")


def _workload(description: dict[str, Any]) -> str:
    """Returns what cells share that take about the same time: all but arm, base and seed."""
    conditions = without_defaults(description["conditions"], MEASUREMENTS[description["measurement"]])
    conditions.pop("seed", None)
    model = description.get("model") or [
        description["variant"],
        description["config"].get("attention", PVTConfig.attention),
    ]
    return json.dumps([description["measurement"], model, conditions])
