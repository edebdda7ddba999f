"""The models for torch.hub: `torch.hub.load(FOLDER, "pvt_v2_b2", source="local", num_classes=10)`.

torch.hub takes every public callable here for an entry, so what is imported has an underscore.
"""

from collections.abc import Callable as _Callable
from typing import Any as _Any

from ablations import config as _config
from ablations import model as _model
from ablations.model import checkpoint as _checkpoint

dependencies = ["torch", "timm", "safetensors"]


def pvt(
    variant: str = "b2",
    arm: str = _config.PVT_V2,
    base: str = "v2",
    weights: str | None = None,
    **fields: _Any,
) -> _model.PVT:
    """Returns any arm in any base, with fields of PVTConfig and the weights of a file if they are given."""
    model = _model.build_model(_config.build_config(variant, arm, base, **fields))
    if weights:
        _checkpoint.load_weights(model, weights)
    return model


def pvt_from_file(weights: str) -> _model.PVT:
    """Returns the model of a file of weights that a training here wrote, in evaluation mode."""
    return _checkpoint.load_model(weights)


def _entry(name: str, variant: str, arm: str) -> _Callable[..., _model.PVT]:
    def create(weights: str | None = None, **fields: _Any) -> _model.PVT:
        return pvt(variant, arm, "published", weights, **fields)

    create.__doc__ = f"Returns {name}, with fields of PVTConfig and the weights of a file if they are given."
    return create


for _name, (_variant, _arm) in _config.PUBLISHED_MODELS.items():
    # PVTv2-B2-Li is pvt_v2_b2_li, as in timm.
    globals()[_name.lower().replace("-", "_").replace("pvtv", "pvt_v")] = _entry(_name, _variant, _arm)
