"""One training in several processes, as `torchrun` starts them: who takes which images, and how they agree."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ablations.errors import first_line, refuse

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)
"""How long the processes wait for each other; the first reads or fetches data while the others do."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of one training."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes and shows progress."""
        return self.rank == 0

    def check_batch(self, batch_size: int) -> None:
        """Raises InputError if a batch cannot be shared equally."""
        if self.count > 1 and batch_size % (2 * self.count):
            raise refuse("batch_size", batch_size, f"a multiple of {2 * self.count}, twice the number of processes")

    def share(self, size: int) -> Tensor:
        """Returns the places in a batch of `size` images that this process takes, in order.

        They are a part of the first half and its mirror image in the second, so that a batch that is mixed with itself
        in reverse, as timm's mixup does, pairs the same images however many processes share it.
        """
        if self.count == 1:
            return torch.arange(size)
        each = size // (2 * self.count)
        front = torch.arange(self.rank * each, (self.rank + 1) * each)
        return torch.cat([front, size - 1 - front.flip(0)])

    def add(self, values: Tensor) -> Tensor:
        """Returns the sum of all processes' values."""
        if self.count > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def agree(self, wish: int, device: str) -> int:
        """Returns the largest of all processes' wishes."""
        if self.count == 1:
            return wish
        wishes = torch.tensor(wish, device=device)
        dist.all_reduce(wishes, dist.ReduceOp.MAX)
        return int(wishes)

    def gather(self, value: T) -> list[T]:
        """Returns all processes' values in order of rank."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value)
        return values

    def tell_all(self, value: T) -> T:
        """Returns the first process's value."""
        box = [value]
        if self.count > 1:
            dist.broadcast_object_list(box)
        return box[0]

    def fault(self, error: Exception) -> "RankFailed":
        """Returns the error to raise for one that this process met, or met because another one had failed.

        The process that failed says why; the others, whose connection broke, are silent, or say that one is gone.
        """
        store = dist.distributed_c10d._get_default_store()
        own = f"process {self.rank} of {self.count}: {first_line(error)}"
        try:
            if not _is_lost(error):
                return RankFailed(own, is_told=store.compare_set(_FAULT, "", own) != own.encode())
            store.wait([_FAULT], TELL_WITHIN)
            return RankFailed(store.get(_FAULT).decode(), is_told=True)
        except (dist.DistError, RuntimeError):  # nobody told, or the store went with the first process
            lost = f"process {self.rank} of {self.count}: another one ended, and did not say why"
            return RankFailed(lost, is_told=False)


class RankFailed(RuntimeError):
    """Why a training of several processes failed; `is_told` where another process says it."""

    def __init__(self, reason: str, *, is_told: bool) -> None:
        super().__init__(reason)
        self.is_told = is_told


_FAULT = "ablations/fault"

TELL_WITHIN = timedelta(seconds=5)
"""How long processes whose connection broke wait for the reason."""


def _is_lost(error: Exception) -> bool:
    """Whether an error says that another process is gone."""
    words = str(error).lower()
    return isinstance(error, dist.DistError) or any(word in words for word in ("gloo", "nccl", "connection"))


ALONE = Ranks()
"""A process that trains by itself."""


def count_ranks() -> int:
    """Returns how many processes `torchrun` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def count_local_ranks() -> int:
    """Returns how many of them run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Joins the processes that `torchrun` started, over NCCL or gloo; where there is one it is alone."""
    if count_ranks() == 1:
        yield ALONE
        return
    if device == "cuda":
        own, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if own >= there:
            raise refuse("processes", count_ranks(), f"{there} on this machine, one a GPU")
        torch.cuda.set_device(own)
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
