"""The data sets of detection and segmentation that are known by name."""

import pytest

from ablations.data.dense_registry import DENSE_SETS, DETECTION_LAYOUTS
from ablations.errors import InputError
from ablations.measure import Detection, Segmentation


@pytest.mark.parametrize(("name", "kind"), [("bccd", Detection), ("camvid", Segmentation)])
def test_a_set_that_is_not_there_is_named_with_its_layout(tmp_path, name, kind):
    conditions = kind(data=name).as_released("b2")
    with pytest.raises(
        InputError, match=f"^data='{name}' is not possible; allowed: .*{name}.*is not there in the layout"
    ):
        conditions.load_data(tmp_path)


@pytest.mark.parametrize("name", DENSE_SETS)
def test_every_known_set_is_of_a_layout_that_some_measurement_takes(name):
    known = DENSE_SETS[name]
    assert known.layout in (*DETECTION_LAYOUTS, "ade20k")
    assert known.num_classes >= 2
