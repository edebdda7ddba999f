"""Peak memory of our models beside that of the same models of libraries, from memory records of both."""

import pandas as pd

from ablations.baselines.registry import EQUAL_MODELS
from ablations.config import VARIANTS, build_config
from ablations.report.memory_values import MODEL_MEMORY_CONDITIONS

LIBRARY_MEMORY_CONDITIONS = tuple(name for name in MODEL_MEMORY_CONDITIONS if name != "channels_last")
"""What is equal within one table of models and sizes: libraries' models stand there in both layouts."""

LAYOUTS = {"": False, "_channels_last": True}
"""The ending of a column, and whether the library's model lies channels-last in memory."""

KINDS = {"": "peak_memory_bytes", "resident_": "resident_peak_bytes"}
"""What stands before `bytes` in the name of a column, and the number of a record that it has."""

_MODEL = ["variant", "arm"]
_PLACE = [*LIBRARY_MEMORY_CONDITIONS, "resolution", *_MODEL]


def library_memory_values(records: pd.DataFrame) -> pd.DataFrame:
    """Returns our peak memory beside each library's model, under equal conditions and at equal sizes.

    Ours are the arms as published with fused attention, channels-last. `NAME_bytes` is the peak of a library's model
    and `NAME_change_percent` how much more ours is; NAME is `timm` or `transformers`, and either with `_channels_last`.
    `NAME_resident_bytes` and `NAME_resident_change_percent` are the same of resident memory, where it was measured. A
    library's model that refused the size or ran out of memory has no value, and an arm without any has no row. `above`
    says whether ours needs more than the best of timm's, or of transformers' where timm has no such model.
    """
    if "memory_method" not in records:
        return pd.DataFrame()
    memory = records[(records["measurement"] == "memory") & records[KINDS[""]].notna()]
    memory = memory.reindex(columns=list(dict.fromkeys([*memory, "resident_peak_bytes"])))
    values = _own(memory)[[*_PLACE, "pixels", *KINDS.values()]]
    for library in EQUAL_MODELS:
        theirs = _theirs(memory, library)
        for ending, channels_last in LAYOUTS.items():
            name = f"{library}{ending}"
            peaks = theirs.loc[theirs["channels_last"] == channels_last, [*_PLACE, *KINDS.values()]]
            named = peaks.rename(columns={column: f"{name}_{kind}bytes" for kind, column in KINDS.items()})
            values = values.merge(named, how="left", on=_PLACE)
            for kind, column in KINDS.items():
                change = 100 * (values[column] / values[f"{name}_{kind}bytes"] - 1)
                values[f"{name}_{kind}change_percent"] = change.astype(float)
    least = {
        library: values[[f"{library}{end}_bytes" for end in LAYOUTS]].min(axis="columns") for library in EQUAL_MODELS
    }
    goal = least["timm"].fillna(least["transformers"])
    values = values.assign(above=values[KINDS[""]] > goal)[goal.notna()]
    case = values["variant"] + " " + values["arm"] + ", " + values["resolution"] + " px"
    order = ["device", "method", "mode", "precision", "variant", "arm", "pixels"]
    return values.assign(case=case).sort_values(order, kind="stable", ignore_index=True)


def _own(memory: pd.DataFrame) -> pd.DataFrame:
    """Returns the records of arms that libraries' models are equal to, at their best."""
    if "base" not in memory or "attention" not in memory:
        return memory.iloc[:0]
    usual_pools = {variant: build_config(variant).pool_size for variant in VARIANTS}
    best = (memory["attention"] == "fused") & memory["channels_last"] & (memory["checkpointing"] == "none")
    published = (memory["base"] == "published") & (memory["pool_size"] == memory["variant"].map(usual_pools))
    return memory[(best & published).fillna(False)]


def _theirs(memory: pd.DataFrame, library: str) -> pd.DataFrame:
    """Returns the records of a library's models, under the variant and the arm that each is equal to."""
    names = [(*place, model) for place, model in EQUAL_MODELS[library].items()]
    named = pd.DataFrame(names, columns=[*_MODEL, "model"])
    return named.merge(memory.drop(columns=_MODEL), on="model")
