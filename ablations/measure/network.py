"""From cells to modules: an arm or a named model, as a classifier or with another head on it."""

import copy
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ablations.baselines.build import build_baseline, build_baseline_backbone, check_baseline, parse_options
from ablations.baselines.guest import state_kept
from ablations.baselines.registry import MODELS
from ablations.cells import Cell
from ablations.config import ARMS, as_pair
from ablations.errors import first_line, refuse
from ablations.heads.detection import build_fcos, build_mask_rcnn, build_retinanet, dense_part
from ablations.heads.segmentation import SemanticFPN
from ablations.measure.cost import Cost
from ablations.measure.macs import UncountedOperator, copy_on_cpu, copy_to_meta, input_dtype, is_about_numbers
from ablations.measure.measurement import Setting
from ablations.measure.memory import parse_stages
from ablations.model import PVT, build_model
from ablations.model.transfer import transfer_weights
from ablations.model.weights_file import read_weights_file

HEADS: dict[str, Callable[..., nn.Module]] = {
    "retinanet": build_retinanet,
    "mask_rcnn": build_mask_rcnn,
    "fcos": build_fcos,
    "semantic_fpn": SemanticFPN,
}

HEAD_SEED = 4
"""What the seed of a head that is trained is mixed with, beside the training's."""


class StageMaps(nn.Module):
    """A PVT as a backbone: images (B, C, H, W) to the maps of its stages."""

    def __init__(self, model: PVT) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        return self.model.forward_intermediates(x, intermediates_only=True)


def build_network(cell: Cell) -> nn.Module:
    """Returns the whole network that a cell measures, on the current default device; of a detector's step its part.

    Raises InputError for a model that nobody knows or that cannot have the head.
    """
    head = head_of(cell)
    if head == "classifier":
        if cell.config is not None:
            return _build_arm(cell)
        return _build_trainable(cell) if cell.conditions.trains else build_baseline(cell.source)
    network = HEADS[head](*_build_backbone(cell))
    part = network if isinstance(cell.conditions, Cost) else traceable_part(network, head)
    assert part is not None, "a step has no head whose work an image's content decides"
    return part


def head_of(cell: Cell) -> str:
    """Returns what stands on a cell's backbone."""
    return getattr(cell.conditions, "head", "classifier")


def _build_arm(cell: Cell) -> PVT:
    model = build_model(cell.arm_config, seed=getattr(cell.conditions, "seed", None))
    stages = [stage - 1 for stage in parse_stages(getattr(cell.conditions, "checkpointing", "none"))]
    model.set_grad_checkpointing(bool(stages), stages)
    return model


def _build_backbone(cell: Cell) -> tuple[nn.Module, tuple[int, ...]]:
    """Returns a module that gives four maps, and their widths."""
    if cell.config is None:
        return build_baseline_backbone(cell.source)
    return StageMaps(_build_arm(cell)), cell.config.embed_dims


def build_dense_network(cell: Cell, num_classes: int) -> nn.Module:
    """Returns the network of detection or segmentation that a cell trains, with the initial weights of its seed.

    The head's weights do not depend on the backbone, so arms with one seed begin with the same head. Raises InputError
    for a model that cannot have the head.
    """
    from ablations.training.batches import mix_seeds

    conditions: Any = cell.conditions
    if cell.config is None:
        check_baseline(cell.source)
    backbone, channels = _build_backbone(cell)
    options = {"width": conditions.pyramid_width}
    if hasattr(conditions, "smallest_anchor"):  # of detectors
        sizes = {"min_size": conditions.resolution, "max_size": conditions.long_side}
        options |= sizes | {"smallest_anchor": conditions.smallest_anchor}
    with torch.random.fork_rng([]):
        torch.manual_seed(mix_seeds(conditions.seed, HEAD_SEED))
        return HEADS[conditions.head](backbone, channels, num_classes, **options)


def backbone_of(network: nn.Module) -> nn.Module:
    """Returns the backbone below the head of a network of `build_dense_network`; a PVT without what gives its maps."""
    backbone: Any = network.backbone
    body = getattr(backbone, "body", backbone)
    return body.model if isinstance(body, StageMaps) else body


def load_initial(model: nn.Module, cell: Cell, setting: Setting) -> dict[str, Any]:
    """Loads the file of weights that a cell's training begins from into its arm, and returns what a record says of it.

    Nothing where it begins from scratch. Raises InputError for a file that does not fit, and for a model that is no
    arm, whose own library has its weights.
    """
    if not cell.conditions.init:
        return {}
    path = setting.weights
    if path is None:
        raise refuse("init", cell.conditions.init, "a file of weights, by --init, or a study's classifiers")
    if not isinstance(model, PVT):
        raise refuse("init", path.name, f"none for {cell.source}: weights are loaded into arms alone")
    weights = read_weights_file(path)
    if re.fullmatch("[0-9a-f]{64}", cell.conditions.init):  # else it names a study
        weights.check_digest(cell.conditions.init, "loaded")
    report = transfer_weights(model, weights)
    told = {"format": report.format, "unused": list(report.unused), "resized": list(report.resized)}
    return {"sha256": weights.sha256, **told}


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
    if input_dtype(network) != torch.float32:
        raise refuse("model", model, f"one with weights of float32, not {input_dtype(network)}")
    image = torch.zeros(1, 3, conditions.resolution, conditions.resolution)
    try:
        with state_kept(), torch.no_grad():
            network.eval()(image)  # which a lazy layer waits for
    except REFUSALS as error:
        raise refuse("resolution", conditions.resolution, f"a size that {model} takes ({first_line(error)})") from error
    check_answers(network, model, tuple(image.shape), conditions.num_classes)
    return network


