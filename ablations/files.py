"""Files that are written whole: a kill at any moment leaves the old one or the new one. Digests of files and values."""

import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO


def write_text(path: Path, text: str) -> None:
    """Writes a file in UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Writes a file."""
    with written_whole(path) as file:
        file.write(content)


def file_digest(path: Path) -> str:
    """Returns the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def value_digest(value: Any) -> str:
    """Returns the SHA-256 of a plain value as JSON, in hex, in whichever order its objects have their names."""
    return hashlib.sha256(_COMPACT.encode(value).encode()).hexdigest()


_COMPACT = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
"""As a constant, because many records are checked."""


def write_new(path: Path, text: str) -> bool:
    """Writes a file in UTF-8 if there is none of its name, and returns whether it did; of several processes, one does.

    Where the file system has no links, an older file is replaced.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        write_text(temporary, text)  # whole and on disk before it has a name that is looked for
        try:
            os.link(temporary, path)
        except FileExistsError:
            # NFS may say so of a link that it has made, when its answer was lost.
            return path.exists() and temporary.stat().st_nlink == 2
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            temporary.replace(path)
        return True
    finally:
        temporary.unlink(missing_ok=True)


NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""What a file system without links says."""


@contextmanager
def opened_regular(path: Path, most_bytes: int) -> Iterator[BufferedReader]:
    """Gives a regular file to read; raises OSError for a folder, a device or a pipe, without waiting, or a larger one.

    Links are followed to what they lead to.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if status.st_size > most_bytes:
            raise OSError(errno.EFBIG, f"larger than {most_bytes:,} bytes", str(path))
        file = os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
    with file:
        yield file


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """Gives a file to write, which takes the place of an older one when all is written, and makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own, because several processes may write one file, on several machines.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
