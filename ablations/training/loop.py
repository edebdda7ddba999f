"""Training from scratch, which may stop at any step and go on in another process as if nothing had happened."""

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ablations.design import Accuracy
from ablations.errors import InputError, refuse
from ablations.model.pvt import DropPath
from ablations.training.batches import mix_seeds, steps_per_epoch, training_batches
from ablations.training.checkpoints import load_checkpoint, save_checkpoint
from ablations.training.data import Data
from ablations.training.distributed import Ranks
from ablations.training.optimisation import autocast, build_loss, build_mixup, build_optimizer, build_schedule
from ablations.training.validation import evaluate

CHECKPOINT_EVERY_S = 60.0

AGREE_EVERY = {"cpu": 1, "cuda": 10}
"""Steps after which several processes ask each other whether to stop, for which a GPU is waited for."""

ONE_REQUEST_S = 2.0
"""Signals that follow each other this soon are one request: of a terminal to all processes, and of a parent."""

_GO_ON, _SAVE, _PAUSE, _STOP = range(4)


class Diverged(RuntimeError):
    """The loss was not finite: at `step` (from 1, over all epochs), with this learning rate and gradient norm."""

    def __init__(self, step: int, lr: float, loss: float, grad_norm: float) -> None:
        super().__init__(f"the loss is {loss} at step {step}, learning rate {lr:.3g}, gradient norm {grad_norm:.3g}")
        self.step, self.lr, self.loss, self.grad_norm = step, lr, loss, grad_norm


class OutOfTime(RuntimeError):
    """The time for a training was over before it was finished; it has written a checkpoint."""


class Stopped(KeyboardInterrupt):
    """A training was asked to stop by a signal; it has written a checkpoint."""


