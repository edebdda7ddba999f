"""How far a run is, and how much time is left: a bar on a terminal, a line a cell elsewhere."""

import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Literal, TextIO

from tqdm import tqdm

from ablations.cells import Cell
from ablations.runner.forecast import Forecast

State = Literal["measured", "failed", "kept", "left"]

BAR = "{desc} {percentage:3.0f}%|{bar}| [{elapsed}{postfix}]"

REFRESH_S = 0.5
"""How often the bar is drawn and the forecast made, at most."""


class Progress:
    """The progress of a run, which tells it what begins, how far that is, and what is finished.

    On a terminal it is a bar, which moves within cells too. Elsewhere, as in a log, each finished
    cell is a plain line. `phases` are cells in the order of their measuring, with the number of
    processes that share them.
    """

    def __init__(
        self,
        phases: Sequence[tuple[Sequence[Cell], int]],
        forecast: Forecast,
        *,
        is_shown: bool = True,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._forecast, self._is_shown, self._clock = forecast, is_shown, clock
        self._stream = stream or sys.stderr
        self._unfinished = [(dict.fromkeys(cells), processes) for cells, processes in phases]
        self._total = sum(len(cells) for cells, _ in phases)
        self._finished = 0
        self._begun: dict[Cell, float] = {}
        self._before: dict[Cell, float] = {}  # the share that an earlier run has done
        self._shares: dict[Cell, float] = {}
        self._words = ""
        self._left_s, self._looked_at = 0.0, -float("inf")
        self._bar = tqdm(
            total=self._total,
            file=self._stream,
            dynamic_ncols=True,
            bar_format=BAR,
            disable=not (is_shown and self._stream.isatty()),
        )

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._draw()
        self._bar.close()

    def tell(self, cell: Cell, share: float, words: str = "") -> None:
        """Takes that a share of a cell is done, and what is to be said of it.

        A cell begins with share 0. What it tells next may be what an earlier run has done.
        """
        if cell not in self._begun:
            self._begun[cell] = self._clock()
        elif share:
            self._before.setdefault(cell, share)
        self._shares[cell], self._words = share, words
        if self._is_due():
            self._draw()

    def finish(self, cell: Cell, state: State, seconds: float) -> None:
        """Takes that a cell is finished, and how long it took."""
        for notes in (self._begun, self._before, self._shares):
            notes.pop(cell, None)
        self._words = ""
        for cells, _ in self._unfinished:
            cells.pop(cell, None)
        self._finished += 1
        if state == "measured":
            self._forecast.learn(cell, seconds)
        if self._is_due(at_once=seconds > REFRESH_S):
            self._draw()
        if self._is_shown and self._bar.disable:
            came = {
                "measured": f"{seconds:.1f} s",
                "failed": f"failed after {seconds:.1f} s",
                "kept": "was there",
                "left": "left for a next run",
            }
            place = f"{self._finished}/{self._total}"
            left = _in_words(self._left_s)
            print(f"{place} {cell.label}: {came[state]}, {left}", file=self._stream, flush=True)

    def left_s(self) -> float:
        """Returns how many seconds all that is unfinished will take."""
        now = self._clock()
        running = {
            cell: (now - began, self._shares[cell] - self._before.get(cell, 0.0), 1 - self._shares[cell])
            for cell, began in self._begun.items()
        }
        return self._forecast.left(self._unfinished, running)

    def _is_due(self, at_once: bool = False) -> bool:
        """Whether it is time for another forecast; makes it then."""
        now = self._clock()
        is_due = at_once or now - self._looked_at >= REFRESH_S or self._finished == self._total
        if not (self._is_shown and is_due):
            return False
        self._looked_at, self._left_s = now, self.left_s()
        return True

    def _draw(self) -> None:
        if self._bar.disable:
            return
        names = ", ".join(
            f"{cell.name} {share:.0%}" if share else cell.name for cell, share in self._shares.items() if share < 1
        )
        kinds = dict.fromkeys(cell.measurement for cell in self._shares)
        self._bar.n = min(self._finished + sum(self._shares.values()), self._total)
        place = f"{self._finished}/{self._total}"
        self._bar.set_description_str(" ".join([*kinds, place]), refresh=False)
        said = f"{_in_words(self._left_s)}: {self._words or names}"
        self._bar.set_postfix_str(said.removesuffix(": "), refresh=False)
        self._bar.refresh()


def _in_words(seconds: float) -> str:
    return f"{timedelta(seconds=round(seconds))} left"
