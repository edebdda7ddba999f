"""Which process works on which cell, where several share a results folder.

A process that begins a cell takes a lease on it, filelock's SoftFileLease: a file that is created exclusively, whose
time the holder renews. Another process takes a lease over when its holder is provably dead, which it can tell on the
same machine, or when it has seen no renewal for LEASE_S by its own monotonic clock, so that clocks may differ. A lease
is no fence: a holder that was stopped may wake when another has its cell. Hence it asks before it writes whether the
lease is still its own, and the first whole record of a cell stands (`records.write_record`).
"""

import errno
import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import LeaseSettingsMismatch, SoftFileLease, Timeout

from ablations.cells import Cell
from ablations.errors import refuse
from ablations.files import write_text

LEASE_S = 180.0
"""Seconds without a renewal after which a lease may be taken over; NFS clients see a file's time up to 60 s late."""

RENEWALS = 9
"""Of a lease, in LEASE_S."""

CLAIMS = "claims"
"""The folder of leases below a results folder."""

NEEDED = (
    "a folder on a file system where a file can be created exclusively, renewed and linked, such as ext4, XFS, NFS 3 "
    "or later, Lustre or GPFS"
)


class Lost(RuntimeError):
    """The lease of a cell was taken over by another process, which works on it now."""


@dataclass(frozen=True)
class Claim:
    """A cell that this process works on."""

    lease: SoftFileLease
    note: Path
    """Says who works on the cell, for `status`."""

    def is_held(self) -> bool:
        """Whether the lease is still this process's own; it looks at the file."""
        owner = self.lease.owner
        return self.lease.compromise is None and owner is not None and owner.token == self.lease.token

    def check(self) -> None:
        """Raises Lost where a renewal has found the lease gone; it looks at no file."""
        if self.lease.compromise is not None:
            raise Lost("another process has taken over the cell")


_waiting: dict[Path, SoftFileLease] = {}
"""Leases that other processes hold are kept, for they remember since when they have seen no renewal."""


@contextmanager
def claimed(results: Path, cell: Cell) -> Iterator[Claim | None]:
    """Gives this process's claim on a cell of a results folder while it lasts, or None where another process has it.

    Raises InputError where the file system does not support it.
    """
    path = results / CLAIMS / f"{cell.key}.lease"
    lease = _waiting.get(path) or open_lease(path)
    try:
        lease.acquire(blocking=False)
    except Timeout:
        _waiting[path] = lease
        yield None
        return
    except LeaseSettingsMismatch as error:
        allowed = "one that is filled by one version of the program at a time: leases last another time there"
        raise refuse("results", str(results), allowed) from error
    except OSError as error:
        raise refuse("results", str(results), f"{NEEDED} ({error.strerror})") from error
    _waiting.pop(path, None)
    claim = Claim(lease, path.with_suffix(".json"))
    try:
        if not cell.conditions.is_computed:  # which takes a moment
            write_text(claim.note, json.dumps(_describe(cell)))
        yield claim
    finally:
        if not cell.conditions.is_computed and claim.is_held():
            claim.note.unlink(missing_ok=True)
        with suppress(OSError):  # a folder that was removed meanwhile has no lease
            lease.release()


def open_lease(path: Path) -> SoftFileLease:
    """Returns a lease that is not yet taken; every process must agree on how long it lasts."""
    return SoftFileLease(path, lease_duration=LEASE_S, heartbeat_interval=LEASE_S / RENEWALS, thread_local=False)


def _describe(cell: Cell) -> dict[str, Any]:
    return {
        "cell": cell.label,
        "file_name": cell.file_name,
        "host": socket.gethostname(),
        "process": os.getpid(),
        "job": os.environ.get("SLURM_JOB_ID"),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def check_supported(results: Path) -> None:
    """Raises InputError where the file system of a results folder lacks what claims need."""
    folder = results / CLAIMS
    name = secrets.token_hex(8)
    probe, link = folder / f".{name}", folder / f".{name}.link"
    try:
        with open_lease(probe).acquire(blocking=False):
            os.utime(probe)
            os.link(probe, link)
            if not probe.samefile(link):
                raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    except (OSError, Timeout) as error:
        raise refuse("results", str(results), f"{NEEDED} ({getattr(error, 'strerror', error)})") from error
    finally:
        link.unlink(missing_ok=True)


def read_notes(results: Path) -> dict[str, dict[str, Any]]:
    """Returns who works on which cell, by the cell's key: what the note says, and when the lease was renewed last."""
    notes = {}
    for path in sorted((results / CLAIMS).glob("[!.]*.json")):
        with suppress(OSError, ValueError):  # a cell that was finished meanwhile
            note = json.loads(path.read_text(encoding="utf-8"))
            renewed = path.with_suffix(".lease").stat().st_mtime
            notes[path.stem] = note | {"renewed": datetime.fromtimestamp(renewed, UTC).isoformat(timespec="seconds")}
    return notes
