"""Honest architecture ablations of the Pyramid Vision Transformer, v1 to v2.

The names of PUBLIC are imported from here, each with its module when it is first asked for: describing and counting
need no torch.
"""

from importlib import import_module
from typing import Any

PUBLIC = {
    **dict.fromkeys(("PVTConfig", "build_config"), "config"),
    **dict.fromkeys(("PVT", "build_model"), "model"),
    **dict.fromkeys(("load_weights", "export_weights", "load_model"), "model.checkpoint"),
    **dict.fromkeys(("count_macs", "count_params"), "cost"),
    "load_records": "records",
}
"""What is public, and the module of this package in which it stands."""


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *PUBLIC]
