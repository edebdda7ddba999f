"""What a run shows: its progress on a terminal and in a log, and how long it will still take."""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ablations.cells import Cell, arm_cell, build_cell
from ablations.config import ARMS
from ablations.measure import Accuracy, Cost, Memory, Speed
from ablations.records import load_records
from ablations.runner.forecast import Forecast
from ablations.runner.progress import Progress
from ablations.studies import find_study

RESULTS = Path(__file__).parents[2] / "results"

TRAINING_SECONDS = {
    **{"v1": 3.28, "v1+ope": 3.96, "v1+cffn": 4.24, "v1+lsra": 3.21},
    **{"v1+ope+cffn": 3.65, "v1+ope+lsra": 3.69, "v1+cffn+lsra": 3.26, "v1+ope+cffn+lsra": 3.40},
}
"""How long quick's trainings take on two cores, two at a time: records of the study digits."""

STEP_SECONDS = {
    **{("memory", "inference", 32): 0.45, ("memory", "inference", 128): 0.55},
    **{("memory", "training", 32): 0.75, ("memory", "training", 128): 0.90},
    **{("speed", "inference", 32): 0.40, ("speed", "inference", 128): 0.90},
    **{("speed", "training", 32): 0.80, ("speed", "training", 128): 2.60},
}
"""How long its other cells take, by what they measure."""

