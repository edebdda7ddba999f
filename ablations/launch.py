"""Workers: several processes that run the same command on one study, on this machine or as jobs of Slurm.

Cells are not submitted, workers are. Each runs the ordinary command and claims cells (`ablations.runner.claims`), so
any number of them may come, stop, be killed and come again. `python -m ablations.launch` is one worker.
"""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ablations.cells import Cell
from ablations.errors import InputError, as_text, pick, refuse
from ablations.files import write_text
from ablations.flags import flag_of, refuse_given
from ablations.units import count_cells, format_bytes, parse_duration

if TYPE_CHECKING:
    from ablations.commands.run import Run

WORKERS = "workers"
"""The folder of workers' logs and jobs below a results folder."""

LOCAL = "local.json"
"""Says which process has started workers on which machine."""

STOP_S = 120
"""Before the end of a job's time, when Slurm tells the worker to leave a checkpoint."""

MOST_RESTARTS = 100
"""Of a job that was requeued: one that never finishes a cell is to end at some time."""

PROFILE: dict[str, type] = {
    "partition": str,
    "account": str,
    "constraint": str,
    "qos": str,
    "time": str,
    "memory_gib": int,
    "cpus_per_worker": int,
    "gpus_per_worker": int,
    "setup": list,
    "container": str,
}
"""The keys of a profile, which says how a site's Slurm is used, and the types of their values."""

SLURM_NAMES = {
    **{name: name for name in ("partition", "account", "constraint", "qos")},
    **{"memory_gib": "mem", "cpus_per_worker": "cpus_per_task", "gpus_per_worker": "gpus_per_node"},
}
"""What submitit calls those of them that Slurm is told."""


@dataclass(frozen=True, kw_only=True)
class Launched:
    """Who runs a study: this process, or workers."""

    launcher: Literal["local", "slurm"] | None = None
    """Start workers that share the results folder: `local` processes, or jobs of `slurm`."""
    workers: int | None = None
    """With --launcher: how many; 1 by default."""
    gpus_per_worker: int = 0
    """With --launcher slurm: GPUs of a worker; with several, torchrun trains each cell on all of them."""
    cpus_per_worker: int | None = None
    """With --launcher slurm: CPU cores of a worker."""
    per_gpu: int = 1
    """With --launcher local: so many workers may share a GPU."""
    time: str | None = None
    """With --launcher slurm: how long a job may take, such as 4h, the default; it is requeued while cells are left."""
    partition: str | None = None
    """With --launcher slurm: the partition."""
    account: str | None = None
    """With --launcher slurm: the account."""
    constraint: str | None = None
    """With --launcher slurm: features that the nodes must have."""
    profile: Path | None = None
    """With --launcher slurm: a TOML file with these settings and qos, memory_gib, setup and container."""


@dataclass(frozen=True, kw_only=True)
class Worker:
    """How a worker differs from a run of its own."""

    since: str
    """When the launch began, an ISO 8601 time in UTC."""
    patience_s: float = float("inf")
    """How long it waits for cells that others have claimed."""
    is_shared: bool = False
    """Whether others work on the same machine: then it leaves out what is measured alone."""

    def takes(self, cell: Cell) -> bool:
        return not self.is_shared or cell.conditions.is_computed or cell.conditions.trains


def begin_launch() -> str:
    """Returns the time that tells this launch's records from older ones, once it has come."""
    now = datetime.now(UTC)
    time.sleep(1 - now.microsecond / 1e6)
    return datetime.now(UTC).isoformat(timespec="seconds")


def worker_words(words: Sequence[str]) -> list[str]:
    """Returns the words of a command line without the flags that say how workers are launched, and their values."""
    flags = {flag_of(each.name) for each in fields(Launched)}
    left, skip = [], False
    for word in words:
        if not skip and word.partition("=")[0] not in flags:
            left.append(word)
        skip = not skip and word in flags
    return left


def worker_command(worker: Worker, words: Sequence[str]) -> list[str]:
    settings = json.dumps(vars(worker))
    return [sys.executable, "-m", "ablations.launch", settings, *worker_words(words)]


