"""Records are packed, unpacked, merged and moved aside, and none is lost."""

import json

import pytest

from ablations.config import ARMS
from ablations.errors import InputError
from ablations.records import load_records
from ablations.records.folder import find_record, read_records
from ablations.records.rearrange import drop_records, merge_records, pack_records, unpack_records


def test_packing_and_unpacking_lose_nothing(write_some, pico, tmp_path):
    paths = write_some(tmp_path)
    before = {path: path.read_text() for path in sorted(paths)}
    table = load_records(tmp_path)
    assert pack_records(tmp_path) == {"cost": len(ARMS), "memory": 2}
    assert sorted(path.name for path in (tmp_path / "records").glob("*.jsonl")) == ["cost.jsonl", "memory.jsonl"]
    assert load_records(tmp_path).equals(table)
    assert find_record(tmp_path, pico)["key"] == pico.key
    assert read_records(tmp_path).damaged == {}
    lines = (tmp_path / "records" / "cost.jsonl").read_text().splitlines()
    assert len(json.loads(lines[0])["environments"]) == 2
    keys = [json.loads(line)["key"] for line in lines[1:]]
    assert keys == sorted(keys)
    packed = {path: path.read_text() for path in (tmp_path / "records").glob("*.jsonl")}
    assert pack_records(tmp_path) == {"cost": len(ARMS), "memory": 2}
    assert {path: path.read_text() for path in (tmp_path / "records").glob("*.jsonl")} == packed
    unpack_records(tmp_path)
    assert {path: json.loads(path.read_text()) for path in sorted(paths)} == {
        path: json.loads(text) for path, text in before.items()
    }
    assert load_records(tmp_path).equals(table)


def test_merging_unites_folders_and_refuses_two_results_under_one_key(write, pico, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    write(here)
    write(here, pico.of(arm="v1"), failure="RuntimeError: no")
    write(there, pico.of(arm="v1"))
    write(there, pico.of(arm="v1+cffn"))
    pack_records(there)
    assert merge_records(here, [there]) == 2
    assert sorted(load_records(here)["arm"]) == ["v1", "v1+cffn", "v1+ope"]
    assert merge_records(here, [there]) == 0
    other = tmp_path / "other"
    write(other, pico, result={"params": 11, "macs": 20})
    write(other, pico.of(arm="v1+lsra"))
    with pytest.raises(InputError, match=rf"^pico_v2_v1-ope_{pico.key} differs between .*here and .*other"):
        merge_records(here, [other])
    assert len(load_records(here)) == 3
    with pytest.raises(InputError, match="nowhere' is not possible; allowed: a results folder"):
        merge_records(here, [tmp_path / "nowhere"])


@pytest.mark.parametrize("packed", [False, True])
def test_dropping_moves_records_aside_and_merging_brings_them_back(write_some, tmp_path, packed):
    write_some(tmp_path)
    table = load_records(tmp_path)
    if packed:
        pack_records(tmp_path)
    aside = drop_records(tmp_path, lambda record: record.get("arm") == "v1+ope" and record["measurement"] == "cost")
    assert aside.parent == tmp_path / "dropped"
    assert list(load_records(aside)["arm"]) == ["v1+ope"]
    assert len(load_records(tmp_path)) == len(table) - 1
    assert merge_records(tmp_path, [aside]) == 1
    assert load_records(tmp_path).equals(table)
    assert drop_records(tmp_path, lambda record: False) is None


def test_a_finished_packed_record_counts_more_than_a_failed_one_and_is_never_lost(write, pico, tmp_path):
    write(tmp_path)
    pack_records(tmp_path)
    write(tmp_path, failure="RuntimeError: no")
    assert find_record(tmp_path, pico)["status"] == "done"
    assert len(load_records(tmp_path)) == 1
    for rearrange in (pack_records, unpack_records, pack_records):
        rearrange(tmp_path)
        assert find_record(tmp_path, pico)["status"] == "done"
    write(tmp_path, failure="RuntimeError: no")
    aside = drop_records(tmp_path, lambda record: True)
    assert find_record(aside, pico)["status"] == "done"
    assert find_record(tmp_path, pico) is None


@pytest.mark.parametrize(
    "rearrange", [pack_records, unpack_records, lambda folder: drop_records(folder, lambda _: True)]
)
def test_two_results_of_one_key_are_refused_before_anything_moves(write, tmp_path, rearrange):
    write(tmp_path)
    pack_records(tmp_path)
    write(tmp_path, result={"params": 11, "macs": 20})
    files = {path: path.read_bytes() for path in (tmp_path / "records").rglob("*.json*")}
    with pytest.raises(InputError, match="have different results: keep one of them"):
        rearrange(tmp_path)
    assert {path: path.read_bytes() for path in (tmp_path / "records").rglob("*.json*")} == files
    assert not (tmp_path / "dropped").exists()
