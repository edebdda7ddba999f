"""What came with v2 unadvertised: the base as a whole, its interaction with the toggles, one confounder at a time.

A part is a sum of weighted models, each an arm in a base. Accuracies are compared as `ablations.analysis.accuracy` says
it; costs are exact.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from ablations.analysis.accuracy import STUDY_CONDITIONS, Study, difference_rows, split_studies
from ablations.analysis.effects import RESPONSES, by_arm, exact_columns, split_places
from ablations.analysis.grouping import CONDITIONS, REFERENCE, group_by, tabulated, without
from ablations.analysis.statistics import estimate_contrast
from ablations.config import BASES, CONFOUNDERS, CUMULATIVE, PVT_V1, PVT_V2, PVT_V2_LI, base_confounders
from ablations.errors import pick

_OPE = CUMULATIVE[1]
PUBLISHED_STEP = f"published step to {_OPE}"
BASE_OF_STEP, OPE_OF_STEP = f"base, at {PVT_V1}", "ope, in base v2"
"""The two parts that the published step is made of."""

DIFFERENCE_OF_GAINS = "gain in base v2 minus gain in base v1"
"""The part that says whether toggles and confounders need each other."""

GAIN = f"gain over {REFERENCE}"

Model = tuple[str, str]
"""An arm and a base."""

Part = dict[Model, int]
"""Models and their weights: {(v1+ope, v2): 1, (v1, v2): -1} is what OPE adds in base v2."""

BASE_PARTS: dict[str, Part] = {
    PUBLISHED_STEP: {(_OPE, "published"): 1, (PVT_V1, "published"): -1},
    BASE_OF_STEP: {(PVT_V1, "v2"): 1, (PVT_V1, "v1"): -1},
    OPE_OF_STEP: {(_OPE, "v2"): 1, (PVT_V1, "v2"): -1},
    "ope, in base v1": {(_OPE, "v1"): 1, (PVT_V1, "v1"): -1},
    f"base, at {_OPE}": {(_OPE, "v2"): 1, (_OPE, "v1"): -1},
    f"ReLU, at {PVT_V2_LI}": {(PVT_V2_LI, "published"): 1, (PVT_V2_LI, "v2"): -1},
}
"""What the bases do to the paper's first step.

That is the change of base and then OPE in the new one (the second and third), or OPE in the old base and then the
change (the fourth and fifth). The ReLU of the released linear models is the only other difference between the
cumulative ablation in `published` and in `v2`.
"""


def gain_parts(arm: str) -> dict[str, Part]:
    """Returns the parts of the way from v1 in base v1 to an arm in base v2, its gains in both bases among them."""
    in_v1, in_v2 = ({(arm, base): 1, (PVT_V1, base): -1} for base in ("v1", "v2"))
    return {
        "gain in base v1": in_v1,
        "gain in base v2": in_v2,
        DIFFERENCE_OF_GAINS: in_v2 | {model: -weight for model, weight in in_v1.items()},
        f"base, at {PVT_V1}": {(PVT_V1, "v2"): 1, (PVT_V1, "v1"): -1},
        "base and toggles together": {(arm, "v2"): 1, (PVT_V1, "v1"): -1},
    }


@tabulated
def confounder_values(records: pd.DataFrame, measurement: str) -> Iterator[dict[str, Any]]:
    """Returns how much of the paper's first step is the base's: a row for each of BASE_PARTS that has records.

    `METRIC_part` is a difference over seeds for accuracy, whose parts are one family of Holm's. For costs
    `METRIC_share_percent` is its share of the published step. A model that two bases have in common, as `published` and
    `v1` have arm v1, stands for both. Conditions under which no change of base was measured have no rows.
    """
    pick("measurement", measurement, RESPONSES)
    if measurement == "accuracy":
        for study in _studies(records, "base"):
            yield from _accuracy_parts(study, _parts_of(study.rows, BASE_PARTS))
        return
    for group in split_places(records, measurement, without(CONDITIONS[measurement], "base")):
        parts = _parts_of(group.rows, BASE_PARTS)
        values = {
            metric: {name: _exact(group.rows, metric, part) for name, part in parts.items()}
            for metric in RESPONSES[measurement]
        }
        for name in parts:
            row = group.conditions | {"part": name}
            for metric, own in values.items():
                row |= exact_columns(f"{metric}_part", own[name], _exact(group.rows, metric, {(REFERENCE, "v1"): 1}))
                whole = own.get(PUBLISHED_STEP, math.nan)
                row[f"{metric}_share_percent"] = 100 * own[name] / whole if whole else math.nan
            yield row


@tabulated
def base_gain_values(records: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Returns whether what v2's toggles gain depends on the base: a row a part of `gain_parts`, for each published arm.

    `arm` is the one that v1 is changed to; `top1_part` the difference over seeds. An arm's parts are one family.
    """
    studies = _studies(records, "base")
    for arm in (PVT_V2, PVT_V2_LI):
        for study in studies:
            parts = _parts_of(study.rows, gain_parts(arm))
            if len(parts) == len(gain_parts(arm)):
                yield from _accuracy_parts(study, parts, arm=arm)