def check_launch(command: "Run") -> int:
    """Returns the number of workers; raises InputError for flags that do not go together."""
    if command.launcher is None:
        refuse_given(command, (each.name for each in fields(Launched)), "none without --launcher local or slurm")
    for name in ("workers", "gpus_per_worker", "cpus_per_worker", "per_gpu"):
        value = getattr(command, name)
        if value is not None and value < (0 if name == "gpus_per_worker" else 1):
            raise refuse(name, value, "1 or more")
    if command.launcher == "local":
        for name in ("partition", "account", "constraint", "time", "profile", "cpus_per_worker", "gpus_per_worker"):
            if getattr(command, name):
                raise refuse(name, str(getattr(command, name)), "none with --launcher local: it is Slurm's")
    if command.launcher == "slurm" and command.per_gpu != 1:
        raise refuse("per_gpu", command.per_gpu, "1 with --launcher slurm")
    if command.launcher == "slurm" and command.jobs not in (None, 1):
        # Slurm signals every process of a job, the server that forks processes for trainings side by side among them.
        raise refuse("jobs", command.jobs, "1 with --launcher slurm: more --workers train more cells at once")
    return 1 if command.workers is None else command.workers


def is_first_process() -> bool:
    """Whether this is the process that speaks, among those that `torchrun` started."""
    return os.environ.get("RANK", "0") == "0"


# On this machine -----------------------------------------------------------------------------------------------------


def launch_local(command: "Run", words: Sequence[str], cells: Sequence[Cell]) -> Worker:
    """Starts workers here, waits for them, and returns with what the caller ends the study.

    Each has its share of the cores, and a GPU where cells need one. Raises InputError for more workers than GPUs take.
    """
    from ablations.measure.environment import available_cores
    from ablations.runner.claims import check_supported

    count = check_launch(command)
    gpus = _gpus_of_workers(command, cells, count)
    check_supported(command.results)
    worker = Worker(since=begin_launch(), is_shared=True)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    folder = command.results / WORKERS
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / LOCAL, json.dumps({"host": socket.gethostname(), "process": os.getpid()}))
    print(f"{count} workers on {available_cores()} cores; their logs: {folder}", file=sys.stderr, flush=True)
    started: list[subprocess.Popen] = []
    try:
        for number in range(count):
            environment = dict(os.environ)
            if gpus:
                environment["CUDA_VISIBLE_DEVICES"] = gpus[number]
            own = set(cores[number::count] or cores[number % len(cores) : number % len(cores) + 1]) if cores else set()
            if own:
                environment.setdefault("OMP_NUM_THREADS", str(len(own)))
            with (folder / f"local_{number}.log").open("ab") as log:
                # In a session of its own: an interrupt of the terminal reaches it once, from here.
                process = subprocess.Popen(
                    worker_command(worker, words),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,
                )
            started.append(process)
            if own:
                os.sched_setaffinity(process.pid, own)
        for number, process in enumerate(started):
            code = process.wait()
            if code not in (0, 1):
                print(f"worker {number} ended with {code}: {folder / f'local_{number}.log'}", file=sys.stderr)
    finally:
        for process in started:
            if process.poll() is None:
                process.terminate()
        for process in started:
            process.wait()
        (folder / LOCAL).unlink(missing_ok=True)
    return Worker(since=worker.since)


def _gpus_of_workers(command: "Run", cells: Sequence[Cell], count: int) -> list[str]:
    """Returns which GPUs each worker sees; nothing where no cell needs one."""
    if not any(cell.conditions.needed_device == "cuda" for cell in cells):
        return []
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    there = named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]
    if count > len(there) * command.per_gpu:
        allowed = f"1 to {len(there) * command.per_gpu}: {len(there)} GPUs, {command.per_gpu} workers each"
        raise refuse("workers", count, allowed)
    if command.per_gpu > 1:
        sizes = [torch.cuda.get_device_properties(number).total_memory for number in range(torch.cuda.device_count())]
        _check_fit(command.per_gpu, cells, min(sizes))
    return [there[number % len(there)] for number in range(count)]


def _check_fit(per_gpu: int, cells: Sequence[Cell], total_bytes: int) -> None:
    """Raises InputError if the trainings of so many workers are predicted not to fit into a GPU together.

    Predicted is what classifiers' trainings hold, without the driver's context of each process.
    """
    from ablations.runner.plan import is_predicted, predict_training_memory

    trainings = [cell for cell in cells if is_predicted(cell)]
    shapes = {(cell.config, cell.conditions.resolution, cell.conditions.batch_size): cell for cell in trainings}
    needs = {cell.label: predict_training_memory(cell) for cell in shapes.values()}
    if needs and per_gpu * max(needs.values()) > total_bytes:
        label, most = max(needs.items(), key=lambda need: need[1])
        why = f"{format_bytes(most)} of {format_bytes(total_bytes)} is predicted for {label}"
        raise refuse("per_gpu", per_gpu, f"1 to {max(1, total_bytes // most)}: {why}")


