"""The task of detection beside torchvision's own."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from ablations.data.annotations import DenseData
from ablations.data.dense_loading import load_objects
from ablations.measure import Detection
from ablations.training.distributed import ALONE


@pytest.mark.slow
def test_a_checkpoint_of_torchvision_s_retinanet_has_the_ap_of_torchvision_s_own_path(dense_conditions, make_coco):
    """Made-up images, and a RetinaNet of torchvision's that was trained on them a little."""
    import contextlib
    import io

    from PIL import Image
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
    from torchvision.models import resnet18
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7
    from torchvision.transforms.v2 import functional as F

    from ablations.heads.detection import build_retinanet
    from ablations.training.detection import Detection as DetectionTask

    root = make_coco(train=6, val=5)
    torch.manual_seed(2)
    backbone = _resnet_fpn_extractor(
        resnet18(norm_layer=nn.Identity), 5, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(512, 256)
    )
    theirs = RetinaNet(backbone, 3, min_size=64, max_size=128, detections_per_img=100, score_thresh=0.01)
    data: DenseData = load_objects(Detection(data="made-up"), root.parent)
    task = DetectionTask(data, replace(dense_conditions["detection"], data="made-up", batch_size=3))
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=3e-4)
    for epoch in range(1, 9):
        for images, targets in task.batches(epoch, first_step=0, ranks=ALONE, workers=0):
            loss = task.loss(theirs, images, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    class Body(nn.Module):
        """The extractor's body as a backbone of ours: four maps."""

        def __init__(self, body: nn.Module) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            maps = list(self.body(x).values())
            return [maps[0], *maps]

    ours = build_retinanet(
        Body(theirs.backbone.body), [64, 128, 256, 512], 3, min_size=64, max_size=128, score_thresh=0.01
    )
    renamed = {
        name.replace("backbone.body.", "backbone.body.body."): value for name, value in theirs.state_dict().items()
    }
    ours.load_state_dict(renamed)
    scores = task.evaluate(ours)

    # torchvision's references/detection: boxes as x, y, width, height, into pycocotools.
    expected, found = COCO(), []
    theirs.eval()
    with contextlib.redirect_stdout(io.StringIO()), torch.inference_mode():
        expected = COCO(str(root / "annotations" / "instances_val2017.json"))
        categories = sorted(expected.getCatIds())
        for number in expected.getImgIds():
            path = root / "val2017" / expected.loadImgs(number)[0]["file_name"]
            with Image.open(path) as image:
                (output,) = theirs([F.pil_to_tensor(image).float() / 255])
            left, top, right, bottom = output["boxes"].unbind(1)
            boxes = torch.stack([left, top, right - left, bottom - top], dim=1).tolist()
            found += [
                {"image_id": number, "category_id": categories[label], "bbox": box, "score": score}
                for box, label, score in zip(boxes, output["labels"].tolist(), output["scores"].tolist(), strict=True)
            ]
        evaluation = COCOeval(expected, expected.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert scores["ap50"] > 0.05, "it learned something, so the comparison is of more than zeros"
    assert scores["ap"] == pytest.approx(evaluation.stats[0], abs=1e-4)
    assert scores["ap50"] == pytest.approx(evaluation.stats[1], abs=1e-4)
