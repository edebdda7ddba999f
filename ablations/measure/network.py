"""From cells to modules: an arm or a named model, as a classifier or with another head on it."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from ablations.baselines.build import build_baseline, build_baseline_backbone, check_baseline
from ablations.baselines.registry import MODELS
from ablations.cells import Cell
from ablations.config import ARMS, as_pair
from ablations.errors import first_line, refuse
from ablations.heads.detection import build_fcos, build_mask_rcnn, build_retinanet, dense_part
from ablations.heads.segmentation import SemanticFPN
from ablations.measure.cost import Cost
from ablations.measure.macs import UncountedOperator
from ablations.measure.memory import parse_stages
from ablations.model import PVT, build_model

HEADS: dict[str, Callable[[nn.Module, tuple[int, ...]], nn.Module]] = {
    "retinanet": build_retinanet,
    "mask_rcnn": build_mask_rcnn,
    "fcos": build_fcos,
    "semantic_fpn": SemanticFPN,
}


class StageMaps(nn.Module):
    """A PVT as a backbone: images (B, C, H, W) to the maps of its stages."""

    def __init__(self, model: PVT) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        return self.model.forward_intermediates(x, intermediates_only=True)


def build_network(cell: Cell) -> nn.Module:
    """Returns the whole network that a cell measures, on the current default device.

    Raises InputError for a model that nobody knows or that cannot have the head.
    """
    conditions, config = cell.conditions, cell.config
    head = getattr(conditions, "head", "classifier")
    if head != "classifier":
        if config is None:
            return HEADS[head](*build_baseline_backbone(cell.source))
        return HEADS[head](StageMaps(build_model(config)), config.embed_dims)
    if config is None:
        return _build_trainable(cell) if conditions.trains else build_baseline(cell.source)
    model = build_model(config, seed=getattr(conditions, "seed", None))
    stages = [stage - 1 for stage in parse_stages(getattr(conditions, "checkpointing", "none"))]
    model.set_grad_checkpointing(bool(stages), stages)
    return model


def _build_trainable(cell: Cell) -> nn.Module:
    """Returns a model that is no arm with the classes and the drop path of the conditions; timm's can have both.

    Raises InputError for a model of any other source that has not as many classes, and for a size that it refuses.
    """
    conditions: Any = cell.conditions
    model = cell.source
    options: dict[str, Any] = {"num_classes": conditions.num_classes}
    if conditions.drop_path_rate:
        if not model.startswith("timm:"):
            raise refuse("drop_path_rate", conditions.drop_path_rate, f"0 for {model}, which is not told of it")
        options["drop_path_rate"] = conditions.drop_path_rate
    for name in ("num_classes", "drop_path_rate"):
        if f"{name}=" in model.partition("?")[2]:
            raise refuse("model", model, f"no {name} among its options: it is a field of the recipe")
    network = build_baseline(model, **options)
    image = torch.zeros(1, 3, conditions.resolution, conditions.resolution)
    try:
        with torch.random.fork_rng([]), torch.no_grad():
            logits = network.eval()(image)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise refuse("resolution", conditions.resolution, f"a size that {model} takes ({first_line(error)})") from error
    if logits.shape != (1, conditions.num_classes):
        raise refuse(
            "model", model, f"one that returns (B, {conditions.num_classes}) logits, not {tuple(logits.shape)}"
        )
    return network


def build_network_on(device: str, cell: Cell) -> Any:
    """Returns `build_network`'s on a device, with the same fresh weights every time."""
    torch.manual_seed(0)
    with torch.device(device):
        return build_network(cell)


@lru_cache(maxsize=2 * len(ARMS))
def meta_network(cell: Cell) -> nn.Module:
    """Returns the network of a cell without numbers; the same one for equal cells."""
    with torch.device("meta"):
        return build_network(cell)


def traceable_part(network: nn.Module, head: str) -> nn.Module | None:
    """Returns the part of a network whose work the size of an image decides; None where its content decides more."""
    if head == "mask_rcnn":
        return None
    return dense_part(network) if head in ("retinanet", "fcos") else network


def check_builds(cells: Iterable[Cell]) -> None:
    """Raises InputError for models that are no arms and cannot be built; a file may hold another model by now."""
    baselines = [cell for cell in cells if cell.config is None]
    for cell in baselines:
        check_baseline(cell.source)
    meta_network.cache_clear()
    known = {cell for cell in baselines if cell.source in MODELS.values() and not _has_other_head(cell)}
    for cell in dict.fromkeys(at_any_size(cell) for cell in baselines if cell not in known):
        meta_network(cell)


def _has_other_head(cell: Cell) -> bool:
    return getattr(cell.conditions, "head", "classifier") != "classifier"


def at_any_size(cell: Cell) -> Cell:
    """Returns the cell at the default size: it has the same network."""
    return replace(cell, conditions=replace(cell.conditions, resolution=Cost.resolution))


def is_refusal(error: Exception) -> bool:
    """Whether a model's error is about its input's size: not about operators, or about tensors without numbers."""
    return not isinstance(error, UncountedOperator | NotImplementedError) and "meta" not in str(error)


def input_shape(cell: Cell, batch_size: int = 1) -> tuple[int, int, int, int]:
    """Returns (B, C, H, W)."""
    in_chans = cell.config.in_chans if cell.config else 3
    return (batch_size, in_chans, *as_pair(cell.conditions.resolution))