def _accuracy_parts(study: Study, parts: Mapping[str, Part], **names: str) -> list[dict[str, Any]]:
    """Returns a row for each part, all of them one family of Holm's."""
    conditions = study.conditions | {"changed": study.conditions["changed"] or None, **names}
    family = []
    for name, part in parts.items():
        models = [(weight, _rows_of(study.rows, model).set_index("seed")["top1"]) for model, weight in part.items()]
        family.append((conditions | {"part": name}, estimate_contrast(models, paired=study.paired)))
    return difference_rows("top1_part", family, study.declared)


@tabulated
def single_confounder_values(records: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Returns what one confounder does by itself: a row for each base, change and arm, against the arm without it.

    `changed` says which confounder was set, such as `stage_norm=every`. Rows of `part` GAIN say how much more
    the arm gains over v1 with the change than without it. `top1_part` is the difference over seeds; the changes within
    one base are one family.
    """
    for study in _studies(records, "changed"):
        values = {
            (str(change), str(arm)): own.set_index("seed")["top1"]
            for (change, arm), own in study.rows.groupby(["changed", "arm"], sort=False)
        }
        family = []
        for (change, arm), top1 in values.items():
            changed = {each.partition("=")[0] for each in change.split(", ")}
            if not changed <= set(CONFOUNDERS) or ("", arm) not in values:
                continue
            effect = [(1.0, top1), (-1.0, values["", arm])]
            parts = {"accuracy": effect}
            if arm != REFERENCE and {(change, REFERENCE), ("", REFERENCE)} <= set(values):
                parts[GAIN] = [*effect, (-1.0, values[change, REFERENCE]), (1.0, values["", REFERENCE])]
            for part, models in parts.items():
                row = {"changed": change, "arm": arm, "part": part, "comparison": f"{part} of {arm}, {change}"}
                family.append((study.conditions | row, estimate_contrast(models, paired=study.paired)))
        yield from difference_rows("top1_part", family, study.declared)


def _studies(records: pd.DataFrame, mixed: str) -> list[Study]:
    """Returns the studies that are equal in all but one condition as one, which names all machines of what it holds."""
    studies = split_studies(records)
    if not studies:
        return []
    rows = pd.concat([study.rows.assign(machines=study.conditions["machines"]) for study in studies])
    return [
        Study(group.conditions | {"machines": "; ".join(group.rows["machines"].unique())}, group.rows)
        for group in group_by(rows, without(STUDY_CONDITIONS, mixed, "machines"))
    ]


def _parts_of(rows: pd.DataFrame, wanted: Mapping[str, Part]) -> dict[str, Part]:
    """Returns the parts whose models all have rows, if among them is a change of base."""
    parts = {name: part for name, part in wanted.items() if all(not _rows_of(rows, model).empty for model in part)}
    return parts if any(name.startswith("base") for name in parts) else {}


def _rows_of(rows: pd.DataFrame, model: Model) -> pd.DataFrame:
    """Returns a model's rows, from the first base that has it, or none."""
    arm, base = model
    of_arm = rows[rows["arm"] == arm]
    for name in (base, *BASES):
        own = of_arm[of_arm["base"] == name]
        if base_confounders(name, arm) == base_confounders(base, arm) and not own.empty:
            return own
    return of_arm.iloc[:0]


def _exact(rows: pd.DataFrame, metric: str, part: Part) -> float:
    """Returns a part of an exact metric; nan where a model has no such count."""
    total = 0.0
    for model, weight in part.items():
        own = _rows_of(rows, model)
        total += weight * (by_arm(own, metric).to_numpy().item(0) if metric in own and len(own) else math.nan)
    return total
