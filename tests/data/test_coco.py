"""COCO's layout: what is read, and that every fault is one line, counted, and can be left out."""

import json
from typing import Any

import numpy as np
import pytest

from ablations.data.coco import _is_run_length_code, _run_lengths, decode_outline
from ablations.data.dense_views import ObjectViews
from ablations.errors import InputError
from ablations.measure import Detection

CLASSES = ("red", "green", "blue")


def test_coco_s_boxes_are_corners_and_its_categories_labels_from_0(objects, make_coco):
    data = objects(make_coco())
    assert data.classes == CLASSES
    assert (len(data.train), len(data.validation), data.left_out) == (4, 2, {})
    content = json.loads((data.folder / "annotations" / "instances_train2017.json").read_text())
    first = [each for each in content["annotations"] if each["image_id"] == 0]
    expected = [[x, y, x + width, y + height] for x, y, width, height in (each["bbox"] for each in first)]
    image = data.train[0]
    assert image.boxes.tolist() == expected
    assert image.labels.tolist() == [0, 1, 2]
    assert image.areas.tolist() == [each["area"] for each in first]
    assert image.size == (72, 84)
    assert image.outlines is None


def test_masks_are_read_from_polygons_and_from_run_lengths_alike(objects, make_coco, change_coco):
    root = make_coco()
    from pycocotools import mask as coco_mask

    polygon = objects(root, head="mask_rcnn").train[0]
    mask = decode_outline(polygon.outlines[0], polygon.size)
    left, top, right, bottom = polygon.boxes[0].astype(int)
    assert mask.shape == polygon.size
    assert mask[top:bottom, left:right].all()
    assert mask.sum() == (bottom - top) * (right - left)

    def as_run_lengths(content: dict[str, Any]) -> None:
        compressed = coco_mask.encode(np.asfortranarray(mask))
        content["annotations"][0]["segmentation"] = {
            "size": list(polygon.size),
            "counts": compressed["counts"].decode(),
        }
        plain = np.concatenate([[0], mask.flatten(order="F"), [0]])
        edges = np.flatnonzero(np.diff(plain))
        counts = np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()
        content["annotations"][3]["image_id"] = 0
        content["annotations"][3]["segmentation"] = {"size": list(polygon.size), "counts": counts}

    change_coco(root, as_run_lengths)
    from ablations.data import dense_loading

    dense_loading._load_objects.cache_clear()
    again = objects(root, head="mask_rcnn").train[0]
    assert (decode_outline(again.outlines[0], again.size) == mask).all()
    assert (decode_outline(again.outlines[3], again.size) == mask).all()


def test_crowd_regions_are_kept_for_evaluation_and_not_shown_in_training(objects, make_coco, change_coco):
    root = make_coco()
    change_coco(root, lambda content: content["annotations"][1].update(iscrowd=1))
    data = objects(root)
    assert data.train[0].crowd.tolist() == [False, True, False]
    views = ObjectViews(Detection(flip=0.0), 0)
    assert views(data.train[0], 0, True)[1]["labels"].tolist() == [0, 2]


def test_images_without_objects_are_not_trained_on_but_evaluated_on(objects, make_coco, change_coco):
    root = make_coco()

    def clear(number: int) -> Any:
        def change(content: dict[str, Any]) -> None:
            content["annotations"] = [each for each in content["annotations"] if each["image_id"] != number]

        return change

    change_coco(root, clear(1))
    change_coco(root, clear(101), "val2017")
    data = objects(root)
    assert [image.id for image in data.train] == [0, 2, 3]
    assert [image.id for image in data.validation] == [100, 101]
    assert len(data.validation[1].labels) == 0


