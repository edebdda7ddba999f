"""Trainings that begin from weights: of a file, of a record, or of a study's classifier."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ablations.cells import arm_cell
from ablations.cli import main, parse
from ablations.errors import InputError
from ablations.files import file_digest
from ablations.measure import Accuracy, Cost
from ablations.model import build_model
from ablations.model.checkpoint import save_weights
from ablations.model.transfer import transfer_weights
from ablations.records.folder import read_records

TRAIN = ("accuracy", "--variants", "pico", "--arms", "v1", "--recipe", "smoke", "--train-images", "100", "--epochs")


def records_of(results: Path) -> dict[str, dict]:
    return {record["key"]: record for record in read_records(results).records}


@pytest.mark.slow
def test_a_classifier_is_trained_on_from_a_file_and_from_its_record(tmp_path):
    results = tmp_path / "runs"
    flags = ("--jobs", "1", "--results", str(results))
    assert main([*TRAIN, "1", "--save-weights", *flags]) == 0
    ((first, _),) = records_of(results).items()
    (weights,) = (results / "weights").iterdir()
    assert main([*TRAIN, "2", "--init", first, *flags]) == 0
    (key,) = set(records_of(results)) - {first}
    record = records_of(results)[key]
    assert record["conditions"]["init"] == record["result"]["init_file"]["sha256"] == file_digest(weights)
    assert record["result"]["init_file"]["unused"] == []
    scratch = tmp_path / "scratch"
    assert main([*TRAIN, "2", "--jobs", "1", "--results", str(scratch)]) == 0
    (other,) = records_of(scratch).values()
    assert "init_file" not in other["result"]
    assert record["result"]["history"][0]["loss"] < other["result"]["history"][0]["loss"]
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(weights.read_bytes())
    assert main([*TRAIN, "2", "--init", str(copy), *flags]) == 0
    assert set(records_of(results)) == {first, key}, "the file is the record's, so it is one cell"


def test_a_record_s_key_stands_for_its_weights_where_they_were_kept(tmp_path, write_cell):
    cell = arm_cell("pico", "v1", "v2", Accuracy())
    cost = replace(cell, conditions=Cost(resolution=32))
    write_cell(tmp_path, cell)
    write_cell(tmp_path, cost)
    words = [*TRAIN, "2", "--results", str(tmp_path), "--init"]
    for key, allowed in (
        (cell.key, "a record whose weights are kept: "),
        (cost.key, "a file of weights, or the key of a record of accuracy in "),
    ):
        with pytest.raises(InputError, match=f"^init='{key}' is not possible; allowed: {allowed}"):
            parse([*words, key]).cells()
    weights = tmp_path / "weights" / f"{cell.file_name}.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    for given in (cell.key, str(weights)):
        (training,) = parse([*words, given]).cells()
        assert training.conditions.init == file_digest(weights)


@pytest.mark.parametrize(("base", "resolution"), [("v2", 32), ("v1", 48)])
def test_a_head_of_other_classes_keeps_its_weights_and_all_others_are_the_file_s(tmp_path, base, resolution):
    given = build_model(arm_cell("pico", "v1+ope", base, Accuracy()).arm_config, seed=5)
    save_weights(given, tmp_path / "c.safetensors")
    own = arm_cell("pico", "v1+ope", base, Accuracy(num_classes=4, resolution=resolution)).arm_config
    model, untouched = build_model(own, seed=6), build_model(own, seed=6).state_dict()
    report = transfer_weights(model, tmp_path / "c.safetensors")
    read = load_file(tmp_path / "c.safetensors")
    for name, value in model.state_dict().items():
        if name.startswith("head."):
            assert torch.equal(value, untouched[name]), name
        elif name not in report.resized:
            assert torch.equal(value, read[name]), name
    assert report.unused == ("head.weight", "head.bias")
    assert len(report.resized) == (4 if base == "v1" else 0)
    if base == "v1":  # the class token's own position is no part of the grid
        name = "stages.3.pos_embed.weight"
        assert torch.equal(model.state_dict()[name][:, 0], read[name][:, 0])


def test_the_same_classes_take_the_head_too(tmp_path):
    config = arm_cell("pico", "v1", "v1", Accuracy()).arm_config
    given, model = build_model(config, seed=5), build_model(config, seed=6)
    save_weights(given, tmp_path / "c.safetensors")
    report = transfer_weights(model, tmp_path / "c.safetensors")
    assert (report.unused, report.resized) == ((), ())
    assert all(torch.equal(value, given.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_backbone_s_weights_leave_a_class_token_unknown_and_are_refused(tmp_path):
    average = arm_cell("pico", "v1", "v1", Accuracy(), pooling="average").arm_config
    save_weights(build_model(average), tmp_path / "c.safetensors")
    model = build_model(arm_cell("pico", "v1", "v1", Accuracy()).arm_config)
    with pytest.raises(InputError, match=r"it lacks stages\.3\.cls_token"):
        transfer_weights(model, tmp_path / "c.safetensors")


def test_what_nothing_can_begin_from_is_one_line(tmp_path, capsys, write_cell):
    results = tmp_path / "runs"
    flags = ("--jobs", "1", "--results", str(results))
    assert main([*TRAIN, "1", "--init", "nowhere.safetensors", *flags]) == 2
    allowed = "a file of weights, or the key of a record of accuracy in"
    assert capsys.readouterr().err.startswith(f"error: init='nowhere.safetensors' is not possible; allowed: {allowed}")
    assert not results.exists()
    cell = arm_cell("pico", "v1", "v2", Accuracy(seed=3))
    write_cell(results, cell)
    assert main([*TRAIN, "1", "--init", cell.key, *flags]) == 2
    assert "a record whose weights are kept: " in capsys.readouterr().err
    save_weights(build_model(arm_cell("pico", "v1+cffn", "v2", Accuracy()).arm_config), tmp_path / "c.safetensors")
    assert main([*TRAIN, "1", "--init", str(tmp_path / "c.safetensors"), *flags]) == 2
    assert "does not fit" in capsys.readouterr().err
