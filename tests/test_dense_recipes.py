"""Recipes of detection and segmentation."""

import pytest

from ablations.cells import arm_cell
from ablations.measure import Detection


def test_recipes_are_the_released_ones():
    conditions = [
        arm_cell(variant, "v1+ope+cffn", "published", Detection(head=head, base_lr=None)).conditions.base_lr
        for variant, head in (("b2", "retinanet"), ("b2", "mask_rcnn"), ("b5", "retinanet"), ("b4", "mask_rcnn"))
    ]
    assert conditions == pytest.approx([1e-4, 2e-4, 1e-4 / 1.4, 2e-4 / 1.4])
