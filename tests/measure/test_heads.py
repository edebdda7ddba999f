"""Memory and speed of arms with another head on them: what is predicted, measured, refused, and trained by."""

import math

import pytest
import torch
from torch import Tensor

from ablations.baselines.registry import ARMS_OF_LIBRARIES
from ablations.cells import Cell, arm_cell, build_cell
from ablations.cli import main
from ablations.errors import InputError
from ablations.heads.detection import DensePart
from ablations.heads.segmentation import SemanticFPN
from ablations.measure import Memory, Speed
from ablations.measure.measurement import Setting
from ablations.measure.network import build_network, build_network_on
from ablations.measure.speed import _count_macs
from ablations.measure.step import fused_kernels, step_loss


def memory(head: str, method: str, **changes: object) -> Cell:
    conditions = Memory(head=head, method=method, resolution=(64, 96), **({"mode": "training"} | changes))
    return arm_cell("pico", "v1+cffn", "v1", conditions)


def peak(cell: Cell) -> int:
    return cell.conditions.run(cell, Setting())["peak_memory_bytes"]


@pytest.mark.slow
@pytest.mark.parametrize("head", ["retinanet", "semantic_fpn"])
def test_the_predicted_peak_of_a_step_is_the_measured_one(head: str) -> None:
    predicted, measured = (peak(memory(head, method)) for method in ("predicted", "measured"))
    assert predicted == measured
    assert predicted > peak(memory("classifier", "predicted"))


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"mode": "inference"}, {"checkpointing": "1+2"}, {"batch_size": 2}])
@pytest.mark.parametrize("head", ["retinanet", "fcos", "semantic_fpn"])
def test_it_is_so_under_all_conditions(head: str, changes: dict[str, object]) -> None:
    assert peak(memory(head, "predicted", **changes)) == peak(memory(head, "measured", **changes))


def test_checkpointing_and_a_models_own_backbone_work_below_a_head() -> None:
    assert peak(memory("retinanet", "predicted", checkpointing="1+2")) < peak(memory("retinanet", "predicted"))
    other = build_cell("timm:resnet18", Memory(head="semantic_fpn", method="predicted", resolution=64))
    assert peak(other) > 0


def test_a_step_of_a_detector_is_its_dense_part_and_its_attention_keeps_its_kernel() -> None:
    with torch.device("meta"):
        part, segmenter = (build_network(memory(head, "measured")) for head in ("retinanet", "semantic_fpn"))
    assert isinstance(part, DensePart)
    assert isinstance(segmenter, SemanticFPN)
    assert fused_kernels(part, "cuda") == fused_kernels(build_network(memory("classifier", "measured")), "cuda") != ()
    assert part.backbone.body.model.config.pooling == "average", "base v1 joins its class token for classifying"


def test_losses_are_those_of_background_everywhere() -> None:
    score, offset, centre = 0.3, -1.5, 2.0
    answers = {
        "cls_logits": torch.full((2, 5, 3), score),
        "bbox_regression": torch.full((2, 5, 4), offset),
        "bbox_ctrness": torch.full((2, 5, 1), centre),
    }
    probability = 1 / (1 + math.exp(-score))
    focal = 0.75 * probability**2 * -math.log(1 - probability)  # alpha 0.25 and gamma 2, of a label of 0
    expected = focal + 1.5 + math.log(1 + math.exp(centre))
    assert float(step_loss(answers, torch.zeros(2))) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 5)])
def test_labels_hold_for_every_pixel(shape: tuple[int, ...]) -> None:
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([1, 0])
    chosen: Tensor = torch.stack([logits.log_softmax(1)[image, label] for image, label in enumerate((1, 0))])
    assert float(step_loss(logits, labels)) == pytest.approx(-float(chosen.mean()), rel=1e-6)


@pytest.mark.parametrize("head", ["retinanet", "fcos", "semantic_fpn"])
def test_every_weight_has_a_gradient(head: str) -> None:
    network = build_network_on("cpu", memory(head, "measured"))
    step_loss(network(torch.randn(1, 3, 64, 96)), torch.zeros(1, dtype=torch.long)).backward()
    assert [name for name, value in network.named_parameters() if value.grad is None] == []


def test_the_macs_of_a_step_are_those_of_the_head_too() -> None:
    plain, headed = (
        arm_cell("pico", "v1+ope", "v2", Speed(head=head, resolution=64)) for head in ("classifier", "retinanet")
    )
    assert _count_macs(headed) > 10 * _count_macs(plain)


@pytest.mark.slow
def test_speed_times_v1_with_the_same_head() -> None:
    conditions = Speed(head="retinanet", resolution=64, batch_size=1, repeats=6, mode="inference")
    cell = arm_cell("pico", "v1+ope", "v2", conditions)
    result = conditions.run(cell, Setting())
    assert len(result["samples"]) == len(result["reference_samples"]) == 6


def test_what_has_no_step_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["memory", "--heads", "mask_rcnn", "--variants", "pico"]) == 2
    allowed = "allowed: classifier, retinanet, fcos, semantic_fpn"
    assert capsys.readouterr().err == f"error: heads='mask_rcnn' is not possible; {allowed}\n"
    library = next(iter(ARMS_OF_LIBRARIES))
    with pytest.raises(InputError, match=f"head='fcos' is not possible; allowed: classifier beside {library}"):
        arm_cell("b0", "v1+ope+cffn", "published", Speed(head="fcos", reference=library))
