"""What crosses to a process of its own and back, how it ends, and what memory it may have."""

import functools
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from ablations.data.loading import physical_memory_bytes
from ablations.errors import InputError
from ablations.measure import environment
from ablations.measure.allocator import keep_freed_memory
from ablations.measure.process import ProcessFailed, available_memory, read_status, run_in_fresh_process

MIB = 2**20

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="a limit on memory and /proc are Linux's")


def describe_process() -> tuple[int, int, int]:
    return os.getpid(), threading.active_count(), torch.get_num_threads()


def fail(message: str) -> None:
    raise LookupError(message)


def leave(code: int) -> None:
    os._exit(code)


def end_by(name: str) -> None:
    os.kill(os.getpid(), signal.Signals[name])
    time.sleep(60)


def fill(size_bytes: int) -> int:
    return torch.ones(size_bytes, dtype=torch.uint8).nbytes


def resident_after_freeing(size_bytes: int) -> int:
    before = read_status()["VmRSS"]
    fill(size_bytes)
    return read_status()["VmRSS"] - before


def test_arguments_go_over_and_the_result_comes_back() -> None:
    assert run_in_fresh_process(math.gcd, 12, 18) == 6
    assert run_in_fresh_process(functools.partial(sorted, reverse=True), [1, 3, 2]) == [3, 2, 1]


def test_tensors_are_copied_and_stay_where_they_are() -> None:
    here = torch.arange(5.0)
    there = run_in_fresh_process(torch.neg, here)
    assert torch.equal(there, -here)
    assert not here.is_shared()


ELSEWHERE = """
import sys
sys.path.insert(0, {root!r})
from ablations.measure import process

if __name__ == "__main__":
    process.PRELOADED = ()
    print(process.run_in_fresh_process(process.read_status, imports=["ablations.measure.process"])["VmRSS"])
"""


