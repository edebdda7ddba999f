"""From cells to modules: an arm or a named model, as a classifier or with another head on it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ablations.baselines.build import build_baseline, build_baseline_backbone
from ablations.design import Accuracy, AnyCell, Cell, Cost, Memory, ModelCell, parse_stages
from ablations.errors import first_line, refuse
from ablations.heads.detection import build_fcos, build_mask_rcnn, build_retinanet, dense_part
from ablations.heads.segmentation import SemanticFPN
from ablations.model import PVT, build_model

HEADS: dict[str, Callable[[nn.Module, tuple[int, ...]], nn.Module]] = {
    "retinanet": build_retinanet,
    "mask_rcnn": build_mask_rcnn,
    "fcos": build_fcos,
    "semantic_fpn": SemanticFPN,
}


class StageMaps(nn.Module):
    """A PVT as a backbone: images (B, C, H, W) to the maps of its four stages."""

    def __init__(self, model: PVT) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        return self.model.forward_intermediates(x, intermediates_only=True)


def build_network(cell: AnyCell) -> nn.Module:
    """Returns the whole network that a cell measures, on the current default device.

    Raises InputError for a model that nobody knows or that cannot have the head.
    """
    if isinstance(cell, ModelCell) and isinstance(cell.conditions, Accuracy):
        return _build_trainable(cell.source, cell.conditions)
    head = cell.conditions.head if isinstance(cell.conditions, Cost) else "classifier"
    if head == "classifier":
        if not isinstance(cell, Cell):
            return build_baseline(cell.source)
        network = build_model(cell.config, seed=getattr(cell.conditions, "seed", None))
        if isinstance(cell.conditions, Memory):
            stages = [stage - 1 for stage in parse_stages(cell.conditions.checkpointing)]
            network.set_grad_checkpointing(bool(stages), stages)
        return network
    if isinstance(cell, Cell):
        return HEADS[head](StageMaps(build_model(cell.config)), cell.config.embed_dims)
    return HEADS[head](*build_baseline_backbone(cell.source))


def _build_trainable(model: str, conditions: Accuracy) -> nn.Module:
    """Returns a model that is no arm with the classes and the drop path of the conditions; timm's can have both.

    Raises InputError for a model of any other source that has not as many classes, and for a size that it refuses.
    """
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


def build_network_on(device: str, cell: AnyCell) -> nn.Module:
    """Returns `build_network`'s on a device, with the same fresh weights every time."""
    torch.manual_seed(0)
    with torch.device(device):
        return build_network(cell)


def traceable_part(network: nn.Module, head: str) -> nn.Module | None:
    """Returns the part of a network whose work the size of an image decides; None where its content decides more."""
    if head == "mask_rcnn":
        return None
    return dense_part(network) if head in ("retinanet", "fcos") else network
