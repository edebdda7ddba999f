"""The machine and the software that a number was measured with. Names no host, no user and no path."""

import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ablations.errors import pick, refuse

PACKAGE = Path(__file__).parents[1]

CONTROL_GROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
"""Where Linux shows the control groups, and which of them are this process's."""


def default_device() -> str:
    """Returns `cuda` where there is one, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(device: str | torch.device) -> torch.device:
    """Returns the device named `cpu` or `cuda`; raises InputError for another name, or for CUDA where there is none."""
    name = pick("device", str(device), ("cpu", "cuda"))
    if name == "cuda" and not torch.cuda.is_available():
        raise refuse("device", name, "cpu; this machine has no CUDA device that torch can use")
    return torch.device(name)


def describe_environment(device: str | torch.device) -> dict[str, Any]:
    """Returns what a record says of its machine, as plain values.

    Keys: `device`, `device_name` (the processor's or the GPU's), `cores` that the process may use, `threads` that torch
    does use, `python`, `platform`, the versions of `torch`, `torchvision`, `timm` and `transformers`, `cuda` (the
    runtime's version or None) and `commit` (with `-dirty` if the package's files differ from it; None outside a
    checkout). Raises InputError as `check_device` does.
    """
    place = check_device(device)
    return {
        "device": place.type,
        "device_name": torch.cuda.get_device_name() if place.type == "cuda" else cpu_name(),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "torch": str(torch.__version__),
        **{package: version(package) for package in ("torchvision", "timm", "transformers")},
        "cuda": torch.version.cuda if place.type == "cuda" else None,
        "commit": find_commit(PACKAGE),
    }


def available_cores() -> int:
    """Returns how many cores this process may use: of those it is bound to what control groups leave, at least one."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    return max(1, min(len(os.sched_getaffinity(0)), *map(math.ceil, _quotas_of_cores())))


def _quotas_of_cores() -> Iterator[float]:
    """Yields how many cores' time each control group may take."""
    yield 2.0**16  # more than any machine has
    for group, is_unified in control_groups("cpu"):
        try:
            if is_unified:
                quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
            else:
                quota, period = (
                    (group / f"cpu.cfs_{name}_us").read_text(encoding="utf-8").strip() for name in ("quota", "period")
                )
        except (OSError, ValueError):  # the outermost group has no limit
            continue
        if quota not in ("max", "-1"):
            yield int(quota) / int(period)


def control_group_limits() -> list[int]:
    """Returns the bytes of memory that each control group may take; one huge number where there is no limit."""
    limits = [2**62]
    for group, is_unified in control_groups("memory"):
        with suppress(OSError, ValueError):
            limits.append(int((group / ("memory.max" if is_unified else "memory.limit_in_bytes")).read_text("utf-8")))
    return limits


def control_groups(controller: str) -> Iterator[tuple[Path, bool]]:
    """Yields the folders of this process's control groups, its own first, and whether they are of version 2."""
    try:
        memberships = MEMBERSHIP.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in memberships:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = CONTROL_GROUPS / controller if controllers else CONTROL_GROUPS
        own = root / path.lstrip("/")
        for group in (own, *own.parents[: len(own.parts) - len(root.parts)]):
            yield group, not controllers


def use_full_float32() -> bool:
    """Has float32 mean float32 on CUDA, for convolutions too; returns whether TF32 is still on, which is False.

    By default convolutions round to TF32 there and matrix products do not, and the toggles move work between the two.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return torch.backends.cudnn.allow_tf32


def cpu_name() -> str:
    """Returns the processor's model as Linux gives it, elsewhere what Python knows of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def find_commit(folder: Path) -> str | None:
    """Returns the commit checked out in `folder`, with `-dirty` if files in it differ from that.

    None where git is missing, or knows none of the folder's files: an installed package may lie inside a checkout of
    something else.
    """
    if not _git(folder, "ls-files", "."):
        return None
    commit = _git(folder, "rev-parse", "HEAD")
    return f"{commit}-dirty" if commit and _git(folder, "status", "--porcelain", "--", ".") else commit


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
