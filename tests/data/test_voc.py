"""Pascal VOC's layout: boxes that count from 1, difficult objects, and faults."""

import pytest

from ablations.errors import InputError

CLASSES = ("red", "green", "blue")


def test_voc_s_boxes_count_from_1_and_difficult_objects_are_crowd(objects, read_pixels, make_voc):
    root = make_voc()
    data = objects(root)
    assert data.classes == tuple(sorted(CLASSES))
    image = data.train[0]
    left, top, right, bottom = image.boxes[0]
    pixels = read_pixels(image.path).astype(int)
    inside = pixels[int(top) : int(bottom), int(left) : int(right)]
    assert inside[..., 0].mean() > 200, "the first object is red, and its box is full of it"
    assert image.labels.tolist() == [2, 1, 0]
    assert image.crowd.tolist() == [False, False, True]


def test_voc_s_class_that_is_only_difficult_is_a_category_without_images(objects, make_voc):
    root = make_voc(train=1)
    with pytest.raises(InputError, match=r"^voc has categories without images: 1, first blue in training"):
        objects(root)


def test_voc_s_faults_are_named(objects, make_voc):
    root = make_voc()
    file = root / "Annotations" / "000000.xml"
    whole = file.read_text()
    file.write_text(whole.replace("<xmin>", "<xmin>x", 1))
    with pytest.raises(InputError, match=r"boxes that are not four numbers: 1, first object 1 of 000000\.xml"):
        objects(root)
    file.write_text(whole.replace("<annotation>", "<annotation"))
    with pytest.raises(InputError, match=r"000000\.xml is not possible as a file of annotations; allowed: XML"):
        objects(root)
    file.unlink()
    with pytest.raises(InputError, match=r"images without annotations: 1, first 000000\.xml"):
        objects(root)


def test_mask_rcnn_needs_masks(objects, make_voc):
    root = make_voc()
    with pytest.raises(InputError, match=r"^head='mask_rcnn' is not possible with voc, which has no masks of objects"):
        objects(root, head="mask_rcnn")
