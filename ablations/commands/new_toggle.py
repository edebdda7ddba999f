"""The command `new-toggle`: a file to begin a toggle from."""

from dataclasses import dataclass, field
from typing import Any

from ablations.commands.shared_flags import Command
from ablations.flags import POSITIONAL
from ablations.skeletons import render_skeleton


@dataclass(frozen=True, kw_only=True)
class NewToggleFile(Command):
    """Print a file with a toggle of your own that runs at once, its shapes in comments."""

    slot: str = field(metadata=POSITIONAL)
    """What it replaces: attention (attn), mlp, norm, patch_embed, pos_embed, pool, or the whole block."""

    def run(self, *_: Any) -> int:
        print(render_skeleton(self.slot), end="")
        return 0