class Training:
    """A model on its way through a recipe.

    `model` is trained in place; it and `data` are on one device. `history` has one entry for each finished epoch:
    `epoch` (from 1), `loss` (the mean of its steps), `lr` (of its last step), `grad_norm` (the mean, before clipping),
    `seconds` (without evaluation), `wait_s` (of these, waiting for images) and `top1` where one was evaluated on the
    way. Raises InputError for batches that the processes cannot share.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        conditions: Accuracy,
        *,
        ranks: Ranks | None = None,
        workers: int = 0,
    ) -> None:
        self.model, self.data, self.conditions = model, data, conditions
        self.ranks, self.workers = ranks or Ranks(), workers
        self.steps_per_epoch = steps_per_epoch(data, conditions)
        size = min(conditions.batch_size, len(data.train_labels))
        self.ranks.check_batch(size)
        self.optimizer = build_optimizer(model, conditions)
        self.schedule = build_schedule(self.optimizer, conditions, self.steps_per_epoch)
        self.mixup, self.loss = build_mixup(conditions), build_loss(conditions)
        if self.mixup and size % 2:
            raise refuse("batch_size", size, "an even number with mixup or cutmix; these are all training images")
        self.drop_paths = [module for module in model.modules() if isinstance(module, DropPath) and module.rate]
        self.average = ModelEmaV3(model, decay=conditions.ema_decay) if conditions.ema_decay else None
        self.network = DistributedDataParallel(model) if self.ranks.count > 1 else model
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self.losses: list[Tensor] = []
        self.norms: list[Tensor] = []
        self.rates: list[float] = []
        self.seconds = self.wait_s = 0.0
        # For layers that draw from torch's own generator; several processes draw differently.
        own = (self.ranks.rank,) if self.ranks.rank else ()
        torch.manual_seed(mix_seeds(self.conditions.seed, self.epoch, 1, *own))

    @property
    def epoch(self) -> int:
        """The epoch that the next step is in, from 1."""
        return self.step // self.steps_per_epoch + 1

    @property
    def trained(self) -> nn.Module:
        """The model that counts: the moving average of the weights where there is one."""
        return self.average.module if self.average else self.model

    def run(self, *, progress: Callable[["Training"], None] | None = None, saver: "Saver | None" = None) -> None:
        """Trains from where it stands to the end.

        `progress` is called after each step. Nothing waits for the device within an epoch, so a loss that is not finite
        raises Diverged at its end. Raises Stopped after the step in which the saver was asked to stop.
        """
        while self.epoch <= self.conditions.total_epochs:
            self._run_epoch(progress, saver)

    def _run_epoch(self, progress: Callable[["Training"], None] | None, saver: "Saver | None") -> None:
        self.network.train()
        first_step = self.step % self.steps_per_epoch
        batches = training_batches(
            self.data, self.conditions, self.epoch, first_step=first_step, ranks=self.ranks, workers=self.workers
        )
        epoch, clock = self.epoch, time.perf_counter()
        for images, labels in batches:
            ready = time.perf_counter()
            self.wait_s += ready - clock
            self._take_step(images, labels)
            now = time.perf_counter()
            self.seconds += now - clock
            clock = now
            if self.epoch > epoch:
                self._end_epoch(clock)
            if progress:
                progress(self)
            if saver:
                saver.look(self)
                clock = time.perf_counter()  # writing is not training

    def _take_step(self, images: Tensor, labels: Tensor) -> None:
        if self.mixup:
            np.random.seed(mix_seeds(self.conditions.seed, self.step, 2) % 2**32)  # noqa: NPY002, what timm draws from
            images, labels = self.mixup(images, labels)
        self._draw_drop_paths(len(images))
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        with autocast(self.conditions):
            loss = self.loss(self.network(images), labels)
        self.optimizer.zero_grad()
        loss.backward()
        limit = self.conditions.clip_grad_norm or math.inf
        self.norms.append(nn.utils.clip_grad_norm_(self.model.parameters(), limit))
        self.optimizer.step()
        self.step += 1
        self.schedule.step_update(self.step)
        if self.average:
            self.average.update(self.model)
        self.losses.append(loss.detach())

    def _draw_drop_paths(self, share: int) -> None:
        """Draws which images of the whole batch keep which branch, and gives each its share: by seed, step and branch.

        So it is the same however many processes share the batch, and whatever else a model draws.
        """
        if not self.drop_paths:
            return
        size = share * self.ranks.count
        generator = torch.Generator().manual_seed(mix_seeds(self.conditions.seed, self.step, 3))
        draws = torch.rand(len(self.drop_paths), size, generator=generator)[:, self.ranks.share(size)]
        device = self.data.train_labels.device
        for module, own in zip(self.drop_paths, draws, strict=True):
            module.kept = (own >= module.rate).to(device)

    def _end_epoch(self, clock: float) -> None:
        """Adds the epoch that was just finished to the history, and begins the next."""
        losses = (self.ranks.add(torch.stack(self.losses)) / self.ranks.count).tolist()
        norms = torch.stack(self.norms).tolist()
        self.seconds += time.perf_counter() - clock  # until here the device was at work
        before = self.step - len(losses)
        for index, (loss, rate, norm) in enumerate(zip(losses, self.rates, norms, strict=True), 1):
            if not math.isfinite(loss):
                raise Diverged(before + index, rate, loss, norm)
        epoch = self.epoch - 1
        entry = {
            "epoch": epoch,
            "loss": sum(losses) / len(losses),
            "lr": self.rates[-1],
            "grad_norm": sum(norms) / len(norms),
            "seconds": self.seconds,
            "wait_s": self.wait_s,
        }
        every = self.conditions.eval_every
        if every and epoch % every == 0 and epoch < self.conditions.total_epochs:
            entry["top1"] = self.evaluate()["top1"]
        self.history.append(entry)
        self._begin_epoch()

    def evaluate(self, conditions: Accuracy | None = None, data: Data | None = None) -> dict[str, Any]:
        """Returns the scores of the model that counts, as `evaluate` does; on other data if they are given."""
        return evaluate(
            self.trained, data or self.data, conditions or self.conditions, ranks=self.ranks, workers=self.workers
        )

    def state(self) -> dict[str, Any]:
        """Returns all that a process needs to go on from here, as tensors and plain values."""
        generators = {"cpu": torch.get_rng_state()}
        if self.conditions.device == "cuda":
            generators["cuda"] = torch.cuda.get_rng_state()
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.module.state_dict() if self.average else {},
            "step": self.step,
            "history": self.history,
            "losses": torch.stack(self.losses) if self.losses else torch.empty(0),
            "norms": torch.stack(self.norms) if self.norms else torch.empty(0),
            "rates": self.rates,
            "seconds": self.seconds,
            "wait_s": self.wait_s,
            "generators": self.ranks.gather(generators),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on from a state of as many processes; the schedule follows from the number of steps."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.module.load_state_dict(state["average"])
        self.step = state["step"]
        self.schedule.step_update(self.step)
        self.history = state["history"]
        self._begin_epoch()
        device = self.data.train_labels.device
        self.losses = list(state["losses"].to(device).unbind())
        self.norms = list(state["norms"].to(device).unbind())
        self.rates, self.seconds, self.wait_s = state["rates"], state["seconds"], state["wait_s"]
        generators = state["generators"][self.ranks.rank]
        torch.set_rng_state(generators["cpu"])
        if self.conditions.device == "cuda":
            torch.cuda.set_rng_state(generators["cuda"])


class Saver:
    """Writes the checkpoints of one training: every so often, when its time is over, and when it is asked to stop.

    `made_by` says what its numbers depend on beside the conditions; a checkpoint that was made by another is not gone
    on from. `deadline` is in seconds of the monotonic clock.
    """

    def __init__(
        self,
        path: Path,
        made_by: dict[str, Any],
        *,
        deadline: float = math.inf,
    ) -> None:
        self.path, self.made_by, self.deadline = path, made_by, deadline
        self._saved = time.monotonic()
        self._asked: float | None = None

    def restore(self, training: Training) -> None:
        """Lets a training go on from the checkpoint, if there is one."""
        ranks = training.ranks
        shapes = {name: value.shape for name, value in training.model.state_dict().items()}
        state = load_checkpoint(self.path, self.made_by, shapes) if ranks.is_first else None
        state = ranks.tell_all(state)
        if state is not None:
            training.load_state(state)

    def look(self, training: Training, *, is_over: bool = False) -> None:
        """Saves where it is time to, or where the training is over.

        Raises OutOfTime or Stopped, after saving, where it has to end. A checkpoint that cannot be written is warned
        of, because the training itself can go on.
        """
        ranks, device = training.ranks, training.conditions.device
        if ranks.count > 1 and not is_over and training.step % AGREE_EVERY[device]:
            return
        wish = ranks.agree(max(self._wish(), _SAVE if is_over else _GO_ON), device)
        if wish == _GO_ON:
            return
        fault = self._save(training)
        if wish == _SAVE:
            if fault:
                print(f"warning: {fault}", file=sys.stderr)
            return
        done = training.step % training.steps_per_epoch
        where = f"in epoch {training.epoch} of {training.conditions.total_epochs}, after {done} of its steps"
        if is_over:
            where = "after its last step"
        if wish == _PAUSE:
            raise OutOfTime(f"the time is over {where}; {fault or 'a checkpoint is written'}")
        way_on = fault or "a checkpoint is written, and the same command goes on from there"
        raise Stopped(f"stopped {where}; {way_on}")

    def _save(self, training: Training) -> InputError | None:
        """Writes a checkpoint; returns what was wrong where it could not."""
        state = training.state()
        self._saved = time.monotonic()
        if training.ranks.is_first:
            try:
                save_checkpoint(self.path, state | {"made_by": self.made_by})
            except InputError as error:
                return error
        return None

    def _wish(self) -> int:
        if self._asked is not None:
            return _STOP
        now = time.monotonic()
        if now >= self.deadline:
            return _PAUSE
        return _SAVE if now - self._saved >= CHECKPOINT_EVERY_S else _GO_ON

    @contextmanager
    def catching_signals(self) -> Iterator[None]:
        """Has SIGINT and SIGTERM stop the training after its step; another, later one stops the process as before."""
        if threading.current_thread() is not threading.main_thread():
            yield  # which Python gives no signals
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}

        def ask(number: int, base: Any) -> None:
            now = time.monotonic()
            if self._asked is None:
                self._asked = now
            elif now - self._asked > ONE_REQUEST_S:
                for each, handler in before.items():
                    signal.signal(each, handler)
                signal.raise_signal(number)

        for number in before:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