def check_answers(network: nn.Module, model: str, shape: tuple[int, ...], num_classes: int | None = None) -> None:
    """Raises InputError unless a model answers images with logits (B, K), in evaluation and in training.

    K is `num_classes` where it is given. A model that does not take the shape is not refused here.
    """
    for training in (False, True):
        images = (2, *shape[1:])  # of one image batch norm cannot train
        try:
            with state_kept(), torch.no_grad():
                answer = _answer(network, images, training)
        except Exception:  # whatever keeps it from answering is the cell's to say
            continue
        found = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        classes = found[1] if isinstance(answer, Tensor) and answer.ndim == 2 else 0
        if not isinstance(answer, Tensor) or found != (2, num_classes or max(classes, 2)):
            mode = "training" if training else "evaluation"
            raise refuse("model", model, f"one that returns (B, {num_classes or 'K'}) logits in {mode}, not {found}")


def _answer(network: nn.Module, shape: tuple[int, ...], training: bool) -> Any:
    """Returns what a copy of a network answers, on shapes alone where it can."""
    dtype = input_dtype(network)
    try:
        return copy_to_meta(network).train(training)(torch.empty(shape, device="meta", dtype=dtype))
    except (RuntimeError, TypeError) as error:
        if not is_about_numbers(error):
            raise
        return copy_on_cpu(network).train(training)(torch.zeros(shape, dtype=dtype))


def build_network_on(device: str, cell: Cell) -> Any:
    """Returns `build_network`'s on a device, with the same fresh weights every time."""
    torch.manual_seed(0)
    with torch.device(device):
        return made_ready(build_network(cell), input_shape(cell))


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
    unknown = [cell for cell in baselines if cell.source not in MODELS.values() or head_of(cell) != "classifier"]
    for cell in dict.fromkeys(map(at_any_size, unknown)):
        network = meta_network(cell)
        if getattr(cell.conditions, "mode", "") == "training":
            check_answers(network, cell.source, input_shape(cell))


def at_any_size(cell: Cell) -> Cell:
    """Returns the cell at the default size: it has the same network."""
    return replace(cell, conditions=replace(cell.conditions, resolution=Cost.resolution))


SIZES = (
    *(224, 256, 384, 512, 128, 64, 32, 1024),
    *(96, 112, 160, 192, 240, 288, 299, 320, 336, 448, 480, 518, 600, 640, 768, 2048),
)
"""Sides at which a model is tried that does not take another, in pixels."""


REFUSALS = (AssertionError, RuntimeError, ValueError)
"""What models raise at a size that they do not take."""


def refusal(error: Exception, cell: Cell, network: nn.Module, shape: tuple[int, ...]) -> str:
    """Returns why a model that is no arm does not take a size, by its error; raises the error if it says another thing.

    It is about the size where it is not about operators, and the model runs at another size.
    """
    about_others = cell.config is not None or isinstance(error, UncountedOperator) or is_about_numbers(error)
    sides = [] if about_others else [side for side in SIZES if (side, side) != shape[2:]]
    if any(_takes(network, (1, shape[1], side, side)) for side in sides):
        return first_line(error)
    raise error


def _takes(network: nn.Module, shape: tuple[int, ...]) -> bool:
    try:
        with state_kept(), torch.no_grad():
            _answer(network, shape, training=False)
    except Exception:  # whatever it may be
        return False
    return True


def made_ready(network: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Returns a network whose lazy layers have seen images of a shape; the same one where it has none."""
    weights = chain(network.parameters(), network.buffers())
    if not any(map(is_lazy, weights)):
        return network
    ready = copy.deepcopy(network)
    with state_kept(), torch.no_grad(), torch.device("cpu"):
        ready.cpu().eval()(torch.zeros(shape))
    return ready


def input_shape(cell: Cell, batch_size: int = 1) -> tuple[int, int, int, int]:
    """Returns (B, C, H, W)."""
    in_chans = cell.config.in_chans if cell.config else count_channels(cell.source)
    return (batch_size, in_chans, *as_pair(cell.conditions.resolution))


def count_channels(source: str) -> int:
    """Returns how many channels a model's images have: timm's are told, a file's that does not take 3 is asked."""
    if source.startswith("timm:"):
        return int(parse_options(source.partition("?")[2]).get("in_chans", 3))
    return _count_channels_of_file(source) if ".py:" in source else 3


@lru_cache
def _count_channels_of_file(source: str) -> int:
    network = build_baseline(source)
    first = next((each.in_channels for each in network.modules() if isinstance(each, nn.Conv2d)), 3)
    if first == 3 or any(_takes(network, (1, 3, side, side)) for side in SIZES):
        return 3
    return first if any(_takes(network, (1, first, side, side)) for side in SIZES) else 3
