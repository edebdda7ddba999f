"""Networks of detection and segmentation for training: a backbone of a cell, its weights, and a head on it."""

from typing import Any

import torch
from torch import nn

from ablations.baselines.build import build_baseline_backbone, check_baseline
from ablations.cells import Cell
from ablations.heads.detection import build_fcos, build_mask_rcnn, build_retinanet
from ablations.heads.segmentation import SemanticFPN
from ablations.measure.network import StageMaps
from ablations.model import build_model

DETECTORS = {"retinanet": build_retinanet, "fcos": build_fcos, "mask_rcnn": build_mask_rcnn}

HEAD_SEED = 4
"""What the seed of a head is mixed with, beside the training's."""


def build_dense_network(cell: Cell, num_classes: int) -> nn.Module:
    """Returns the network that a cell trains, with the initial weights of its seed.

    The head's weights do not depend on the backbone, so arms with one seed begin with the same head. Raises InputError
    for a model that cannot have the head.
    """
    from ablations.training.batches import mix_seeds

    conditions: Any = cell.conditions
    if cell.config is None:
        check_baseline(cell.source)
        backbone, channels = build_baseline_backbone(cell.source)
    else:
        backbone = StageMaps(build_model(cell.config, seed=conditions.seed))
        channels = cell.config.embed_dims
    with torch.random.fork_rng([]):
        torch.manual_seed(mix_seeds(conditions.seed, HEAD_SEED))
        if conditions.head not in DETECTORS:
            return SemanticFPN(backbone, channels, num_classes, width=conditions.pyramid_width)
        return DETECTORS[conditions.head](
            backbone,
            channels,
            num_classes,
            width=conditions.pyramid_width,
            smallest_anchor=conditions.smallest_anchor,
            min_size=conditions.resolution,
            max_size=conditions.long_side,
        )


def backbone_of(network: nn.Module) -> nn.Module:
    """Returns the backbone below the head of a network of `build_dense_network`; a PVT without what gives its maps."""
    backbone: Any = network.backbone
    body = getattr(backbone, "body", backbone)
    return body.model if isinstance(body, StageMaps) else body
