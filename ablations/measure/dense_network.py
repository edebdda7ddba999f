"""Networks of detection and segmentation for training: a backbone of a cell, its weights, and a head on it."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ablations.baselines.build import build_baseline_backbone, check_baseline
from ablations.cells import Cell
from ablations.errors import InputError, refuse
from ablations.heads.detection import build_fcos, build_mask_rcnn, build_retinanet
from ablations.heads.segmentation import SemanticFPN
from ablations.measure.measurement import Setting
from ablations.measure.network import StageMaps
from ablations.model import build_model
from ablations.model.backbone_weights import load_backbone_weights

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
    """Returns the backbone below the head of a network of `build_dense_network`."""
    backbone: Any = network.backbone
    return getattr(backbone, "body", backbone)


def check_init(cell: Cell, setting: Setting) -> None:
    """Raises InputError for a file of weights that does not fit the backbone."""
    load_backbone(build_dense_network(cell, 2), cell, setting)


def load_backbone(network: nn.Module, cell: Cell, setting: Setting) -> dict[str, Any]:
    """Loads the file of weights that a cell begins from into its backbone, and returns what a record says of it.

    Nothing where it begins from scratch. Raises InputError for a file that does not fit, and for a model that is no
    arm, whose own library has its weights.
    """
    if not cell.conditions.init:
        return {}
    path = setting.weights
    if path is None:
        raise refuse("init", cell.conditions.init, "a file of weights, by --init, or a study's classifiers")
    if cell.config is None:
        raise refuse("init", str(path.name), f"none for {cell.source}: weights are loaded into arms alone")
    backbone: Any = backbone_of(network)
    report = load_backbone_weights(backbone.model, path)
    return {
        "sha256": digest_file(path),
        "format": report.format,
        "unused": list(report.unused),
        "resized": list(report.resized),
    }


def digest_file(path: Path) -> str:
    """Returns the SHA-256 of a file; raises InputError where it is none."""
    if not path.is_file():
        raise InputError(f"init={str(path)!r} is not possible; allowed: a file of weights")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