FAULTS = {
    "boxes of no area": lambda content: content["annotations"][0].update(bbox=[5, 5, 0, 9]),
    "boxes outside their image": lambda content: content["annotations"][0].update(bbox=[5, 5, 900, 9]),
    "boxes that are not four numbers": lambda content: content["annotations"][0].update(bbox=[5, 5, "9"]),
    "annotations of a missing image": lambda content: content["annotations"][0].update(image_id=77),
    "labels beyond the classes": lambda content: content["annotations"][0].update(category_id=99),
    "areas that are no numbers": lambda content: content["annotations"][0].update(area="9"),
    "marks of crowds that are not 0 or 1": lambda content: content["annotations"][0].update(iscrowd="no"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_annotation_is_named_and_counted_and_left_out_on_request_alone(objects, make_coco, change_coco, fault):
    root = make_coco()
    change_coco(root, FAULTS[fault])
    with pytest.raises(InputError) as caught:
        objects(root)
    message = str(caught.value)
    assert message == (
        f"made-up has {fault}: 1, first annotation 1 of train2017; mend them, or leave them out by --skip-faulty"
    )
    data = objects(root, skip_faulty=True)
    assert data.left_out == {fault: 1}
    assert len(data.train[0].labels) == 2


MASK_FAULTS = {
    "polygons of fewer than three points": [[1, 2, 3, 4]],
    "polygons that are no numbers": [[1, 2, "3", 4, 5, 6]],
    "masks of another size than their image": {"size": [5, 5], "counts": [25]},
    "objects without a mask": None,
}


@pytest.mark.parametrize("fault", MASK_FAULTS)
def test_a_faulty_mask_is_refused_where_masks_are_read(objects, make_coco, change_coco, fault):
    root = make_coco()
    change_coco(root, lambda content: content["annotations"][4].update(segmentation=MASK_FAULTS[fault]))
    assert objects(root).left_out == {}
    with pytest.raises(InputError, match=f"^made-up has {fault}: 1, first annotation 5 of train2017; mend"):
        objects(root, head="mask_rcnn")
    assert objects(root, head="mask_rcnn", skip_faulty=True).left_out == {fault: 1}


def test_a_missing_image_is_a_fault(objects, make_coco):
    root = make_coco()
    (root / "train2017" / "000001.png").unlink()
    with pytest.raises(InputError, match=r"^made-up has missing images: 1, first train2017/000001\.png; mend"):
        objects(root)
    data = objects(root, skip_faulty=True)
    assert [image.id for image in data.train] == [0, 2, 3]
    assert data.left_out == {"missing images": 1}


def test_a_category_without_images_is_a_fault_and_is_left_out_with_its_validation_objects(
    objects, make_coco, change_coco
):
    root = make_coco()

    def without_green(content: dict[str, Any]) -> None:
        content["annotations"] = [each for each in content["annotations"] if each["category_id"] != 13]

    change_coco(root, without_green)
    with pytest.raises(InputError, match=r"^made-up has categories without images: 1, first green in training; mend"):
        objects(root)
    data = objects(root, skip_faulty=True)
    assert data.classes == ("red", "blue")
    assert [image.labels.tolist() for image in data.validation] == [[0, 1], [0, 1]]


def test_several_kinds_of_faults_are_one_line(objects, make_coco, change_coco):
    root = make_coco()
    for place, fault in enumerate(("boxes of no area", "labels beyond the classes")):
        change_coco(
            root,
            lambda content, fault=fault, place=place: FAULTS[fault]({"annotations": content["annotations"][place:]}),
        )
    with pytest.raises(InputError) as caught:
        objects(root)
    assert "\n" not in str(caught.value)
    assert "boxes of no area: 1, first annotation 1" in str(caught.value)
    assert "labels beyond the classes: 1, first annotation 2" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "is_one"),
    [
        (lambda code: code, True),
        (lambda code: code | {"counts": code["counts"][:-1]}, False),
        (lambda code: code | {"counts": ""}, False),
        (lambda code: code | {"counts": "é" + code["counts"]}, False),
        (lambda code: code | {"size": code["size"][::-1]}, False),
        (lambda code: code | {"size": 3}, False),
        (lambda code: code | {"counts": [35]}, True),
        (lambda code: code | {"counts": [36, -1]}, False),
        (lambda code: code | {"counts": ["35"]}, False),
        (lambda code: code | {"counts": 35}, False),
    ],
)
def test_a_run_length_code_covers_its_image_once(change, is_one):
    from pycocotools import mask as coco_mask

    mask = np.zeros((5, 7), dtype=np.uint8, order="F")
    mask[1:3, 2:6] = 1
    code = coco_mask.encode(mask)
    assert _is_run_length_code(change(code | {"counts": code["counts"].decode()}), (5, 7)) is is_one


def test_long_run_lengths_are_those_of_pycocotools():
    from pycocotools import mask as coco_mask

    generator = np.random.default_rng(0)
    for side in (3, 40, 700):
        mask = np.asfortranarray((generator.random((side, side)) < 3 / side).astype(np.uint8))
        edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.flatten(order="F")]))).tolist()
        expected = np.diff([0, *edges, mask.size]).tolist()
        assert _run_lengths(coco_mask.encode(mask)["counts"].decode()) == expected


IMAGE: dict[str, Any] = {"id": 1, "file_name": "1.png", "width": 3, "height": 3}


@pytest.mark.parametrize(
    ("images", "categories"),
    [
        ([IMAGE | {"id": "1"}], []),
        ([IMAGE | {"width": None}], []),
        ([IMAGE | {"height": 0}], []),
        ([IMAGE | {"file_name": 1}], []),
        ([IMAGE, IMAGE], []),
        ([3], []),
        ([IMAGE], [{"id": 1, "name": None}]),
        ([IMAGE], [{"id": [1], "name": "a"}]),
        ([IMAGE], [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]),
    ],
)
def test_a_list_of_images_or_categories_that_is_none_is_refused(objects, make_coco, change_coco, images, categories):
    root = make_coco()
    change_coco(root, lambda content: content.update(images=images, categories=categories))
    with pytest.raises(InputError, match=r"instances_train2017\.json is not possible as a file of annotations"):
        objects(root)


@pytest.mark.parametrize("number", [[0], "0", None, True])
def test_an_annotation_of_no_image_s_number_is_a_fault(objects, make_coco, change_coco, number):
    root = make_coco()
    change_coco(root, lambda content: content["annotations"][0].update(image_id=number))
    with pytest.raises(InputError, match="annotations of a missing image: 1, first annotation 1 of train2017"):
        objects(root)


def test_an_object_without_an_area_has_its_box_s(objects, make_coco, change_coco):
    root = make_coco()

    def change(content: dict[str, Any]) -> None:
        content["annotations"][0]["area"] = None
        del content["annotations"][1]["area"]

    change_coco(root, change)
    image = objects(root).train[0]
    width_height = image.boxes[:, 2:] - image.boxes[:, :2]
    assert image.areas[:2].tolist() == width_height.prod(1)[:2].tolist()


@pytest.mark.parametrize("text", ["", "[]", '{"images": []}', '{"images": [{}], "annotations": [], "categories": []}'])
def test_a_file_that_is_none_of_annotations_is_refused(objects, make_coco, text):
    root = make_coco()
    path = root / "annotations" / "instances_train2017.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"instances_train2017\.json is not possible as a file of annotations"):
        objects(root)
