"""What a record may say: values of another kind, size or shape make a damaged record, and no other error."""

import copy
import json
import os
import shutil
import time
from contextlib import suppress
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ablations.cells import address
from ablations.cli import main
from ablations.config import PVTConfig
from ablations.errors import InputError
from ablations.records.folder import read_records
from ablations.records.rearrange import pack_records, unpack_records
from ablations.records.record_file import LARGEST_RECORD, read_record
from ablations.records.table import tabulate
from ablations.report.build import build_report, check_report
from ablations.report.tables import render_csv
from ablations.schema import DEEPEST, OF_ARM, OF_MODEL, check_record, record_digest

RESULTS = Path(__file__).parents[1] / "results"

FEW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 0, 2**63, 2**64, 10**400, float("nan"), float("inf"), -0.5, 1e308, 5e-324]),
    st.text(max_size=8),
    st.sampled_from(["=1+1", "a|b", "\ud800", "x\ny", "\u202e", "../../x", "x" * 200_000, "v1+nothing"]),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
"""What an accident or somebody may write in place of a value."""


@pytest.fixture(scope="module")
def one_of_each() -> dict[str, dict[str, Any]]:
    """A committed record of an arm for each measurement."""
    return {record["measurement"]: record for record in read_records(RESULTS).records if "arm" in record}


def sealed(record: dict[str, Any]) -> dict[str, Any]:
    """Returns a record with the address and the digest of what it says, as one who means it would write it."""
    names = (*(OF_MODEL if "model" in record else OF_ARM), "file_sha256")
    with suppress(KeyError, TypeError, AttributeError):  # what is so odd has no address
        record["key"] = address({name: record[name] for name in names if name in record})
    return record | {"digest": record_digest(record)}