# Slurm ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SlurmWorker:
    """What a job of Slurm runs: the worker's command, which it tells to leave a checkpoint when the time is over."""

    words: tuple[str, ...]

    def __call__(self) -> None:
        """Ends the process with the command's exit code; a job whose time was over goes back into the queue."""
        is_over = False

        def end(*_: Any) -> None:
            nonlocal is_over
            is_over = True
            worker.terminate()

        # Slurm signals every process of a job: the command ignores what its parent is told, and gets SIGTERM from it.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        worker = subprocess.Popen(self.words)
        signal.signal(signal.SIGUSR1, end)
        code = worker.wait()
        if is_over and code == 130 and int(os.environ.get("SLURM_RESTART_COUNT", "0")) < MOST_RESTARTS:
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
        sys.exit(code)


def launch_slurm(command: "Run", words: Sequence[str]) -> list[str]:
    """Submits workers and returns the numbers of their jobs.

    Raises InputError where there is no Slurm or no submitit, and for a partition, profile or folder that will not do.
    """
    count = check_launch(command)
    if not shutil.which("sbatch"):
        raise refuse("launcher", "slurm", "local; this machine has no sbatch, which a cluster's login node has")
    os.environ["SUBMITIT_PREEMPT_SIGNAL"] = "USR1"  # which submitit reads when it is imported
    try:
        import submitit
    except ImportError:
        raise refuse("launcher", "slurm", "local, or this once `pip install 'pvt-ablations[slurm]'` is done") from None
    from ablations.runner.claims import LEASE_S, check_supported

    profile = read_profile(command.profile) if command.profile else {}
    chosen = profile | {name: value for name in PROFILE if (value := getattr(command, name, None)) not in (None, 0)}
    if partition := chosen.get("partition"):
        pick("partition", partition, _ask("sinfo", "--noheader", "--format=%R").split())
    minutes = max(1, round(parse_duration(chosen.get("time", "4h"), "time") / 60))
    check_supported(command.results)
    python = shlex.quote(sys.executable)
    if container := chosen.get("container"):
        python = f"apptainer exec --nv {shlex.quote(container)} {python}"
    # An absolute folder, because jobs may begin elsewhere.
    executor = submitit.SlurmExecutor(folder=(command.results / WORKERS).absolute(), python=python)
    if "memory_gib" in chosen:
        chosen["memory_gib"] = f"{chosen['memory_gib']}G"
    executor.update_parameters(
        job_name=f"ablations-{Path(command.study).stem}",
        time=minutes,
        signal_delay_s=min(STOP_S, minutes * 30),
        setup=["export SUBMITIT_PREEMPT_SIGNAL=USR1", *chosen.get("setup", [])],
        additional_parameters={"requeue": True},
        **{name: chosen[key] for key, name in SLURM_NAMES.items() if key in chosen},
    )
    worker = Worker(since=begin_launch(), patience_s=2 * LEASE_S)
    arguments = worker_command(worker, words) + ([] if command.jobs else ["--jobs", "1"])
    if chosen.get("gpus_per_worker", 0) > 1:
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(chosen["gpus_per_worker"])]
        arguments = [sys.executable, *torchrun, *arguments[1:]]
    try:
        return [executor.submit(SlurmWorker(tuple(arguments))).job_id for _ in range(count)]
    except submitit.core.utils.FailedJobError as error:
        reasons = [line for line in str(error).splitlines() if "error" in line] or str(error).splitlines()
        raise InputError(f"Slurm takes no such job: {as_text(reasons[0].strip())}") from None


