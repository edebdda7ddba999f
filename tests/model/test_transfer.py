"""A backbone begins from a classifier's weights, or is left as it was."""

from typing import Any

import pytest
import torch

from ablations.cells import arm_cell
from ablations.errors import InputError
from ablations.measure import Accuracy
from ablations.measure.network import backbone_of, build_dense_network
from ablations.model.checkpoint import save_weights
from ablations.model.transfer import transfer_weights


@pytest.mark.parametrize(("base", "arm"), [("v2", "v1+ope+cffn"), ("v1", "v1")])
def test_a_backbone_begins_from_a_classifier_s_weights(dense_cell, tmp_path, base, arm):
    from ablations.model import build_model

    classifier = build_model(arm_cell("pico", arm, base, Accuracy(resolution=48)).arm_config, seed=5)
    save_weights(classifier, tmp_path / "c.safetensors")
    cell = dense_cell("detection", arm=arm, base=base, img_size=64)
    network = build_dense_network(cell, 3)
    backbone: Any = backbone_of(network)
    report = transfer_weights(backbone, tmp_path / "c.safetensors")
    weights, given = backbone.state_dict(), classifier.state_dict()
    for name, value in weights.items():
        if "pos_embed" not in name:
            assert torch.equal(value, given[name]), name
    assert {"head.weight", "head.bias"} <= set(report.unused)
    assert base == "v1" or len(report.unused) == 2
    if base == "v1":
        assert {"stages.3.cls_token.weight", "stages.3.pos_embed.weight[0]"} <= set(report.unused)
        assert len(report.resized) == 4
        first = weights["stages.0.pos_embed.weight"]
        assert first.shape == (1, 32 * 32, 8)
        # Bilinear interpolation keeps the mean of a smooth field near.
        assert float(first.mean()) == pytest.approx(float(given["stages.0.pos_embed.weight"].mean()), abs=0.01)
        assert "stages.0.pos_embed.weight" in report.resized


def test_weights_of_another_model_are_refused_and_change_nothing(dense_cell, tmp_path):
    from ablations.model import build_model

    save_weights(build_model(arm_cell("pico", "v1", "v2", Accuracy()).arm_config), tmp_path / "c.safetensors")
    network = build_dense_network(dense_cell("detection", arm="v1+cffn"), 3)
    backbone: Any = backbone_of(network)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with pytest.raises(InputError, match=r"does not fit the model: it lacks stages.0.blocks.0.mlp.dwconv"):
        transfer_weights(backbone, tmp_path / "c.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
