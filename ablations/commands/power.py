"""The command `power`: how many seeds a study needs."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.commands.shared_flags import Command, check_has_records
from ablations.errors import refuse


@dataclass(frozen=True, kw_only=True)
class Power(Command):
    """Say how many seeds a study needs, by the spread over seeds of the accuracies that there are."""

    difference: float
    """In points of accuracy: the smallest true difference that the study is to resolve."""
    power: float = 0.8
    """The probability with which it is to be resolved."""
    results: Path = Path("runs")
    """Folder with records of accuracy, of a study or of a pilot of it."""

    def run(self, *_: Any) -> int:
        """Prints how many seeds resolve a difference, by the spread of the accuracies that there are."""
        for name, value, most in (("difference", self.difference, 100), ("power", self.power, 1)):
            if not 0 < value < most:
                raise refuse(name, value, f"more than 0 and less than {most}")
        check_has_records(self.results)

        from ablations.analysis.effects import power_values
        from ablations.records import load_records
        from ablations.report.effects import render_power

        values = power_values(load_records(self.results, "accuracy"), self.difference / 100, self.power)
        if values.empty:
            raise refuse("results", str(self.results), "records of accuracy with three seeds or more of each arm")
        print(render_power(values, self.difference, self.power, shutil.get_terminal_size().columns))
        return 0
