"""mIoU and pixel accuracy: those of the community's code, and of cases that can be worked out."""

import pytest
import torch

from ablations.data.ade20k import VOID
from ablations.training.segment_scores import constant_scores, count_confusions, score_segments


def confusions_of(batches: list[tuple[torch.Tensor, torch.Tensor]], classes: int) -> torch.Tensor:
    return torch.stack([count_confusions(*batch, classes) for batch in batches]).sum(dim=0)


@pytest.mark.parametrize("missing", [None, 2])
def test_miou_and_pixel_accuracy_equal_torchmetrics(missing: int | None):
    from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

    generator = torch.Generator().manual_seed(1)
    batches = []
    jaccard = MulticlassJaccardIndex(4, ignore_index=VOID)
    accuracy = MulticlassAccuracy(4, average="micro", ignore_index=VOID)
    for height in (20, 33):
        mask = torch.randint(4, (2, height, 31), generator=generator)
        predicted = torch.where(torch.rand(mask.shape, generator=generator) < 0.6, mask, (mask + 1) % 4)
        if missing is not None:  # neither there nor found
            mask, predicted = (each.where(each != missing, 0) for each in (mask, predicted))
        mask[torch.rand(mask.shape, generator=generator) < 0.1] = VOID
        batches.append((predicted, mask))
        jaccard.update(predicted, mask)
        accuracy.update(predicted, mask)
    scores = score_segments(confusions_of(batches, 4), list("abcd"))
    assert scores["miou"] == pytest.approx(float(jaccard.compute()), rel=1e-6)  # which is of float32
    assert scores["pixel_accuracy"] == pytest.approx(float(accuracy.compute()), rel=1e-6)
    assert [name for name, iou in scores["iou_by_class"].items() if iou is None] == ([] if missing is None else ["c"])


def test_confusions_are_added_up_over_images_of_all_sizes_and_a_void_image_adds_none():
    mask = torch.tensor([[[0, 0, 1, VOID]]])
    confusions = count_confusions(torch.tensor([[[0, 1, 1, 1]]]), mask, 2)
    assert confusions.tolist() == [[1, 1], [0, 1]]
    assert count_confusions(torch.zeros(1, 2, 2).long(), torch.full((1, 2, 2), VOID), 2).tolist() == [[0, 0], [0, 0]]
    scores = score_segments(confusions, ["a", "b"])
    assert scores["miou"] == pytest.approx(0.5)  # 1 of 2, and 1 of 2
    assert scores["pixel_accuracy"] == pytest.approx(2 / 3)
    constant = constant_scores(confusions, torch.tensor([1, 5]))  # class b everywhere
    assert constant == {
        "constant_miou": pytest.approx((0 + 1 / 3) / 2),
        "constant_pixel_accuracy": pytest.approx(1 / 3),
    }