TRAINING = arm_cell("pico", "v1", "v2", Accuracy())
SPEED = arm_cell("pico", "v1", "v2", Speed(resolution=32))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@dataclass
class Clock:
    """A clock that moves when it is told to."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def show(phases, results, **options) -> tuple[Progress, Clock]:
    clock = Clock()
    return Progress(phases, Forecast(results), clock=clock, **options), clock


def simulate(
    phases: list[tuple[list[Cell], int]], seconds: dict[Cell, float], results: Path
) -> Iterator[tuple[float, float]]:
    """Yields the time and the forecast of what is left, each second of a run with these durations."""
    progress, clock = show(phases, results, stream=io.StringIO())
    for cells, processes in phases:
        waiting, running = list(cells), {}
        while waiting or running:
            while waiting and len(running) < processes:
                running[waiting.pop(0)] = clock.now
                progress.tell(list(running)[-1], 0.0)
            for cell, began in list(running.items()):
                if clock.now - began >= seconds[cell]:
                    progress.finish(cell, "measured", seconds[cell])
                    del running[cell]
                elif cell.conditions.trains:
                    progress.tell(cell, (clock.now - began) / seconds[cell])
            clock.now = round(clock.now + 0.1, 1)
            if clock.now.is_integer():
                yield clock.now, progress.left_s()


def phases_of(cells: list[Cell], jobs: int) -> list[tuple[list[Cell], int]]:
    """The order of a run on so many cores: counts, trainings, and then the others one by one."""
    exact = [cell for cell in cells if cell.conditions.is_computed]
    trained = [cell for cell in cells if cell.conditions.trains]
    others = [cell for cell in cells if cell not in exact and cell not in trained]
    return [(exact, jobs), (trained, jobs), (others, 1)]


def assert_right_within_a_third(forecasts: list[tuple[float, float]], first: float = 60.0) -> None:
    end = forecasts[-1][0]
    later = [(end - now, left) for now, left in forecasts if now >= first]
    assert len(later) > 30
    wrong = [(actual, left) for actual, left in later if abs(left - actual) > actual / 3 + 2]
    assert wrong == []


def recorded_seconds(cell: Cell) -> float:
    if cell.conditions.trains:
        return TRAINING_SECONDS[cell.arm]
    if cell.conditions.is_computed:
        return 0.07
    return STEP_SECONDS[cell.measurement, cell.conditions.mode, cell.conditions.resolution]


@pytest.mark.parametrize("slower", [1.0, 2.5])
def test_after_a_minute_the_time_left_of_quick_is_right_within_a_third(tmp_path, slower):
    cells = find_study("quick").cells()
    seconds = {cell: slower * recorded_seconds(cell) for cell in cells}
    assert_right_within_a_third(list(simulate(phases_of(cells, 2), seconds, tmp_path)))


@pytest.mark.parametrize("jobs", [1, 2])
def test_after_a_minute_the_time_left_of_recorded_trainings_is_right_within_a_third(tmp_path, jobs):
    records = load_records(RESULTS, "accuracy", study="digits")
    # A model's shortest training: others shared their machine, and one of a model takes over ten times another.
    shortest = records.groupby(["variant", "base", "arm"])["train_s"].min()
    cells = [cell for cell in find_study("digits").cells() if cell.conditions.trains and cell.conditions.seed < 2]
    seconds = {cell: round(shortest[cell.model.variant, cell.model.base, cell.arm], 1) for cell in cells}
    assert len({cell.model for cell in cells}) > len(ARMS)
    forecasts = list(simulate([(cells, jobs)], seconds, tmp_path))
    assert forecasts[-1][0] == pytest.approx(sum(seconds.values()) / jobs, rel=0.1)
    assert_right_within_a_third(forecasts)


def test_long_trainings_are_forecast_from_the_share_that_is_done(tmp_path):
    cells = [arm_cell("nano", arm, "v2", Accuracy(data="photographs", resolution=64, epochs=12)) for arm in ARMS]
    seconds = {cell: 600.0 + 100.0 * ("cffn" in cell.arm) for cell in cells}
    forecasts = list(simulate([(cells, 2)], seconds, tmp_path))
    assert forecasts[-1][0] == pytest.approx((4 * 600 + 4 * 700) / 2, abs=100)
    assert_right_within_a_third(forecasts)


def test_of_other_variants_the_work_decides(tmp_path):
    cells = [
        arm_cell(variant, "v1", "v2", Accuracy(epochs=3, batch_size=32, seed=seed))
        for variant in ("pico", "nano")
        for seed in range(20)
    ]
    seconds = {cell: 10.0 if cell.model.variant == "nano" else 3.5 for cell in cells}
    assert_right_within_a_third(list(simulate([(cells, 1)], seconds, tmp_path)))


def test_records_of_the_same_workload_are_expected_again(tmp_path, write_cell):
    write_cell(tmp_path, TRAINING)  # 4.0 s by its result
    others = [TRAINING.of(arm=arm) for arm in ARMS[1:]]
    assert Forecast(tmp_path).left([(others, 1)], {}) == pytest.approx(4.0 * len(others))
    assert Forecast(tmp_path).left([(others, 7)], {}) == pytest.approx(4.0)
    assert Forecast(tmp_path).longest_of_like(others[0]) == 4.0
    assert Forecast(tmp_path).longest_of_like(SPEED) == 0.0


def test_what_a_training_did_before_it_was_resumed_does_not_count(tmp_path):
    progress, clock = show([([TRAINING], 1)], tmp_path, stream=io.StringIO())
    progress.tell(TRAINING, 0.0)
    clock.now = 1.0
    progress.tell(TRAINING, 0.5)
    clock.now = 100.0
    progress.tell(TRAINING, 0.6)
    assert progress.left_s() == pytest.approx(400.0)


def test_models_without_a_closed_form_have_a_forecast(tmp_path):
    cells = [build_cell("timm:resnet18", kind()) for kind in (Cost, Memory, Accuracy)]
    assert Forecast(tmp_path).left([(cells, 1)], {}) > 0


def test_a_log_has_a_plain_line_for_each_cell(tmp_path):
    log = io.StringIO()
    progress, clock = show([([TRAINING], 2), ([SPEED, SPEED.of(arm="v1+ope")], 1)], tmp_path, stream=log)
    progress.tell(TRAINING, 0.0)
    clock.now = 30.0
    progress.tell(TRAINING, 0.5)
    clock.now = 60.0
    progress.finish(TRAINING, "measured", 60.0)
    progress.finish(SPEED, "failed", 2.0)
    progress.finish(SPEED.of(arm="v1+ope"), "kept", 0.0)
    progress.close()
    left = r", \d:\d\d:\d\d left"
    patterns = [
        rf"1/3 accuracy pico v1 base=v2: 60\.0 s{left}",
        rf"2/3 speed pico v1 base=v2 resolution=32: failed after 2\.0 s{left}",
        r"3/3 speed pico v1\+ope base=v2 resolution=32: was there, 0:00:00 left",
    ]
    lines = log.getvalue().splitlines()
    assert len(lines) == len(patterns)
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line)
    assert "\r" not in log.getvalue()


def test_a_line_of_a_log_knows_what_its_own_cell_took(tmp_path):
    log = io.StringIO()
    cells = [TRAINING.of(arm=arm) for arm in ARMS[:3]]
    progress, clock = show([(cells, 1)], tmp_path, stream=log)
    progress.tell(cells[0], 0.0)
    clock.now = 60.0
    progress.tell(cells[0], 0.0)  # a forecast of the same moment
    progress.finish(cells[0], "measured", 60.0)
    left = re.search(r"(\d+):(\d\d):(\d\d) left", log.getvalue())
    hours, minutes, seconds = map(int, left.groups())
    assert 3600 * hours + 60 * minutes + seconds == pytest.approx(120, rel=0.25)


def test_counts_say_nothing_of_how_long_trainings_take(tmp_path):
    cells = [build_cell("timm:resnet18", Cost()), TRAINING]
    progress, clock = show([(cells[:1], 1), (cells[1:], 1)], tmp_path, stream=io.StringIO())
    before = Forecast(tmp_path).left([(cells[1:], 1)], {})
    progress.tell(cells[0], 0.0)
    clock.now = 500.0
    progress.finish(cells[0], "measured", 500.0)
    assert progress.left_s() == before


def test_a_bar_moves_within_cells_and_names_what_runs(tmp_path):
    terminal = Terminal()
    cells = [TRAINING, TRAINING.of(arm="v1+ope")]
    progress, clock = show([(cells, 2)], tmp_path, stream=terminal)
    for cell in cells:
        progress.tell(cell, 0.0)
    shown = []
    for clock.now in (10.0, 20.0, 30.0):
        progress.tell(cells[0], clock.now / 40)
        progress.tell(cells[1], clock.now / 80)
        clock.now += 1.0
        progress.tell(cells[1], clock.now / 80)
        shown.append(terminal.getvalue().split("\r")[-1])
    percents = [int(re.search(r"(\d+)%\|", bar)[1]) for bar in shown]
    assert percents == sorted(set(percents))
    assert all(bar.startswith("accuracy 0/2 ") for bar in shown)
    assert "pico v1 75%, pico v1+ope 39%" in shown[-1]
    assert re.search(r"0:00:\d\d left: pico", shown[-1])
    progress.finish(cells[0], "measured", 40.0)
    progress.finish(cells[1], "measured", 80.0)
    progress.close()
    assert "2/2 100%" in terminal.getvalue().split("\r")[-1]


def test_what_one_training_says_of_itself_is_shown(tmp_path):
    terminal = Terminal()
    progress, clock = show([([TRAINING], 1)], tmp_path, stream=terminal)
    progress.tell(TRAINING, 0.0)
    clock.now = 5.0
    progress.tell(TRAINING, 0.25, "pico v1 epoch 2/4")
    assert "left: pico v1 epoch 2/4" in terminal.getvalue().split("\r")[-1]


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_other_processes_of_a_training_show_nothing(tmp_path, stream):
    shown = stream()
    progress, _ = show([([TRAINING], 1)], tmp_path, stream=shown, is_shown=False)
    progress.tell(TRAINING, 0.5)
    progress.finish(TRAINING, "measured", 1.0)
    progress.close()
    assert shown.getvalue() == ""


def test_what_failed_says_nothing_of_the_others(tmp_path):
    others = [replace(TRAINING, conditions=Accuracy(seed=seed)) for seed in (1, 2)]
    progress, _ = show([([TRAINING, *others], 1)], tmp_path, stream=io.StringIO())
    before = Forecast(tmp_path).left([(others, 1)], {})
    progress.finish(TRAINING, "failed", 0.01)
    assert progress.left_s() == before