def places(value: Any, place: tuple = ()) -> list[tuple]:
    """Returns the ways to all values within a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(each for name, part in inner for each in places(part, (*place, name)))]


def with_value(record: dict[str, Any], place: tuple, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(record)
    holder: Any = changed
    for name in place[:-1]:
        holder = holder[name]
    holder[place[-1]] = value
    return changed


def edits(data: st.DataObject, record: dict[str, Any]) -> dict[str, Any]:
    place = data.draw(st.sampled_from([each for each in places(record) if each]))
    return sealed(with_value(record, place, data.draw(JUNK)))


@FEW
@given(data=st.data())
@pytest.mark.parametrize("measurement", ["accuracy", "cost", "memory", "speed"])
def test_an_edited_record_is_a_record_or_damaged(one_of_each, measurement, data):
    record = edits(data, one_of_each[measurement])
    with suppress(ValueError):
        check_record(record)
        assert len(tabulate([record])) == 1


@pytest.mark.slow
@settings(FEW, max_examples=150)
@given(data=st.data())
@pytest.mark.parametrize("measurement", ["accuracy", "cost", "memory", "speed"])
def test_an_edited_record_takes_no_report_down(one_of_each, tmp_path, measurement, data):
    results = tmp_path / "results"
    shutil.rmtree(results, ignore_errors=True)
    folder = results / "records" / measurement
    folder.mkdir(parents=True)
    record = edits(data, one_of_each[measurement])
    (folder / f"one_{record['key']}.json").write_text(json.dumps(record))
    (folder / f"two_{one_of_each[measurement]['key']}.json").write_text(json.dumps(one_of_each[measurement]))
    assert build_report(results, everything=True, with_figures=False, with_page=True).not_rebuilt == {}


IMPOSSIBLE = {
    "accuracy": [
        (("result", "top1"), 1.01),
        (("result", "n_eval_images"), 0),
        (("result", "correct"), "AAAA"),
        (("result", "history", 0), {"epoch": 1}),
        (("result", "history", 0, "loss"), float("inf")),
        (("result", "wait_fraction"), -1e-9),
        (("conditions", "seed"), 2**63),
        (("conditions", "base_lr"), "0.1"),
        (("conditions", "mixup"), True),
        (("conditions", "data"), "two\nlines"),
        (("environment", "processes"), 0),
        (("environment", "device_name"), {"name": "CPU"}),
        (("environment", "data_sha256"), 7),
        (("environment", "data_sha256"), "0" * 63 + "g"),
        (("environment", "cores"), "8"),
        (("environment", "timm"), 1.0),
        (("environment", "tf32"), "no"),
        (("started",), "yesterday"),
        (("duration_s",), None),
    ],
    "cost": [
        (("result", "params"), 2**63),
        (("result", "breakdown"), [1]),
        (("result", "macs_by_operator", "addmm"), -1),
        (("result", "refused"), 7),
        (("config", "depths"), [1, 1, 1]),
        (("config", "toggles"), ["lsra", "ope"]),
        (("conditions", "resolution"), 2**17),
        (("conditions", "head"), "tail"),
        (("study",), None),
    ],
    "memory": [
        (("result", "peak_memory_bytes"), 1.5),
        (("result", "memory_method"), ["tracked"]),
        (("conditions", "checkpointing"), "5"),
        (("conditions", "channels_last"), 1),
    ],
    "speed": [
        (("result", "latency_s"), 0.0),
        (("result", "samples"), []),
        (("result", "samples"), [1.0]),
        (("result", "noisy"), 0),
        (("result", "noisy"), None),
        (("result", "peak_samples"), {"1": "x"}),
        (("conditions", "reference"), "v3"),
    ],
}


@pytest.mark.parametrize(
    ("measurement", "place", "value"),
    [(name, *edit) for name, every in IMPOSSIBLE.items() for edit in every],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else str(value)[:20],
)
def test_what_cannot_be_is_refused_though_the_digest_says_it(one_of_each, measurement, place, value):
    check_record(sealed(one_of_each[measurement]))
    with pytest.raises(ValueError, match=r"^(it|its|this version) "):
        check_record(sealed(with_value(one_of_each[measurement], place, value)))


def test_what_is_too_deep_is_refused(one_of_each):
    deep: Any = 1
    for _ in range(DEEPEST + 1):
        deep = [deep]
    with pytest.raises(ValueError, match="sparks"):
        check_record(sealed(with_value(one_of_each["cost"], ("result", "sparks"), deep)))


def write_own(results: Path, record: dict[str, Any]) -> Path:
    folder = results / "records" / record["measurement"]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"one_{record['key']}.json"
    path.write_text(json.dumps(record))
    return path


@pytest.mark.parametrize("kind", ["pipe", "device", "loop", "large", "socket folder"])
def test_what_is_no_regular_file_of_bounded_size_is_named_at_once(tmp_path, one_of_each, kind):
    path = write_own(tmp_path, one_of_each["cost"])
    path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to(path)
        case "large":
            with path.open("wb") as file:
                file.truncate(LARGEST_RECORD + 1)
        case _:
            path.mkdir()
    start = time.monotonic()
    (reason,) = read_records(tmp_path).damaged.values()
    assert reason.startswith("cannot be read: ")
    assert time.monotonic() - start < 5


def test_a_pack_that_is_a_pipe_is_named(tmp_path):
    (tmp_path / "records").mkdir()
    os.mkfifo(tmp_path / "records" / "cost.jsonl")
    assert read_records(tmp_path).damaged == {"records/cost.jsonl": "cannot be read: not a regular file"}


def test_links_among_folders_end(tmp_path, one_of_each):
    write_own(tmp_path, one_of_each["cost"])
    (tmp_path / "records" / "again").symlink_to(tmp_path / "records")
    (tmp_path / "records" / "cost" / "above").symlink_to(tmp_path)
    found = read_records(tmp_path)
    assert (len(found.records), found.damaged) == (1, {})


def unlistable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a folder that cannot be listed, for root too."""
    list_all = os.scandir

    def refuse(place: Any) -> Any:
        if Path(place) == folder:
            raise PermissionError(13, "Permission denied", str(place))
        return list_all(place)

    monkeypatch.setattr(os, "scandir", refuse)


