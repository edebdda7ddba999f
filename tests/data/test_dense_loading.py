"""Data sets of detection and segmentation by name: subsets, digests, and the shared ones."""

import pytest

from ablations.data.dense_loading import dense_digest, load_objects, load_segments
from ablations.data.dense_registry import DENSE_SETS, DETECTION_LAYOUTS, find_layout
from ablations.errors import InputError
from ablations.measure import Detection, Segmentation


def test_an_empty_validation_set_is_refused(objects, segments, make_coco, change_coco, make_ade20k):
    root = make_coco()
    change_coco(root, lambda content: content.update(annotations=[]), "val2017")
    with pytest.raises(InputError, match=r"^validation of made-up has no objects; allowed: one or more"):
        objects(root)
    change_coco(root, lambda content: content.update(images=[]), "val2017")
    with pytest.raises(InputError, match=r"^val2017 of made-up has no images; allowed: one or more"):
        objects(root, skip_faulty=True)
    with pytest.raises(InputError, match=r"^validation of scenes has no images"):
        segments(make_ade20k(val=0))


def test_subsets_are_the_same_for_every_seed_and_tuning_images_are_others(objects, make_coco):
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


@pytest.mark.slow
def test_the_shared_sets_have_no_faults(shared_data):
    bccd = load_objects(Detection(), shared_data)
    assert (len(bccd.train), len(bccd.validation)) == (DENSE_SETS["bccd"].train_images, 87)
    assert len(bccd.classes) == DENSE_SETS["bccd"].num_classes
    assert bccd.classes == ("RBC", "WBC", "Platelets")
    assert sum(len(image.labels) for image in bccd.train) == 2804
    camvid = load_segments(Segmentation().as_released("b2"), shared_data)
    assert (len(camvid.train), len(camvid.validation)) == (DENSE_SETS["camvid"].train_images, 101)
    assert find_layout("bccd", shared_data, DETECTION_LAYOUTS)[1] == "coco"
