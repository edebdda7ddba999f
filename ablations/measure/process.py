"""A process of its own for one function, with a limit on its memory, and how much memory there is to take."""

import gc
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from ablations.config import TOGGLES, Toggle
from ablations.errors import first_line, refuse, warn_in_one_line
from ablations.measure.environment import PACKAGE, check_device, control_groups

T = TypeVar("T")

# The second is what the first optimiser of a process imports, which takes seconds.
PRELOADED = ("torch", "torch._dynamo")
"""What a fresh process has imported when it starts, where the platform can fork it from one that has done so."""

LONGEST_TEMPORARY_FOLDER = 70
"""In bytes: sockets lie in a folder below it, and the system takes 107 for their whole path."""


class ProcessFailed(RuntimeError):
    """What ran in a process of its own raised an exception, or the process ended before it had an answer."""


def run_in_fresh_process(
    function: Callable[..., T], *args: Any, memory_limit_bytes: int | None = None, imports: Sequence[str] = ()
) -> T:
    """Returns `function(*args)` as a process of its own computes it, which ends with the call, and with this process.

    The function must be a module's, and its arguments and result are pickled. The process starts with torch's defaults:
    it has no thread, no cached memory and no setting of this one. On Linux it cannot allocate more than
    `memory_limit_bytes` beside what it starts with; other systems keep no such limit. The modules that `imports` names
    are imported ahead, as `fresh_process_context` has it. Raises ProcessFailed with kind and message
    of an exception, whose traceback is a note, or with the signal or exit code that ended the process.
    """
    context = fresh_process_context(imports)
    reader, writer = context.Pipe(duplex=False)
    # Not left to multiprocessing, which would move tensors of this process to shared memory.
    work = pickle.dumps((function, args))
    process = context.Process(target=_answer, args=(dict(TOGGLES), work, memory_limit_bytes, writer), daemon=True)
    with reader:
        try:
            with writer:
                process.start()
            try:
                answer = reader.recv_bytes()
            except (EOFError, OSError):
                process.join()
                raise ProcessFailed(_describe_end(process.exitcode)) from None
        finally:
            if process.pid is not None:
                process.kill()
                process.join()
            process.close()
    succeeded, result = pickle.loads(answer)
    if succeeded:
        return result
    message, details = result
    failure = ProcessFailed(message)
    failure.add_note(details)
    raise failure