@pytest.mark.parametrize("folder", ["records", "records/cost"])
def test_a_folder_that_cannot_be_listed_ends_the_report_before_it_removes_anything(
    tmp_path, one_of_each, monkeypatch, folder
):
    write_own(tmp_path, one_of_each["cost"])
    build_report(tmp_path, everything=True, with_figures=False)
    before = sorted((tmp_path / "tables").iterdir())
    assert before
    unlistable(tmp_path / folder, monkeypatch)
    for action in (build_report, check_report):
        with pytest.raises(InputError, match=r"allowed: a folder that can be listed \(Permission denied\)"):
            action(tmp_path)
    assert main(["report", "--all", "--results", str(tmp_path)]) == 2
    assert sorted((tmp_path / "tables").iterdir()) == before


def test_without_records_no_table_and_no_figure_is_removed(tmp_path, one_of_each):
    path = write_own(tmp_path, one_of_each["cost"])
    build_report(tmp_path, everything=True, with_figures=False)
    (tmp_path / "figures").mkdir(exist_ok=True)
    (tmp_path / "figures" / "cost.png").write_bytes(b"drawn before")
    before = sorted(tmp_path.glob("*s/*.*"))
    path.unlink()
    with pytest.raises(InputError, match="cannot be rebuilt, and are left as they are"):
        build_report(tmp_path)
    assert main(["report", "--results", str(tmp_path)]) == 2
    assert sorted(tmp_path.glob("*s/*.*")) == before


def test_a_table_names_the_damaged_record_that_it_lacks(tmp_path, one_of_each):
    write_own(tmp_path, one_of_each["speed"])
    broken = write_own(tmp_path, one_of_each["speed"] | {"key": "0" * 16})
    build_report(tmp_path, everything=True, with_figures=False, with_page=True)
    place = broken.relative_to(tmp_path).as_posix()
    said = f"Damaged, and left out of this table: {place}: its description was changed after it was measured."
    for name in ("tables/speed.md", "tables/speed.tex", "report.html"):
        assert said in (tmp_path / name).read_text(), name
    assert "Damaged" not in (tmp_path / "tables/speed.csv").read_text()


def test_a_pack_is_read_as_it_was_written_and_edits_show(tmp_path, one_of_each):
    path = write_own(tmp_path, one_of_each["accuracy"])
    text = path.read_text()
    pack_records(tmp_path)
    pack = tmp_path / "records" / "accuracy.jsonl"
    (record,) = read_records(tmp_path).records
    assert record == json.loads(text)
    lines = pack.read_text().splitlines()
    pack.write_text(lines[0].replace('"threads": 1', '"threads": 2') + "\n" + lines[1] + "\n")
    assert read_records(tmp_path).damaged == {"records/accuracy.jsonl, line 2": "it was changed after it was measured"}
    pack.write_text("\n".join(lines) + "\n")
    unpack_records(tmp_path)
    assert [read_record(each) for each in path.parent.iterdir()] == [json.loads(text)]


def test_a_formula_stays_text_in_a_spreadsheet(one_of_each):
    record = {name: one_of_each["cost"][name] for name in one_of_each["cost"] if name not in (*OF_ARM[1:5],)}
    table = tabulate([sealed(record | {"model": "=cmd|' /C calc'!A0"})])
    assert "'=cmd|' /C calc'!A0" in render_csv(table[["model", "params"]])
    assert render_csv(table[["model"]].assign(model=-1.5)) == "model\n-1.5\n"


