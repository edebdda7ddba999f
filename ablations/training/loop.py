"""Training from scratch, step by step; `ablations.training.resume` stops and resumes it."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ablations.model.pvt import DropPath
from ablations.schema import check_result
from ablations.training.batches import mix_seeds
from ablations.training.distributed import ALONE, Ranks
from ablations.training.recipe import autocast
from ablations.training.tasks import build_task, say_smaller


class Diverged(RuntimeError):
    """The loss was not finite: at `step` (from 1, over all epochs), with this learning rate and gradient norm."""

    def __init__(self, step: int, lr: float, loss: float, grad_norm: float) -> None:
        super().__init__(f"the loss is {loss} at step {step}, learning rate {lr:.3g}, gradient norm {grad_norm:.3g}")
        self.step, self.lr, self.loss, self.grad_norm = step, lr, loss, grad_norm


class Training:
    """A model on its way through a recipe.

    `model` is trained in place; it and `data` are on one device. `history` has one entry for each finished epoch:
    `epoch` (from 1), `loss` (the mean of its steps), `lr` (of its last step), `grad_norm` (the mean, before clipping),
    `seconds` (without evaluation), `wait_s` (of these, waiting for images) and the task's score where one was evaluated
    on the way. Raises InputError for batches that the processes cannot share.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Any,
        conditions: Any,
        *,
        ranks: Ranks = ALONE,
        workers: int = 0,
    ) -> None:
        self.model, self.data, self.conditions = model, data, conditions
        self.ranks, self.workers = ranks, workers
        self.task = build_task(data, conditions)
        self.steps_per_epoch, self.total_steps = self.task.steps_per_epoch, self.task.total_steps
        self.ranks.check_batch(self.task.images_per_step)
        if self.ranks.is_first and self.task.images_per_step < conditions.batch_size:
            say_smaller(conditions.batch_size, self.task.images_per_step)
        self.optimizer = self.task.build_optimizer(model)
        self.schedule = self.task.build_schedule(self.optimizer)
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
    def total_epochs(self) -> int:
        """Epochs of the whole training; of the last one only a part may be trained."""
        return math.ceil(self.total_steps / self.steps_per_epoch)

    @property
    def trained(self) -> nn.Module:
        """The model that counts: the moving average of the weights where there is one."""
        return self.average.module if self.average else self.model

    def run(
        self, *, progress: Callable[["Training"], None] | None = None, save: Callable[["Training"], None] | None = None
    ) -> None:
        """Trains from where it stands to the end.

        `progress` is called after each step, then `save`, whose time is not training's. Nothing waits for the device
        within an epoch, so a loss that is not finite raises Diverged at its end.
        """
        while self.step < self.total_steps:
            self._run_epoch(progress, save)

    def _run_epoch(
        self, progress: Callable[["Training"], None] | None, save: Callable[["Training"], None] | None
    ) -> None:
        self.network.train()
        first_step = self.step % self.steps_per_epoch
        batches = self.task.batches(self.epoch, first_step=first_step, ranks=self.ranks, workers=self.workers)
        clock = time.perf_counter()
        for images, targets in batches:
            ready = time.perf_counter()
            self.wait_s += ready - clock
            self._take_step(images, targets)
            now = time.perf_counter()
            self.seconds += now - clock
            clock = now
            if self.step % self.steps_per_epoch == 0 or self.step == self.total_steps:
                self._end_epoch(clock)
            if progress:
                progress(self)
            if save:
                save(self)
                clock = time.perf_counter()
            if self.step == self.total_steps:
                return

    def _take_step(self, images: Any, targets: Any) -> None:
        parts = self.task.split(*self.task.mix(images, targets, self.step))
        kept = self._draw_drop_paths(len(images))
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        self.optimizer.zero_grad()
        losses = []
        for number, part in enumerate(parts):
            for module, own in zip(self.drop_paths, kept, strict=True):
                module.kept = own.chunk(len(parts))[number]
            # Several processes add up their gradients once, at the last part.
            waits = self.ranks.count > 1 and number + 1 < len(parts)
            with self.network.no_sync() if waits else nullcontext():  # type: ignore[operator]
                with autocast(self.conditions):
                    loss = self.task.loss(self.network, *part) / len(parts)
                loss.backward()
            losses.append(loss.detach())
        limit = self.conditions.clip_grad_norm or math.inf
        self.norms.append(nn.utils.clip_grad_norm_(self.model.parameters(), limit))
        self.optimizer.step()
        self.step += 1
        self.schedule.step_update(self.step)
        if self.average:
            self.average.update(self.model)
        self.losses.append(torch.stack(losses).sum() if len(losses) > 1 else losses[0])

    def _draw_drop_paths(self, share: int) -> Tensor:
        """Draws which images of the whole batch keep which branch, by seed, step and branch: (branches, own images).

        So it is the same however many processes share the batch, and whatever else a model draws.
        """
        if not self.drop_paths:
            return torch.empty(0)
        size = share * self.ranks.count
        generator = torch.Generator().manual_seed(mix_seeds(self.conditions.seed, self.step, 3))
        draws = torch.rand(len(self.drop_paths), size, generator=generator)[:, self.ranks.share(size)]
        kept = [own >= module.rate for module, own in zip(self.drop_paths, draws, strict=True)]
        return torch.stack(kept).to(self.task.device)

    def _end_epoch(self, clock: float) -> None:
        """Adds the epoch that was just finished to the history, and begins the next."""
        losses = (self.ranks.add(torch.stack(self.losses)) / self.ranks.count).tolist()
        norms = torch.stack(self.norms).tolist()
        self.seconds += time.perf_counter() - clock  # until here the device was at work
        before = self.step - len(losses)
        for index, (loss, rate, norm) in enumerate(zip(losses, self.rates, norms, strict=True), 1):
            if not math.isfinite(loss):
                raise Diverged(before + index, rate, loss, norm)
        epoch = math.ceil(self.step / self.steps_per_epoch)
        entry = {
            "epoch": epoch,
            "loss": sum(losses) / len(losses),
            "lr": self.rates[-1],
            "grad_norm": sum(norms) / len(norms),
            "seconds": self.seconds,
            "wait_s": self.wait_s,
        }
        every = self.conditions.eval_every
        if every and epoch % every == 0 and epoch < self.total_epochs:
            entry[self.task.score] = self.evaluate()[self.task.score]
        self.history.append(entry)
        self._begin_epoch()

    def evaluate(self) -> dict[str, Any]:
        """Returns the task's scores of the model that counts."""
        return self.task.evaluate(self.trained, ranks=self.ranks, workers=self.workers)

    def summary(self) -> dict[str, Any]:
        """Returns what a record says of a finished training: `peak_lr`, `history`, `train_s` (the epochs without
        loading and evaluation), `train_img_per_s` and `wait_fraction` (of `train_s`, waiting for images)."""
        seconds = sum(entry["seconds"] for entry in self.history)
        return {
            "peak_lr": self.conditions.peak_lr,
            "history": self.history,
            "train_s": seconds,
            "train_img_per_s": self.step * self.task.images_per_step / seconds,
            "wait_fraction": sum(entry["wait_s"] for entry in self.history) / seconds,
        }

    def state(self) -> dict[str, Any]:
        """Returns all that a process needs to resume from here, as tensors and plain values."""
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
        """Resumes from a state of as many processes; the schedule follows from the number of steps.

        Raises an error, with the training in no state to be used, for one that is not this training's.
        """
        epochs, steps = divmod(state["step"], self.steps_per_epoch)
        if state["step"] == self.total_steps:  # which may be amid an epoch
            epochs, steps = self.total_epochs, 0
        lengths = [len(state[name]) for name in ("history", "losses", "norms", "rates")]
        if not 0 <= epochs <= self.total_epochs or lengths != [epochs, steps, steps, steps]:
            raise ValueError(f"step {state['step']} with {lengths[0]} epochs and {lengths[1:]} steps")
        check_result(self.conditions.name, {"history": state["history"]})
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for parameter, values in self.optimizer.state.items():
            if wrong := [name for name, value in values.items() if name != "step" and value.shape != parameter.shape]:
                raise ValueError(f"{wrong[0]} of the optimizer has another shape than its parameter")
        if self.average:
            self.average.module.load_state_dict(state["average"])
        self.step = state["step"]
        self.schedule.step_update(self.step)
        self.history = state["history"]
        self._begin_epoch()
        device = self.task.device
        self.losses = list(state["losses"].to(device).unbind())
        self.norms = list(state["norms"].to(device).unbind())
        self.rates, self.seconds, self.wait_s = state["rates"], state["seconds"], state["wait_s"]
        generators = state["generators"][self.ranks.rank]
        torch.set_rng_state(generators["cpu"])
        if self.conditions.device == "cuda":
            torch.cuda.set_rng_state(generators["cuda"])
