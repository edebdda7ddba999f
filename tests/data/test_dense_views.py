"""What detectors and segmentation networks are shown: views, crops, sizes and padding."""

import pytest
import torch

from ablations.data.ade20k import VOID
from ablations.data.dense_views import ObjectViews, SegmentViews, evaluation_size, pad_images, pad_masks, resized
from ablations.errors import InputError
from ablations.measure import Detection, Segmentation


def test_an_image_of_another_size_than_its_annotations_say_is_refused_where_it_is_met(objects, make_coco, change_coco):
    root = make_coco()
    change_coco(root, lambda content: content["images"][0].update(width=200))
    data = objects(root)
    with pytest.raises(InputError, match=r"000000.png is 72 x 84 pixels, and its annotations say 72 x 200"):
        ObjectViews(Detection(), 0)(data.train[0], 0, True)


def test_an_image_that_cannot_be_read_is_named(objects, make_coco):
    root = make_coco()
    (root / "train2017" / "000000.png").write_bytes(b"no image")
    data = objects(root)
    with pytest.raises(InputError, match=r"an image cannot be read: .*000000.png"):
        ObjectViews(Detection(), 0)(data.train[0], 0, True)


def test_views_are_drawn_from_the_seed_and_boxes_and_masks_go_with_the_image(objects, make_coco):
    data = objects(make_coco(), head="mask_rcnn")
    views = ObjectViews(Detection(head="mask_rcnn", flip=1.0), 1)
    image, target = views(data.train[1], 1, True)
    plain, _ = views(data.train[1], 1, False)
    assert torch.equal(image, plain.flip(-1))
    width = image.shape[2]
    left, top, right, bottom = data.train[1].boxes[0]
    assert target["boxes"][0].tolist() == [width - right, top, width - left, bottom]
    assert target["labels"].tolist() == [1, 2, 3]
    mask = target["masks"][0]
    assert mask[int(top) : int(bottom), int(width - right) : int(width - left)].all()
    assert mask.sum() == (right - left) * (bottom - top)


def test_crops_have_the_side_of_the_recipe_and_no_class_above_its_share_if_there_is_such_a_crop(
    segments, of_scenes, make_ade20k
):
    data = segments(make_ade20k(train=8))
    conditions = Segmentation(**of_scenes, resolution=32, short_side=64, distortion=False, max_class_share=0.6)
    views = SegmentViews(conditions, data)
    varied = 0
    for seed in range(40):
        torch.manual_seed(seed)
        image, mask = views(data.train[seed % 8], 0, True)
        assert image.shape[1:] == mask.shape
        assert max(mask.shape) <= 32
        counts = torch.bincount(mask.flatten(), minlength=256)[:255]
        varied += bool((counts > 0).sum() > 1 and counts.max() < 0.6 * counts.sum())
    assert varied >= 20, "most images have such a crop"
    torch.manual_seed(3)
    one = views(data.train[0], 0, True)
    torch.manual_seed(3)
    other = views(data.train[0], 0, True)
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (512, 683)), ((640, 480), (683, 512)), ((100, 1000), (205, 2048)), ((512, 512), (512, 512))],
)
def test_images_are_resized_as_released(size, expected):
    assert resized(size, 512, 2048) == expected


def test_tested_sides_are_rounded_up_to_multiples_of_32(of_scenes):
    conditions = Segmentation(**of_scenes, resolution=512, short_side=512, long_side=2048)
    assert evaluation_size((480, 640), conditions) == (512, 704)
    assert evaluation_size((360, 480), Segmentation(**of_scenes)) == (192, 256)  # 180 x 240


def test_batches_of_several_sizes_are_padded_with_the_mean_and_with_void():
    images = [torch.full((3, 40, 30), 124, dtype=torch.uint8), torch.full((3, 20, 50), 124, dtype=torch.uint8)]
    batch = pad_images(images)
    assert batch.shape == (2, 3, 64, 64)
    assert (batch[0, :, 40:] == 0).all()
    assert (batch[0, :, :, 30:] == 0).all()
    assert (batch[1, 0, :20, :50] - (124 / 255 - 0.485) / 0.229).abs().max() < 1e-6
    masks = pad_masks([torch.ones(40, 30, dtype=torch.uint8), torch.zeros(20, 50, dtype=torch.uint8)], (64, 64))
    assert masks.shape == (2, 64, 64)
    assert (masks == VOID).sum() == 2 * 64 * 64 - 40 * 30 - 20 * 50