def test_many_packed_records_of_one_training_are_all_checked(tmp_path, one_of_each):
    record = one_of_each["accuracy"]
    others = [sealed(with_value(record, ("conditions", "seed"), seed)) for seed in range(500)]
    others[7]["result"] |= {"top1": 0.5}  # without its digest
    (tmp_path / "records").mkdir()
    pack = tmp_path / "records" / "accuracy.jsonl"
    name = "all"
    with pack.open("w") as file:
        file.write(json.dumps({"schema": record["schema"], "environments": {name: record["environment"]}}) + "\n")
        file.writelines(json.dumps(each | {"environment": name}) + "\n" for each in others)
    found = read_records(tmp_path)
    assert len(tabulate(found.records)) == 499
    assert len(found.damaged) == 1


@pytest.fixture(scope="module")
def two_arms() -> list[dict[str, Any]]:
    """Committed records of two arms of one model, up to six of each arm and measurement."""
    chosen: dict[tuple, list[dict[str, Any]]] = {}
    for record in read_records(RESULTS).records:
        if record.get("variant") == "nano" and record["base"] == "v2" and record["arm"] in ("v1", "v1+lsra"):
            chosen.setdefault((record["measurement"], record["arm"]), []).append(record)
    assert {measurement for measurement, _ in chosen} >= {"accuracy", "cost", "memory", "speed"}
    return [record for each in chosen.values() for record in each[:6]]


@pytest.fixture(scope="module")
def beside_libraries() -> list[dict[str, Any]]:
    """Committed speeds of one model beside libraries' models."""
    speeds = (each for each in read_records(RESULTS).records if each["measurement"] == "speed")
    return [each for each in speeds if each["variant"] == "nano" and each["conditions"]["reference"] != "v1"]


def write_all(results: Path, records: list[dict[str, Any]]) -> None:
    for record in map(sealed, records):
        path = results / "records" / record["measurement"] / f"x_{record['key']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("left_out", "is_needed"),
    [
        ("macs", False),
        ("correct", False),
        ("peak_samples", False),
        ("n_eval_images", True),
        ("references", True),
        ("memory_method", True),
        ("reference_samples", True),
        ("throughput_img_per_s", True),
    ],
)
def test_what_every_record_lacks_is_named_or_not_needed(
    two_arms, beside_libraries, tmp_path, capsys, left_out, is_needed
):
    records = copy.deepcopy(two_arms + beside_libraries)
    without = [record for record in records if record["result"].pop(left_out, None) is not None]
    assert without
    write_all(tmp_path, records)
    reasons = list(read_records(tmp_path).damaged.values())
    assert reasons == [f"its result has no {left_out}"] * len(without) * is_needed
    assert main(["report", "--all", "--html", "--no-figures", "--results", str(tmp_path)]) == 0
    assert capsys.readouterr().err.count(f"its result has no {left_out}") == len(reasons)
    assert main(["compare", "--results", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_no_report_and_no_run_needs_a_field_that_has_a_default(two_arms, tmp_path, capsys):
    """A record from before the field was added lacks it."""
    records = copy.deepcopy(two_arms)
    for record in records:
        needed = {each.name for each in fields(PVTConfig) if each.default is MISSING}
        record["config"] = {name: value for name, value in record["config"].items() if name in needed}
        is_needed = ("seed",) if record["measurement"] == "accuracy" else ("resolution", "mode", "method")
        record["conditions"] = {name: record["conditions"][name] for name in is_needed if name in record["conditions"]}
    bare = next(record for record in two_arms if record["measurement"] == "memory")
    records.append(copy.deepcopy(bare) | {"conditions": {}})
    write_all(tmp_path, records)
    damaged = read_records(tmp_path).damaged
    assert {why.partition(":")[0] for why in damaged.values()} <= {"its model cannot be"}
    assert len(damaged) < len(records) / 2
    assert main(["report", "--all", "--html", "--no-figures", "--results", str(tmp_path)]) == 0
    args = ["--variants", "pico", "--arms", "v1", "--resolutions", "64", "--results", str(tmp_path)]
    assert main(["cost", *args]) == 0
    assert "internal error" not in capsys.readouterr().err
