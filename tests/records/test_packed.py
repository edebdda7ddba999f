"""Packed records: a damaged line is named, and the others stand."""

import json

import pytest

from ablations.config import ARMS
from ablations.errors import InputError
from ablations.records import load_records
from ablations.records.folder import read_records
from ablations.records.rearrange import pack_records
from ablations.schema import SCHEMA


def test_a_damaged_line_is_named_and_the_others_stand(write_some, tmp_path):
    write_some(tmp_path)
    pack_records(tmp_path)
    path = tmp_path / "records" / "cost.jsonl"
    lines = path.read_text().splitlines()
    lines[2] = lines[2].replace('"params": 10', '"params": 11')
    lines[4] = lines[4][:50]
    path.write_text("\n".join(lines) + "\n")
    damaged = {
        "records/cost.jsonl, line 3": "it was changed after it was measured",
        "records/cost.jsonl, line 5": "not JSON",
    }
    assert read_records(tmp_path).damaged == damaged
    assert len(load_records(tmp_path, "cost")) == len(ARMS) - 2
    with pytest.raises(InputError, match=r"records/cost.jsonl, line 3: it was changed"):
        pack_records(tmp_path)
    assert read_records(tmp_path).damaged == damaged
    path.write_text("{}\n")
    assert read_records(tmp_path).damaged == {
        "records/cost.jsonl": f"its first line has no environments of schema {SCHEMA}"
    }


def test_a_packed_line_of_another_form_is_named(write, tmp_path):
    path = write(tmp_path)
    own = path.read_text()
    pack_records(tmp_path)
    packed = tmp_path / "records" / "cost.jsonl"
    packed.write_text(packed.read_text() + json.dumps(json.loads(own)) + "\n")
    assert read_records(tmp_path).damaged == {"records/cost.jsonl, line 3": "its environment is not in the first line"}
