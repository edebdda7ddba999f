"""Several processes that share a results folder: no cell is done twice, none is lost, and the first record stands."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from ablations.cells import arm_cell
from ablations.config import ARMS
from ablations.errors import InputError
from ablations.files import write_new
from ablations.measure import Cost
from ablations.records import write_record
from ablations.records.folder import find_record, read_records
from ablations.records.record_file import record_path
from ablations.runner import claims, run_cells

CELLS = [arm_cell("pico", arm, "v2", Cost(resolution=side)) for side in (32, 64) for arm in ARMS]

WORKER = """
import json, os, sys, time
from pathlib import Path

folder, clock_ahead_s = Path(sys.argv[1]), float(sys.argv[2])
real_time = time.time
time.time = lambda: real_time() + clock_ahead_s

from ablations.cells import arm_cell
from ablations.config import ARMS
from ablations.measure import Cost
from ablations.runner import claims, run_cells

claims.LEASE_S = 4.5
measure = Cost.run

def run(self, cell, setting):
    with (folder / "begun.txt").open("a") as file:
        file.write(json.dumps([os.getpid(), cell.key]) + "\\n")
    time.sleep(0.4)
    return measure(self, cell, setting)

Cost.run = run
cells = [arm_cell("pico", arm, "v2", Cost(resolution=side)) for side in (32, 64) for arm in ARMS]
summary = run_cells(cells, study="test", results=folder / "runs")
print(json.dumps([summary.measured, summary.kept, summary.left, summary.failed]))
"""


def begun(folder):
    """Returns which process has begun which cell, in order."""
    path = folder / "begun.txt"
    return [tuple(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(what, seconds=120):
    deadline = time.monotonic() + seconds
    while not what() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert what(), "it did not come in time"


@pytest.mark.slow
def test_four_workers_one_killed_and_one_stopped_do_each_cell_once(tmp_path):
    ahead_s = (0, 86_400, -86_400, 3600)
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, tmp_path, str(ahead)], stdout=subprocess.PIPE, text=True)
        for ahead in ahead_s
    ]
    killed, stopped, *others = workers
    try:
        for worker, number in ((killed, signal.SIGKILL), (stopped, signal.SIGSTOP)):
            wait_for(lambda worker=worker: worker.pid in dict(begun(tmp_path)))
            worker.send_signal(number)
        told = [json.loads(worker.communicate(timeout=180)[0]) for worker in others]
        records = {cell.key: record_path(tmp_path / "runs", cell).read_bytes() for cell in CELLS}
        stopped.send_signal(signal.SIGCONT)
        told.append(json.loads(stopped.communicate(timeout=180)[0]))
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    whole = tmp_path / "whole"
    run_cells(CELLS, study="test", results=whole)
    for cell in CELLS:
        one, other = (find_record(folder, cell) for folder in (whole, tmp_path / "runs"))
        for name in ("key", "conditions", "config", "status", "result"):
            assert one[name] == other[name]
    assert read_records(tmp_path / "runs").damaged == {}
    # What the stopped process had, another has done: it discards its own.
    assert records == {cell.key: record_path(tmp_path / "runs", cell).read_bytes() for cell in CELLS}
    interrupted = {[key for pid, key in begun(tmp_path) if pid == worker.pid][-1] for worker in (killed, stopped)}
    for cell in CELLS:
        times = sum(key == cell.key for _, key in begun(tmp_path))
        assert times == (2 if cell.key in interrupted else 1)
    assert all((left, failed) == (0, []) for _, _, left, failed in told)
    done_by_killed = sum(pid == killed.pid for pid, _ in begun(tmp_path)) - 1
    assert sum(measured for measured, *_ in told) + done_by_killed == len(CELLS)
    assert [path.name for path in (tmp_path / "runs" / "claims").iterdir()] == []


def write(results, cell, params, **options):
    outcome = {"study": "test", "environment": {}, "started": "2026-01-01T00:00:00+00:00", "duration_s": 1.0}
    result = None if options.get("failure") else {"params": params, "macs": 1}
    return write_record(results, cell, **outcome, result=result, **({"failure": None} | options))


def test_the_first_finished_record_stands_and_a_failed_or_damaged_one_makes_way(tmp_path):
    cell = CELLS[0]
    assert write(tmp_path, cell, 1, failure="RuntimeError: no", is_first=True)
    assert write(tmp_path, cell, 2, is_first=True)
    assert write(tmp_path, cell, 3, is_first=True) is None
    assert write(tmp_path, cell, 3, failure="RuntimeError: no", is_first=True) is None
    assert find_record(tmp_path, cell)["result"]["params"] == 2
    record_path(tmp_path, cell).write_text("{")
    assert write(tmp_path, cell, 4, is_first=True)
    assert find_record(tmp_path, cell)["result"]["params"] == 4
    assert len(list(record_path(tmp_path, cell).parent.iterdir())) == 1


def test_a_file_is_written_new_once_and_replaced_where_there_are_no_links(tmp_path, monkeypatch):
    path = tmp_path / "file"
    assert [write_new(path, "one"), write_new(path, "two")] == [True, False]
    assert path.read_text() == "one"

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert write_new(path, "three")
    assert path.read_text() == "three"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_a_cell_that_another_process_has_is_left_after_the_patience(tmp_path):
    held = claims.open_lease(tmp_path / "claims" / f"{CELLS[0].key}.lease")
    with held.acquire():
        summary = run_cells(CELLS[:3], study="test", results=tmp_path, patience_s=0.1)
    assert (summary.measured, summary.left) == (2, 1)
    assert run_cells(CELLS[:3], study="test", results=tmp_path).measured == 1


def test_a_worker_tries_nothing_again_that_failed_since_its_launch(tmp_path, monkeypatch):
    def fail(self, cell, setting):
        called.append(cell.key)
        raise RuntimeError("no")

    called = []
    monkeypatch.setattr(Cost, "run", fail)
    for since, times in (("2026-01-01T00:00:00+00:00", 1), ("2026-01-01T00:00:00+00:00", 1), (None, 2)):
        summary = run_cells(CELLS[:1], study="test", results=tmp_path, since=since)
        assert summary.failed == [(CELLS[0].label, "RuntimeError: no")]
        assert len(called) == times


def test_a_file_system_without_links_is_refused_in_one_line(tmp_path, monkeypatch):
    claims.check_supported(tmp_path)
    assert list((tmp_path / "claims").iterdir()) == []

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(InputError, match=r"allowed: a folder on a file system where .*Operation not"):
        claims.check_supported(tmp_path)
    assert list((tmp_path / "claims").iterdir()) == []


@pytest.mark.slow
def test_a_lease_of_another_length_is_refused_in_one_line(tmp_path, monkeypatch):
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER_LENGTH, tmp_path / "claims" / f"{CELLS[0].key}.lease"], stdout=subprocess.PIPE
    )
    try:
        other.stdout.readline()
        with pytest.raises(InputError, match="one version of the program at a time"):
            run_cells(CELLS[:1], study="test", results=tmp_path)
    finally:
        other.kill()
        other.communicate()


OTHER_LENGTH = """
import sys, time
from ablations.runner import claims
claims.LEASE_S = 7.0
lease = claims.open_lease(sys.argv[1])
lease.acquire()
print("held", flush=True)
time.sleep(600)
"""
