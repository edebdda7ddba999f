"""What fits into a memory budget, as a table for people."""

from typing import Any

import pandas as pd

from ablations.analysis.grouping import describe, group_by
from ablations.report.tables import NOTHING, markdown_rows
from ablations.units import format_bytes

CONDITIONS = ("variant", "base", "attention", "mode", "precision", "device", "channels_last", "checkpointing")


def render_budget(rows: list[dict[str, Any]]) -> str:
    """Returns Markdown: for each group of equal conditions the largest image and the largest batches of each model.

    `rows` are those of `ablations.budget.budget_values`; the predicted peak stands in brackets.
    """
    values = pd.DataFrame(rows)
    budget = format_bytes(int(values["budget_bytes"].iloc[0]))
    sections = [
        f"# What fits into {budget}",
        "The largest square image in multiples of 32 px at batch 1, and the largest batch at each size, with the "
        "predicted peak of the second of two steps: the next size would be over the budget. On a GPU leave room for "
        "its context and for workspaces, which predictions leave out.",
    ]
    refusals = dict.fromkeys((row["model"], row["refused"]) for row in rows if row["refused"])
    for group in group_by(values, CONDITIONS):
        lines = [["Model"]]
        for model, own in group.rows.groupby("model", sort=False):
            answers = [answer for _, answer in own.iterrows()]
            if len(lines) == 1:
                lines[0] += [_question(answer) for answer in answers]
            arm = own["arm"].iloc[0]
            lines.append([str(model) if pd.isna(arm) else arm, *map(_answer, answers)])
        sections += [f"## {describe(group.conditions)}", markdown_rows(lines)]
    sections += [f"{model} refuses a size on the way: {reason}" for model, reason in refusals]
    return "\n\n".join(sections) + "\n"


def _question(answer: pd.Series) -> str:
    return "Largest image, px" if answer["asked"] == "resolution" else f"Largest batch at {answer['resolution']} px"


def _answer(answer: pd.Series) -> str:
    size = answer["resolution" if answer["asked"] == "resolution" else "batch_size"]
    if pd.notna(answer["refused"]):
        return NOTHING
    if pd.isna(answer["peak_memory_bytes"]):
        return "none"
    at_least = "at least " if answer["at_limit"] else ""
    return f"{at_least}{int(size)} ({format_bytes(int(answer['peak_memory_bytes']))})"