@pytest.mark.slow
@on_linux
def test_the_process_imports_the_package_of_its_parent(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(ELSEWHERE.format(root=str(Path(__file__).parents[2])))
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations" / "__init__.py").write_text("raise SystemExit('another copy')")
    subprocess.run([sys.executable, "main.py"], cwd=tmp_path, check=True)


def test_the_process_is_fresh() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        (first, _, _), (pid, python_threads, torch_threads) = (run_in_fresh_process(describe_process) for _ in range(2))
    finally:
        torch.set_num_threads(threads)
    assert len({os.getpid(), first, pid}) == 3
    assert python_threads == 2  # its own, and the one that watches for the end of this process
    assert torch_threads == threads


@on_linux
def test_the_process_gives_back_what_it_frees_though_this_one_keeps_it() -> None:
    keep_freed_memory()
    assert run_in_fresh_process(resident_after_freeing, 64 * MIB) < 32 * MIB


def test_a_failure_comes_back_as_one_line_with_its_traceback_as_a_note() -> None:
    with pytest.raises(ProcessFailed) as caught:
        run_in_fresh_process(fail, "no such thing\nand more")
    assert str(caught.value) == "LookupError: no such thing"
    assert "in fail\n" in caught.value.__notes__[0]


def test_what_cannot_be_pickled_is_a_failure() -> None:
    with pytest.raises(ProcessFailed, match=r"pickle"):
        run_in_fresh_process(threading.Lock)


@pytest.mark.parametrize(
    ("function", "argument", "message"),
    [
        (end_by, "SIGKILL", r"killed \(SIGKILL\), as the system does with one that takes too much memory"),
        (end_by, "SIGTERM", "ended by SIGTERM"),
        (leave, 3, "exit code 3"),
        (sys.exit, 4, "SystemExit: 4"),
    ],
)
def test_the_end_of_a_process_says_how(function, argument, message) -> None:
    with pytest.raises(ProcessFailed, match=message):
        run_in_fresh_process(function, argument)
    assert multiprocessing.active_children() == []


@on_linux
def test_no_process_is_left() -> None:
    pid = run_in_fresh_process(os.getpid)
    assert not Path(f"/proc/{pid}").exists()
    assert multiprocessing.active_children() == []


INTERRUPTED = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from ablations.measure import process

def wait(path):
    partial = Path(path + ".partial")
    partial.write_text(str(os.getpid()))
    partial.rename(path)
    time.sleep(600)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background has it ignored
    process.PRELOADED = ("torch",)  # the rest would take seconds
    process.run_in_fresh_process(wait, sys.argv[1])
"""


@on_linux
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
@pytest.mark.slow
def test_the_process_ends_with_its_parent(tmp_path: Path, name: str) -> None:
    script, said = tmp_path / "main.py", tmp_path / "pid"
    script.write_text(INTERRUPTED.format(root=str(Path(__file__).parents[2])))
    parent = subprocess.Popen([sys.executable, str(script), str(said)], stderr=subprocess.PIPE, start_new_session=True)
    try:
        wait_until(said.exists)
        child = Path("/proc", said.read_text())
        if name == "SIGINT":
            os.killpg(parent.pid, signal.SIGINT)  # as the keyboard does
        else:
            parent.kill()
        _, complaint = parent.communicate(timeout=60)  # to the end of every process that may write to it
    finally:
        if parent.poll() is None:
            os.killpg(parent.pid, signal.SIGKILL)
    wait_until(lambda: not child.exists())
    assert complaint.decode().count("Traceback") == (name == "SIGINT")  # the parent's own


def wait_until(happened) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


WITNESS = """
class Witness:
    def __del__(self):
        print("taken apart", flush=True)

witness = Witness()
"""

SERVED = """
import sys
from ablations.measure.process import start_server

if __name__ == "__main__":
    process = start_server(["witness"]).Process(target=print, args=("served",))
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""


@pytest.mark.slow
def test_the_server_ends_with_its_parent_without_taking_apart_what_it_imported(tmp_path: Path) -> None:
    (tmp_path / "witness.py").write_text(WITNESS)
    (tmp_path / "served.py").write_text(SERVED)
    there = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    command = [sys.executable, tmp_path / "served.py"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": there}, stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"served\n"


@on_linux
def test_a_limit_is_on_what_is_allocated_beside_the_start() -> None:
    assert run_in_fresh_process(fill, 100 * MIB, memory_limit_bytes=150 * MIB) == 100 * MIB
    with pytest.raises(ProcessFailed, match=f"you tried to allocate {200 * MIB} bytes"):
        run_in_fresh_process(fill, 200 * MIB, memory_limit_bytes=150 * MIB)
    with pytest.raises(ProcessFailed, match="MemoryError"):
        run_in_fresh_process(bytes, 200 * MIB, memory_limit_bytes=150 * MIB)


@on_linux
def test_a_limit_leaves_that_much_available() -> None:
    available = run_in_fresh_process(available_memory, "cpu", memory_limit_bytes=50 * MIB)
    assert 45 * MIB < available <= 50 * MIB


@on_linux
@pytest.mark.parametrize(
    ("line", "folder", "limit", "usage", "cache"),
    [
        ("0::/jobs/one", "", "memory.max", "memory.current", "inactive_file"),
        (
            "4:cpu,memory:/jobs/one",
            "memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ],
)
def test_control_groups_limit_what_is_available(tmp_path, monkeypatch, line, folder, limit, usage, cache) -> None:
    root = tmp_path / folder
    (root / "jobs").mkdir(parents=True)  # the group itself is not seen, as in a container
    (root / "jobs" / limit).write_text(f"{100 * MIB}\n")
    (root / "jobs" / usage).write_text(f"{70 * MIB}\n")
    (root / "jobs" / "memory.stat").write_text(f"anon {50 * MIB}\n{cache} {8 * MIB}\n")
    membership = tmp_path / "cgroup"
    membership.write_text(f"3:cpuset:/\n{line}\n")
    monkeypatch.setattr(environment, "CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(environment, "MEMBERSHIP", membership)
    assert available_memory("cpu") == 38 * MIB
    (root / "jobs" / limit).write_text("max\n" if limit == "memory.max" else f"{2**63 - 4096}\n")
    assert available_memory("cpu") > 38 * MIB


@on_linux
@pytest.mark.parametrize(
    ("line", "files", "cores"),
    [
        ("0::/jobs/one", {"jobs/cpu.max": "150000 100000"}, 2),
        ("0::/jobs/one", {"jobs/one/cpu.max": "20000 100000", "jobs/cpu.max": "max 100000"}, 1),
        ("4:cpu,cpuacct:/jobs", {"cpu/jobs/cpu.cfs_quota_us": "100000", "cpu/jobs/cpu.cfs_period_us": "50000"}, 2),
        ("4:cpu,cpuacct:/jobs", {"cpu/jobs/cpu.cfs_quota_us": "-1", "cpu/jobs/cpu.cfs_period_us": "50000"}, 64),
        ("4:memory:/jobs", {"cpu/jobs/cpu.cfs_quota_us": "50000", "cpu/jobs/cpu.cfs_period_us": "50000"}, 64),
    ],
)
def test_control_groups_limit_the_cores(tmp_path, monkeypatch, line, files, cores) -> None:
    for name, text in {**files, "cgroup": line}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    monkeypatch.setattr(environment, "CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(environment, "MEMBERSHIP", tmp_path / "cgroup")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert environment.available_cores() == cores


def test_where_there_are_no_control_groups_there_is_no_limit(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(environment, "MEMBERSHIP", tmp_path / "nowhere")
    assert environment.available_cores() >= 1
    assert environment.control_group_limits() == [2**62]


@on_linux
def test_the_memory_of_a_container_is_what_data_may_take_half_of(tmp_path, monkeypatch) -> None:
    (tmp_path / "memory.max").write_text("123456789\n")
    (tmp_path / "cgroup").write_text("0::/\n")
    monkeypatch.setattr(environment, "CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(environment, "MEMBERSHIP", tmp_path / "cgroup")
    assert physical_memory_bytes() == 123456789


@pytest.mark.slow
@on_linux
def test_fresh_processes_start_where_the_temporary_folder_has_a_long_path(tmp_path) -> None:
    folder = tmp_path / ("scratch" * 12) / ("job" * 12)
    folder.mkdir(parents=True)
    code = "from ablations.measure.process import run_in_fresh_process as run; print(run(abs, -7))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("7\n", "")


def test_available_memory_is_of_this_machine() -> None:
    assert 0 < available_memory("cpu") <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with pytest.raises(InputError, match="tpu"):
        available_memory("tpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_can_be_used_in_there_and_says_what_is_free() -> None:
    held = torch.ones(MIB, device="cuda")
    assert 0 < run_in_fresh_process(available_memory, "cuda") < torch.cuda.get_device_properties(0).total_memory
    assert held.sum() == MIB
