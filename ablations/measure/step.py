"""What is measured: one inference or one training step. Memory and speed are taken of the same step."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NotRequired, TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torchvision.ops import sigmoid_focal_loss

from ablations.errors import pick
from ablations.measure.environment import check_device
from ablations.measure.macs import input_dtype
from ablations.model import PVT

FUSED_KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}
"""CUDA's kernels that never store the score matrix. Left to itself torch takes the one that does where these cannot."""


def fused_kernels(model: nn.Module, device: str | torch.device) -> tuple[str, ...]:
    """Returns the names of the kernels to which attention is held in the model's steps on a device; none for any.

    Only a model whose `config.attention` is `fused` is held to them: what others attend by is theirs to say.
    """
    # An arm may be the backbone of something else.
    attention = next((each.config.attention for each in model.modules() if isinstance(each, PVT)), None)
    return tuple(FUSED_KERNELS) if attention == "fused" and torch.device(device).type == "cuda" else ()


def only_kernels(names: tuple[str, ...]) -> AbstractContextManager[object]:
    """Has attention raise RuntimeError where no kernel of these names can run; without names all may."""
    return sdpa_kernel([FUSED_KERNELS[name] for name in names]) if names else nullcontext()


class StepOptions(TypedDict):
    """What a step, its measurement and its prediction are told of the conditions."""

    mode: str
    precision: str
    device: str | torch.device
    channels_last: NotRequired[bool]
    """How the batch and the weights of convolutions lie in memory, by default so; else weights stay as they are."""


def step_loss(answers: Tensor | dict[str, Tensor], labels: Tensor) -> Tensor:
    """Returns what a training step minimises: for a classifier's logits (B, C) cross-entropy on labels (B).

    For logits (B, C, H, W) it is that of every pixel. For a detector's answers (B, places and anchors, numbers) by name
    it is torchvision's losses over all places, as if each was background: focal loss of scores, L1 of boxes, binary
    cross-entropy of centres; matching boxes to places is left out.
    """
    if isinstance(answers, Tensor):
        return F.cross_entropy(answers, labels.reshape(-1, *[1] * (answers.ndim - 2)).expand(-1, *answers.shape[2:]))
    losses = []
    for name, values in answers.items():
        if name == "cls_logits":
            losses.append(sigmoid_focal_loss(values, torch.zeros_like(values), reduction="mean"))
        elif name == "bbox_ctrness":
            losses.append(F.binary_cross_entropy_with_logits(values, torch.zeros_like(values)))
        else:
            losses.append(F.l1_loss(values, torch.zeros_like(values)))
    return torch.stack(losses).sum()


def build_step(model: nn.Module, input_shape: tuple[int, ...], **options: Unpack[StepOptions]) -> Callable[[], None]:
    """Returns a function that runs `model` once on a fixed random batch (B, C, H, W).

    Mode `inference` is a forward pass in evaluation mode; `training` is forward, `step_loss` on fixed labels,
    backward, a step of the fused AdamW and the release of the gradients. Precision `bf16` is autocast. The step never
    waits for the device, and raises RuntimeError where attention cannot be as `fused_kernels` has it. The model becomes
    the step's: it is moved to `device` and put into the mode. Raises InputError for an unknown mode, precision or
    device, and for a device that is not there.
    """
    mode, channels_last = pick("mode", options["mode"], ("inference", "training")), options.get("channels_last", True)
    autocast_enabled = pick("precision", options["precision"], ("float32", "bf16")) == "bf16"
    place = check_device(options["device"])
    random = torch.Generator().manual_seed(0)
    images = torch.randn(input_shape, generator=random).to(place, input_dtype(model))
    if channels_last and images.ndim == 4:
        images = images.contiguous(memory_format=torch.channels_last)
    kernels = fused_kernels(model, place)
    model.to(place).train(mode == "training")
    if channels_last:
        model.to(memory_format=torch.channels_last)

    def autocast() -> torch.autocast:
        # In inference, torch 2.8 would keep every cast of a weight until the end of the pass; later versions do not.
        kept = mode == "training"
        return torch.autocast(place.type, torch.bfloat16, enabled=autocast_enabled, cache_enabled=kept)

    def infer() -> None:
        # Not no_grad: inference_mode also spares the bookkeeping of views and versions, as a deployed model would.
        with only_kernels(kernels), torch.inference_mode(), autocast():
            model(images)

    if mode == "inference":
        return infer

    labels = torch.randint(2, input_shape[:1], generator=random).to(place)  # two classes: every classifier has them
    # So small a rate leaves the weights as they are: the last step does the same work on the same numbers.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-9, fused=True)

    def train() -> None:
        with only_kernels(kernels):
            with autocast():
                loss = step_loss(model(images), labels)
            loss.backward()  # within, for what activation checkpointing runs anew
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return train
