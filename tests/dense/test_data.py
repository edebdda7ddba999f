"""Data sets of detection and segmentation: what is read, and that every fault is one line, counted, and can be left
out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ablations.data.ade20k import VOID, read_mask
from ablations.data.coco import _is_run_length_code, _run_lengths, decode_outline
from ablations.data.dense_loading import dense_digest, load_objects, load_segments
from ablations.data.dense_registry import DENSE_SETS, DETECTION_LAYOUTS, find_layout
from ablations.data.dense_views import ObjectViews, SegmentViews, evaluation_size, pad_images, pad_masks, resized
from ablations.errors import InputError
from ablations.measure import Detection, Segmentation

CLASSES = ("red", "green", "blue")
OF_SCENES: dict[str, Any] = {"data": "scenes", "num_classes": 3, "first_label": 1, "void_label": 0}


def objects(folder: Path, **conditions: Any) -> Any:
    return load_objects(Detection(data=folder.name, **conditions), folder.parent)


def segments(folder: Path, **conditions: Any) -> Any:
    return load_segments(Segmentation(**(OF_SCENES | {"data": folder.name} | conditions)), folder.parent)


def test_coco_s_boxes_are_corners_and_its_categories_labels_from_0(make_coco):
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


def test_masks_are_read_from_polygons_and_from_run_lengths_alike(make_coco, change_coco):
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


def test_crowd_regions_are_kept_for_evaluation_and_not_shown_in_training(make_coco, change_coco):
    root = make_coco()
    change_coco(root, lambda content: content["annotations"][1].update(iscrowd=1))
    data = objects(root)
    assert data.train[0].crowd.tolist() == [False, True, False]
    views = ObjectViews(Detection(flip=0.0), 0)
    assert views(data.train[0], 0, True)[1]["labels"].tolist() == [0, 2]


def test_images_without_objects_are_not_trained_on_but_evaluated_on(make_coco, change_coco):
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
def test_a_faulty_annotation_is_named_and_counted_and_left_out_on_request_alone(make_coco, change_coco, fault):
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
def test_a_faulty_mask_is_refused_where_masks_are_read(make_coco, change_coco, fault):
    root = make_coco()
    change_coco(root, lambda content: content["annotations"][4].update(segmentation=MASK_FAULTS[fault]))
    assert objects(root).left_out == {}
    with pytest.raises(InputError, match=f"^made-up has {fault}: 1, first annotation 5 of train2017; mend"):
        objects(root, head="mask_rcnn")
    assert objects(root, head="mask_rcnn", skip_faulty=True).left_out == {fault: 1}


def test_a_missing_image_is_a_fault(make_coco):
    root = make_coco()
    (root / "train2017" / "000001.png").unlink()
    with pytest.raises(InputError, match=r"^made-up has missing images: 1, first train2017/000001\.png; mend"):
        objects(root)
    data = objects(root, skip_faulty=True)
    assert [image.id for image in data.train] == [0, 2, 3]
    assert data.left_out == {"missing images": 1}


def test_a_category_without_images_is_a_fault_and_is_left_out_with_its_validation_objects(make_coco, change_coco):
    root = make_coco()

    def without_green(content: dict[str, Any]) -> None:
        content["annotations"] = [each for each in content["annotations"] if each["category_id"] != 13]

    change_coco(root, without_green)
    with pytest.raises(InputError, match=r"^made-up has categories without images: 1, first green in training; mend"):
        objects(root)
    data = objects(root, skip_faulty=True)
    assert data.classes == ("red", "blue")
    assert [image.labels.tolist() for image in data.validation] == [[0, 1], [0, 1]]


def test_several_kinds_of_faults_are_one_line(make_coco, change_coco):
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


def test_an_empty_validation_set_is_refused(make_coco, change_coco, make_ade20k):
    root = make_coco()
    change_coco(root, lambda content: content.update(annotations=[]), "val2017")
    with pytest.raises(InputError, match=r"^validation of made-up has no objects; allowed: one or more"):
        objects(root)
    change_coco(root, lambda content: content.update(images=[]), "val2017")
    with pytest.raises(InputError, match=r"^val2017 of made-up has no images; allowed: one or more"):
        objects(root, skip_faulty=True)
    with pytest.raises(InputError, match=r"^validation of scenes has no images"):
        segments(make_ade20k(val=0))


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
def test_a_list_of_images_or_categories_that_is_none_is_refused(make_coco, change_coco, images, categories):
    root = make_coco()
    change_coco(root, lambda content: content.update(images=images, categories=categories))
    with pytest.raises(InputError, match=r"instances_train2017\.json is not possible as a file of annotations"):
        objects(root)


@pytest.mark.parametrize("number", [[0], "0", None, True])
def test_an_annotation_of_no_image_s_number_is_a_fault(make_coco, change_coco, number):
    root = make_coco()
    change_coco(root, lambda content: content["annotations"][0].update(image_id=number))
    with pytest.raises(InputError, match="annotations of a missing image: 1, first annotation 1 of train2017"):
        objects(root)


def test_an_object_without_an_area_has_its_box_s(make_coco, change_coco):
    root = make_coco()

    def change(content: dict[str, Any]) -> None:
        content["annotations"][0]["area"] = None
        del content["annotations"][1]["area"]

    change_coco(root, change)
    image = objects(root).train[0]
    width_height = image.boxes[:, 2:] - image.boxes[:, :2]
    assert image.areas[:2].tolist() == width_height.prod(1)[:2].tolist()


@pytest.mark.parametrize("text", ["", "[]", '{"images": []}', '{"images": [{}], "annotations": [], "categories": []}'])
def test_a_file_that_is_none_of_annotations_is_refused(make_coco, text):
    root = make_coco()
    path = root / "annotations" / "instances_train2017.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"instances_train2017\.json is not possible as a file of annotations"):
        objects(root)


def test_an_image_of_another_size_than_its_annotations_say_is_refused_where_it_is_met(make_coco, change_coco):
    root = make_coco()
    change_coco(root, lambda content: content["images"][0].update(width=200))
    data = objects(root)
    with pytest.raises(InputError, match=r"000000.png is 72 x 84 pixels, and its annotations say 72 x 200"):
        ObjectViews(Detection(), 0)(data.train[0], 0, True)


def test_an_image_that_cannot_be_read_is_named(make_coco):
    root = make_coco()
    (root / "train2017" / "000000.png").write_bytes(b"no image")
    data = objects(root)
    with pytest.raises(InputError, match=r"an image cannot be read: .*000000.png"):
        ObjectViews(Detection(), 0)(data.train[0], 0, True)


def test_voc_s_boxes_count_from_1_and_difficult_objects_are_crowd(make_voc):
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


def test_voc_s_class_that_is_only_difficult_is_a_category_without_images(make_voc):
    root = make_voc(train=1)
    with pytest.raises(InputError, match=r"^voc has categories without images: 1, first blue in training"):
        objects(root)


def test_voc_s_faults_are_named(make_voc):
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


def test_mask_rcnn_needs_masks(make_voc):
    root = make_voc()
    with pytest.raises(InputError, match=r"^head='mask_rcnn' is not possible with voc, which has no masks of objects"):
        objects(root, head="mask_rcnn")


def test_a_mask_s_zero_label_says_nothing_and_a_palette_is_for_people(make_ade20k):
    plain = segments(make_ade20k())
    coloured = segments(make_ade20k(name="coloured", palette=True))
    labels = {"num_classes": 3, "first_label": 1, "void_label": 0}
    for one, other in zip(plain.train, coloured.train, strict=True):
        mask = read_mask(one.mask_path, **labels)
        assert set(np.unique(mask)) == {0, 1, 2, VOID}
        with Image.open(other.mask_path) as image:
            assert image.mode == "P"
        assert (read_mask(other.mask_path, **labels) == mask).all()


def test_a_void_label_above_the_classes_says_nothing_too(make_ade20k):
    root = make_ade20k()
    data = segments(root, first_label=0, void_label=3)
    mask = read_mask(data.train[0].mask_path, num_classes=3, first_label=0, void_label=3)
    assert set(np.unique(mask)) == {0, 1, 2, VOID}
    with pytest.raises(InputError, match=r"^scenes has masks with labels beyond the classes: 6, first .* \(3\); mend"):
        segments(root, first_label=0, void_label=255)


def read_pixels(path: Path | str) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def spoil(path: Path, how: str) -> None:
    pixels = read_pixels(path)
    match how:
        case "size":
            Image.fromarray(pixels[:40, :50]).save(path)
        case "colour":
            Image.fromarray(pixels).convert("RGB").save(path)
        case "label":
            pixels[0, 0] = 9
            Image.fromarray(pixels).save(path)
        case "damage":
            path.write_bytes(path.read_bytes()[:60])
        case "missing":
            path.unlink()


@pytest.mark.parametrize(
    ("how", "fault"),
    [
        ("size", "masks of another size than their image"),
        ("colour", "masks that are no index images"),
        ("label", "masks with labels beyond the classes"),
        ("damage", "masks that cannot be read"),
        ("missing", "images without a mask"),
    ],
)
def test_a_faulty_mask_of_pixels_is_named_and_left_out_on_request_alone(make_ade20k, how, fault):
    root = make_ade20k()
    spoil(root / "annotations" / "training" / "000002.png", how)
    with pytest.raises(InputError, match=f"^scenes has {fault}: 1, first training/000002.png.*; mend them, or leave"):
        segments(root)
    data = segments(root, skip_faulty=True)
    assert [Path(item.path).stem for item in data.train] == ["000000", "000001", "000003"]
    assert data.left_out == {fault: 1}


def test_a_mask_without_an_image_and_a_class_without_a_pixel_are_faults(make_ade20k):
    root = make_ade20k()
    (root / "images" / "training" / "000003.png").unlink()
    with pytest.raises(InputError, match=r"^scenes has masks of a missing image: 1, first training/000003.png"):
        segments(root)
    other = make_ade20k(name="others")
    with pytest.raises(InputError, match=r"^others has classes without a pixel: 1, first label 4 in training"):
        segments(other, num_classes=4)


def test_every_fault_is_found_again_from_the_cache(make_ade20k):
    from ablations.data import dense_loading

    root = make_ade20k()
    spoil(root / "annotations" / "training" / "000002.png", "label")
    for _ in range(2):
        dense_loading._load_segments.cache_clear()
        with pytest.raises(InputError, match=r"masks with labels beyond the classes: 1, first .*2\.png \(9\)"):
            segments(root)


@pytest.mark.parametrize(("name", "kind"), [("bccd", Detection), ("camvid", Segmentation)])
def test_a_set_that_is_not_there_is_named_with_its_layout(tmp_path, name, kind):
    conditions = kind(data=name).as_released("b2")
    with pytest.raises(
        InputError, match=f"^data='{name}' is not possible; allowed: .*{name}.*is not there in the layout"
    ):
        conditions.load_data(tmp_path)


def test_subsets_are_the_same_for_every_seed_and_tuning_images_are_others(make_coco):
    root = make_coco(train=8)
    data = objects(root, train_images=3, tuning_images=2, seed=5)
    again = objects(root, train_images=3, tuning_images=2, seed=6)
    assert [image.id for image in data.train] == [image.id for image in again.train]
    larger = objects(root, train_images=5, tuning_images=2)
    assert {image.id for image in data.train} < {image.id for image in larger.train}
    assert {image.id for image in data.validation}.isdisjoint(image.id for image in larger.train)
    assert len(data.validation) == 2
    for few in ({"train_images": 9}, {"train_images": 7, "tuning_images": 2}, {"tuning_images": 8}):
        with pytest.raises(InputError, match=r"is not possible; allowed: 0 for"):
            objects(root, **few)


def test_another_data_set_has_another_digest(make_coco, make_ade20k, change_coco):
    root = make_coco()
    before = dense_digest("made-up", root.parent, DETECTION_LAYOUTS)
    assert before == dense_digest("made-up", root.parent, DETECTION_LAYOUTS)
    change_coco(root, lambda content: content["annotations"][0].update(bbox=[1, 2, 3, 4]))
    assert dense_digest("made-up", root.parent, DETECTION_LAYOUTS) != before
    scenes = make_ade20k()
    before = dense_digest("scenes", scenes.parent, ("ade20k",))
    (scenes / "annotations" / "training" / "000000.png").write_bytes(b"")
    assert dense_digest("scenes", scenes.parent, ("ade20k",)) != before
    assert dense_digest("nothing", scenes.parent, ("ade20k",)) is None


def test_views_are_drawn_from_the_seed_and_boxes_and_masks_go_with_the_image(make_coco):
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


def test_crops_have_the_side_of_the_recipe_and_no_class_above_its_share_if_there_is_such_a_crop(make_ade20k):
    data = segments(make_ade20k(train=8))
    conditions = Segmentation(**OF_SCENES, resolution=32, short_side=64, distortion=False, max_class_share=0.6)
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


def test_tested_sides_are_rounded_up_to_multiples_of_32():
    conditions = Segmentation(**OF_SCENES, resolution=512, short_side=512, long_side=2048)
    assert evaluation_size((480, 640), conditions) == (512, 704)
    assert evaluation_size((360, 480), Segmentation(**OF_SCENES)) == (192, 256)  # 180 x 240


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


@pytest.mark.parametrize("name", DENSE_SETS)
def test_every_known_set_is_of_a_layout_that_some_measurement_takes(name):
    known = DENSE_SETS[name]
    assert known.layout in (*DETECTION_LAYOUTS, "ade20k")
    assert known.num_classes >= 2


def test_the_shared_sets_have_no_faults(shared_data):
    bccd = load_objects(Detection(), shared_data)
    assert (len(bccd.train), len(bccd.validation)) == (DENSE_SETS["bccd"].train_images, 87)
    assert len(bccd.classes) == DENSE_SETS["bccd"].num_classes
    assert bccd.classes == ("RBC", "WBC", "Platelets")
    assert sum(len(image.labels) for image in bccd.train) == 2804
    camvid = load_segments(Segmentation().as_released("b2"), shared_data)
    assert (len(camvid.train), len(camvid.validation)) == (DENSE_SETS["camvid"].train_images, 101)
    assert find_layout("bccd", shared_data, DETECTION_LAYOUTS)[1] == "coco"