def fresh_process_context(imports: Sequence[str] = ()) -> Any:
    """Returns the `multiprocessing` context whose processes start as if they were alone.

    On Linux a server forks them that has imported PRELOADED and `imports`, and run nothing: so they
    start in milliseconds, and share no thread, no cached memory and no setting with this one. The
    server is started once; `imports` of later calls are imported by each process itself.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    return start_server([*PRELOADED, *imports])


def start_server(modules: Sequence[str]) -> Any:
    """Returns the context of a fork server, which is started with these modules unless one runs already.

    Raises InputError where the folder of temporary files has too long a path for its sockets.
    """
    _use_short_temporary_folder()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ablations.measure.fork_server", *modules])
    before = dict(os.environ)
    # Else it would look for this package in the folder that it is started in.
    places = [str(PACKAGE.parent), *filter(None, [before.get("PYTHONPATH")])]
    os.environ |= {"PYTHONPATH": os.pathsep.join(places), "PYTHONSAFEPATH": "1"}
    in_main_thread = threading.current_thread() is threading.main_thread()
    # The server inherits it: a terminal sends an interrupt to all, and while it imports it would print a traceback.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main_thread else None
    try:
        forkserver.ensure_running()
    finally:
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)
        os.environ.clear()
        os.environ |= before
    return context


def _use_short_temporary_folder() -> None:
    """Has this process and its children make sockets in /tmp where queues give them a folder with a long path."""
    given = tempfile.gettempdir()
    if len(os.fsencode(given)) <= LONGEST_TEMPORARY_FOLDER:
        return
    if not os.access("/tmp", os.W_OK):
        raise refuse("TMPDIR", given, f"a path of {LONGEST_TEMPORARY_FOLDER} bytes at most: sockets lie below it")
    os.environ["TMPDIR"] = "/tmp"
    tempfile.tempdir = None


@contextmanager
def worker_processes(
    count: int, begin: Callable[..., None] | None = None, *args: Any, imports: Sequence[str] = ()
) -> Iterator[ProcessPoolExecutor]:
    """Gives a pool of fresh processes, each of which begins with `begin(*args)`; an error ends those that work."""
    others = set(multiprocessing.active_children())
    start: dict[str, Any] = {"initializer": _take_over, "initargs": (dict(TOGGLES), begin, *args)}
    with ProcessPoolExecutor(count, mp_context=fresh_process_context(imports), **start) as pool:
        try:
            yield pool
        except BaseException:
            # A pool whose workers are gone gives up its tasks by itself; cancelling them first would confuse it.
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
            raise


def _take_over(toggles: Mapping[str, Toggle], begin: Callable[..., None] | None = None, *args: Any) -> None:
    """Has a process know the toggles of its parent, which may have some that the package has not, and follow it.

    Then it begins with `begin`.
    """
    TOGGLES.clear()
    TOGGLES.update(toggles)
    follow_parent()
    if begin:
        begin(*args)


def _answer(toggles: Mapping[str, Toggle], work: bytes, memory_limit_bytes: int | None, writer: Connection) -> None:
    """Sends whether the work was done, and its result or what went wrong."""
    _take_over(toggles)
    gc.freeze()  # what is imported stays: collections that looked through it would take most of a small cell's time
    try:
        function, args = pickle.loads(work)  # before the limit, for it may import
        if memory_limit_bytes is not None:
            _limit_memory(memory_limit_bytes)
        answer = pickle.dumps((True, function(*args)))
    except BaseException as error:
        answer = pickle.dumps((False, (first_line(error), traceback.format_exc())))
    writer.send_bytes(answer)


def follow_parent() -> None:
    """Has a worker process leave interrupts to its parent, and end when that is killed: else it would wait for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warn_in_one_line()
    parent = cast(Any, multiprocessing.parent_process())
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _describe_end(exit_code: int) -> str:
    if exit_code == -signal.SIGKILL:
        return "the process was killed (SIGKILL), as the system does with one that takes too much memory"
    if exit_code < 0:
        return f"the process was ended by {signal.Signals(-exit_code).name}"
    return f"the process ended with exit code {exit_code} before it had an answer"


def _limit_memory(additional_bytes: int) -> None:
    if sys.platform == "linux":
        import resource

        torch.ones(2**20).sum()  # large enough to start torch's threads, whose stacks would count
        # Not RLIMIT_AS: libraries, and CUDA above all, reserve addresses that never take memory.
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (read_status()["VmData"] + additional_bytes, hard))


def read_status() -> dict[str, int]:
    """Returns what Linux says of this process's memory, in bytes: VmRSS, its peak VmHWM, VmData and others."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    fields = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): int(kibibytes) * 1024 for name, kibibytes, _ in fields}


def available_memory(device: str | torch.device) -> int:
    """Returns how many bytes this process can still take on a device.

    On the CPU that is what the system has without swapping, or less if a control group's limit or the process's own
    leave less; where the system does not tell, all the memory of the machine. On CUDA it is what the driver has free:
    asking takes some of it. Raises InputError as `check_device` does.
    """
    if check_device(device).type == "cuda":
        return torch.cuda.mem_get_info()[0]
    if sys.platform != "linux":
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    import resource

    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    system_room = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    rooms = [system_room, *_control_group_rooms()]
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit != resource.RLIM_INFINITY:
        rooms.append(limit - read_status()["VmData"])
    return max(0, min(rooms))


def _control_group_rooms() -> Iterator[int]:
    """Yields what is left under each limit, from the process's own control group to the outermost that is seen."""
    for group, is_unified in control_groups("memory"):
        names = ("memory.max", "memory.current") if is_unified else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        try:
            allowed, used = ((group / name).read_text(encoding="utf-8").strip() for name in names)
            statistics = dict(row.split() for row in (group / "memory.stat").read_text(encoding="utf-8").splitlines())
        except OSError:  # the outermost group has no limit, and from inside a container its own may not be seen
            continue
        if allowed != "max":
            # File pages that were not used for a while make room when it is needed.
            yield (
                int(allowed)
                - int(used)
                + int(statistics.get("inactive_file" if is_unified else "total_inactive_file", 0))
            )
