"""The commands `plan`, `status` and `cancel`: what a study still needs, how far it is, and an end to its workers."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablations.cells import Cell
from ablations.commands.run import Run
from ablations.commands.shared_flags import Command, check_has_records
from ablations.flags import POSITIONAL
from ablations.launch import cancel_workers, describe_status
from ablations.measure.measurement import Device
from ablations.units import count_cells, format_bytes


@dataclass(frozen=True, kw_only=True)
class StudyCells(Command):
    """Which cells of a study."""

    study: str = field(default="quick", metadata=POSITIONAL)
    """Its name, or the path of a file of your own."""
    devices: tuple[Device, ...] = ()
    """As in `run`."""
    toggles: tuple[str, ...] = ()
    """As in `run`."""

    def cells(self) -> list[Cell]:
        return Run(study=self.study, devices=self.devices, toggles=self.toggles).cells()


@dataclass(frozen=True, kw_only=True)
class Status(StudyCells):
    """Say which cells of a study are queued, running, done and failed, and where they run."""

    results: Path = Path("runs")
    """Results folder."""

    def run(self, *_: Any) -> int:
        print("\n".join(describe_status(self.cells(), self.results)))
        return 0


@dataclass(frozen=True, kw_only=True)
class Plan(StudyCells):
    """Estimate what the trainings of a study will take on a device: hours, memory and disk, by records of its speed."""

    device: str
    """Part of the device's name in the records, such as h100."""
    results: Path = Path("runs")
    """Results folder: it has the records of speed, and of the study what is done."""

    def run(self, *_: Any) -> int:
        """Prints what the trainings of a study will take, and by which records."""
        cells = self.cells()
        check_has_records(self.results)

        from ablations.runner.plan import estimate

        found = estimate(cells, self.results, self.device)
        print(f"{count_cells(found.cells)}, {found.done} done; {found.trainings} trainings to do. Estimates for these:")
        print(f"{found.hours:,.1f} hours of one device, by {found.source}")
        if found.memory_bytes is None:
            print("no prediction of GPU memory, which there is for classifiers alone")
        else:
            print(f"{format_bytes(found.memory_bytes)} of GPU memory a training, predicted for {found.memory_of}")
        print(f"{format_bytes(found.checkpoint_bytes)} of disk for the checkpoint of each training in progress,")
        print(f"and {format_bytes(found.weights_bytes)} for all weights with --save-weights")
        return 0


@dataclass(frozen=True, kw_only=True)
class Cancel(Command):
    """Stop the workers of a results folder; trainings leave checkpoints."""

    results: Path = Path("runs")
    """Results folder."""

    def run(self, *_: Any) -> int:
        print("\n".join(f"stopped {each}" for each in cancel_workers(self.results)) or "no worker runs")
        return 0
