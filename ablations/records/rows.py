"""A record as a row: its values by column."""

from functools import cache
from math import prod
from typing import Any

from ablations.cells import defaults_of
from ablations.config import TOGGLES, PVTConfig, arm_name, as_pair, is_int, size_text
from ablations.files import value_digest
from ablations.measure import MEASUREMENTS
from ablations.records.columns import CONFIG_COLUMNS
from ablations.studies import find_study, list_studies
from ablations.toggle_files import register_recorded


def record_values(record: dict[str, Any]) -> dict[str, Any]:
    """Returns a record's values by column; one that failed has no results."""
    conditions = conditions_of(record)
    environment = record["environment"]
    resolution = conditions.pop("resolution")
    conditions |= {name: tuple(value) for name, value in conditions.items() if isinstance(value, list)}
    if conditions.get("method") == "predicted":
        environment = environment | {"device_name": None, "threads": None}  # which machine predicts makes no difference
    return {
        "measurement": record["measurement"],
        **_model_columns(record),
        "resolution": size_text(resolution),
        "pixels": prod(as_pair(resolution)),
        **conditions,
        **(record["result"] or {}),
        **{name: environment.get(name) for name in ("device_name", "torch", "threads", "commit")},
        **(_of_training(record) if MEASUREMENTS[record["measurement"]].trains else {}),
        **{name: record[name] for name in ("study", "key", "duration_s")},
    }


def conditions_of(record: dict[str, Any]) -> dict[str, Any]:
    """Returns a record's conditions; an older one lacks fields that came later: their defaults are what it had."""
    kind: Any = MEASUREMENTS[record["measurement"]]
    return defaults_of(kind) | record["conditions"]


def _model_columns(record: dict[str, Any]) -> dict[str, Any]:
    if "model" in record:
        return {"model": record["model"], "variant": None, "arm": None, "base": None}
    config = defaults_of(PVTConfig) | record["config"]
    config["img_size"] = config["img_size"] if is_int(config["img_size"]) else size_text(config["img_size"])
    names = {name: record[name] for name in ("variant", "arm", "base")}
    return {"model": "pvt:" + "/".join(names.values()), **names, **{name: config[name] for name in CONFIG_COLUMNS}}


def _of_training(record: dict[str, Any]) -> dict[str, Any]:
    declared = record["declared_seeds"] if "declared_seeds" in record else _declared_seeds(record["study"])
    return {"processes": record["environment"].get("processes", 1), "declared_seeds": declared}


@cache
def _declared_seeds(study: str) -> int | None:
    """Returns how many seeds a study of the package declares, for records that do not say it; None for another."""
    return find_study(study).seeds() if study in list_studies() else None


def of_newest_files(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leaves out records of what a user's file held before it was changed.

    An arm whose toggle's file has changed keeps its records, under the toggle's name and the digest's beginning.
    """
    newest: dict[str, Any] = {}
    for record in sorted(records, key=lambda record: record["started"]):
        newest |= {record["model"]: record["file_sha256"]} if "file_sha256" in record else {}
        newest |= {name: entry["sha256"] for name, entry in record.get("toggle_files", {}).items()}
    newest |= {name: dict(toggle.digests) for name, toggle in TOGGLES.items() if toggle.path}
    return [
        record if "toggle_files" not in record else _with_earlier_files(record, newest)
        for record in records
        if record.get("file_sha256") == newest.get(record.get("model", ""))
    ]


def _with_earlier_files(record: dict[str, Any], newest: dict[str, Any]) -> dict[str, Any]:
    """Returns a record whose toggles of files that have changed since are named with the digests of those."""
    arm = record["arm"]
    for name, entry in record["toggle_files"].items():
        if entry["sha256"] != newest[name]:
            earlier = f"{name}@{value_digest(entry['sha256'])[:6]}"
            register_recorded({earlier: entry | {"excludes": [*entry["excludes"], name]}})
            arm = "+".join(earlier if part == name else part for part in arm.split("+"))
    known = [part for part in TOGGLES if part in arm.split("+")]
    return record | {"arm": arm_name(known)}
