"""The task of naming the class of each pixel."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablations.data.ade20k import VOID, read_mask
from ablations.data.annotations import DenseData, Segments
from ablations.data.dense_views import SegmentViews, pad_images, pad_masks
from ablations.training.dense import DenseTask
from ablations.training.distributed import ALONE, Ranks
from ablations.training.recipe import autocast
from ablations.training.segment_scores import constant_scores, count_confusions, score_segments


class Segmentation(DenseTask):
    """Crops and masks; the loss is the cross-entropy, summed over labelled pixels and divided by all.

    That is as in the released code, and gives the same gradient whether a batch is one or in parts.
    """

    score: ClassVar[str] = "miou"
    data: DenseData[Segments]
    _trained: Tensor | None = None

    def build_views(self) -> SegmentViews:
        return SegmentViews(self.conditions, self.data)

    def loss(self, network: nn.Module, images: list[Tensor], targets: list[Tensor]) -> Tensor:
        batch = pad_images(images)
        masks = pad_masks(targets, (batch.shape[2], batch.shape[3]))
        logits = network(batch).float()
        return F.cross_entropy(logits, masks, ignore_index=VOID, reduction="sum") / masks.numel()

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, *, ranks: Ranks = ALONE, workers: int = 0) -> dict[str, Any]:
        """Returns the scores of `score_segments`, `n_images`, and those of a constant predictor."""
        model.eval()
        data, classes = self.data, len(self.data.classes)
        confusions = torch.zeros(classes, classes, dtype=torch.int64, device=self.device)
        for images, masks in self.shown(data, self.conditions.batch_size, ranks=ranks, workers=workers):
            pairs = zip(images, masks, strict=True)
            for (_, size), run in groupby(pairs, key=lambda pair: (pair[0].shape, pair[1].shape)):
                alike, truth = zip(*run, strict=True)
                confusions += count_confusions(self.predict(model, alike, size), torch.stack(truth).long(), classes)
        confusions = ranks.add(confusions).cpu()
        if self._trained is None:
            counts = count_labels(data) if ranks.is_first else torch.empty(0)
            self._trained = ranks.tell_all(counts)
        constant = constant_scores(confusions, self._trained)
        return score_segments(confusions, data.classes) | constant | {"n_images": len(data.validation)}

    def predict(self, model: nn.Module, images: Sequence[Tensor], size: torch.Size) -> Tensor:
        """Returns the classes (B, H, W) of images of one size, at their masks' size."""
        with autocast(self.conditions):
            logits = model(pad_images(images))
        return F.interpolate(logits.float(), tuple(size), mode="bilinear").argmax(dim=1)


def count_labels(data: DenseData[Segments]) -> Tensor:
    """Returns how many pixels (classes,) the training images have of each class."""
    counts = torch.zeros(VOID + 1, dtype=torch.int64)
    for item in data.train:
        mask = torch.from_numpy(read_mask(item.mask_path, **data.mask_labels))
        counts += torch.bincount(mask.flatten(), minlength=VOID + 1)
    return counts[: len(data.classes)]