def read_profile(path: Path) -> dict[str, Any]:
    """Returns a profile's values; raises InputError that names the file and the key."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        for name, value in values.items():
            kind = PROFILE[pick("key", name, PROFILE)]
            texts = kind is not list or (isinstance(value, list) and all(isinstance(each, str) for each in value))
            if type(value) is not kind or not texts or (isinstance(value, int) and value < 0):
                allowed = {str: "a text", int: "a whole number from 0", list: "a list of texts"}[kind]
                raise refuse(name, value, allowed)
    except (OSError, UnicodeDecodeError) as error:
        raise refuse("profile", str(path), f"a TOML file that can be read ({error})") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path.name}: not TOML: {error}") from error
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from error
    return values


def _ask(*command: str) -> str:
    """Returns what a command of Slurm says; raises InputError where it does not answer."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except FileNotFoundError:
        raise InputError(f"there is no {command[0]} here: no Slurm") from None
    except subprocess.TimeoutExpired:
        raise InputError(f"{command[0]} has not answered for 60 s: Slurm's controller may be down") from None
    except subprocess.CalledProcessError as error:
        said = as_text((error.stderr.strip().splitlines() or ["no reason given"])[-1])
        raise InputError(f"{command[0]} failed: {said}") from None


def list_jobs(results: Path) -> dict[str, list[str]]:
    """Returns the jobs of a results folder that Slurm still has: by number the state, the node, since when, and why."""
    numbers = {path.name.partition("_")[0] for path in (results / WORKERS).glob("*_submitted.pkl")}
    if not numbers:
        return {}
    lines = _ask("squeue", "--noheader", "--me", "--states=all", "--format=%i|%T|%N|%S|%r").splitlines()
    jobs = {number: rest for number, *rest in (line.split("|") for line in lines)}
    ended = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT")
    return {number: jobs[number] for number in sorted(numbers & jobs.keys(), key=int) if jobs[number][0] not in ended}


# Status and cancel ---------------------------------------------------------------------------------------------------


def describe_status(cells: Sequence[Cell], results: Path) -> list[str]:
    """Returns what is said of a study: how many cells are in which state, what runs where, and the jobs."""
    from ablations.records.folder import find_record
    from ablations.runner.claims import LEASE_S, read_notes

    records = {cell: record for cell in cells if (record := find_record(results, cell))}
    notes = read_notes(results)
    late = (datetime.now(UTC) - timedelta(seconds=LEASE_S)).isoformat(timespec="seconds")
    done = {cell for cell, record in records.items() if record["status"] == "done"}
    running = [cell for cell in cells if cell.key in notes and cell not in done]
    failed = {cell: records[cell]["failure"] for cell in records if cell not in done and cell not in running}
    queued = len(cells) - len(done) - len(running) - len(failed)
    lines = [
        f"{count_cells(len(cells))}: {len(done)} done, {len(running)} running, {queued} queued, {len(failed)} failed"
    ]
    for cell in running:
        note = notes[cell.key]
        job = f", job {note['job']}" if note["job"] else ""
        seen = f"; not heard of since {note['renewed']}" if note["renewed"] < late else ""
        lines.append(f"running  {cell.label}: on {note['host']}{job}, since {note['since']}{seen}")
        lines += [f"         {line}" for line in _last_line(results / "logs" / f"{cell.file_name}.jsonl")]
    lines += [f"failed   {cell.label}: {why}" for cell, why in failed.items()]
    for number, (state, node, start, reason) in list_jobs(results).items():
        where = f" on {node} since {start}" if node else f" ({reason})"
        lines.append(f"job {number}: {state.lower()}{where}")
    return lines


def _last_line(log: Path) -> list[str]:
    try:
        lines = log.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    return [as_text(lines[-1])[:160]] if lines else []


def cancel_workers(results: Path) -> list[str]:
    """Stops the workers of a results folder, which leave checkpoints, and returns what was stopped."""
    stopped = []
    if jobs := list_jobs(results):
        _ask("scancel", *jobs)
        stopped += [f"job {number}" for number in jobs]
    try:
        local = json.loads((results / WORKERS / LOCAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return stopped
    if local["host"] != socket.gethostname():
        raise refuse("results", str(results), f"one whose workers run here; its local workers run on {local['host']}")
    command = ["ps", "-o", "args=", "-p", str(local["process"])]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    if "--launcher" in shown:
        os.kill(local["process"], signal.SIGTERM)
        stopped.append(f"the local workers of process {local['process']}")
    return stopped


def run_worker() -> int:
    """Runs the worker that this process's arguments describe, and returns its exit code."""
    from ablations.cli import main

    return main(sys.argv[2:], Worker(**json.loads(sys.argv[1])))


if __name__ == "__main__":
    sys.exit(run_worker())
