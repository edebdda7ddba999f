"""Logs of a training on its way: a file of JSON lines, one an epoch, and TensorBoard's."""

import json
from pathlib import Path
from typing import Any

from ablations.errors import InputError
from ablations.files import write_text


class Logs:
    """Writes the history of one training to `lines`, and to the folder `tensorboard` where one is given.

    Raises InputError where TensorBoard's writer is not installed.
    """

    def __init__(self, lines: Path, tensorboard: Path | None = None) -> None:
        self.lines = lines
        self.tensorboard = tensorboard
        self._writer: Any = None
        if tensorboard:
            check_tensorboard()

    def write(self, history: list[dict[str, Any]]) -> None:
        """Writes all lines, so that a resumed training's file has each epoch once, and the last epoch's scalars."""
        write_text(self.lines, "".join(json.dumps(entry) + "\n" for entry in history))
        if self.tensorboard:
            entry = history[-1]
            if not self._writer:
                from torch.utils.tensorboard import SummaryWriter

                self._writer = SummaryWriter(str(self.tensorboard), purge_step=entry["epoch"])
            for name, value in entry.items():
                if name != "epoch":
                    self._writer.add_scalar(name, value, entry["epoch"])
            self._writer.flush()


def check_tensorboard() -> None:
    """Raises InputError where TensorBoard's writer is not installed."""
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise InputError("tensorboard=True needs the package tensorboard, which is not installed") from error
