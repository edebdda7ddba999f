"""What a report can hold: every table and figure by kind, and the questions that the headlines answer."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import pandas as pd

from ablations.config import PAPER_TOGGLES, VARIANTS
from ablations.errors import first_line
from ablations.report import accuracy, comparison, cost, counters, dense, effects, memory, paper, speed
from ablations.report.figures import FigureSpec
from ablations.report.tables import Table

SUBJECTS = (comparison, accuracy, effects, dense, cost, counters, paper, memory, speed)
"""What the report is about; each has TABLES and FIGURES."""

TABLES: tuple[Table, ...] = tuple(table for subject in SUBJECTS for table in subject.TABLES)

FIGURES: dict[str, Callable[[pd.DataFrame], list[FigureSpec]]] = {
    kind.name: kind.list_figures for subject in SUBJECTS for kind in subject.FIGURES
}
"""Each kind of figure, and what returns those of it that records give: one for each set of conditions."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A part of the report: what it asks, and the kinds of tables and figures that answer it, the first ones first."""

    name: str
    title: str
    tables: tuple[str, ...]
    figures: tuple[str, ...] = ()


QUESTIONS = (
    Question(
        name="accuracy",
        title="What does each change do to accuracy?",
        tables=("effects_accuracy", "learning_rates"),
        figures=("effects_accuracy", "tradeoff"),
    ),
    Question(
        name="confounders",
        title="What is a confounder's doing?",
        tables=("base_gains", "single_confounders"),
        figures=("base_gains", "single_confounders"),
    ),
    Question(
        name="transfer",
        title="Do the models stand other test resolutions?",
        tables=("resolution_transfer",),
        figures=("resolution_transfer",),
    ),
    Question(
        name="dense",
        title="What does each change do to detection and segmentation?",
        tables=("segmentation", "detection"),
    ),
    Question(
        name="cost",
        title="What does each change cost, by resolution?",
        tables=("table6_ablation",),
        figures=("toggle_costs", "macs_by_resolution"),
    ),
    Question(
        name="counters",
        title="How were the FLOPs counted?",
        tables=("counters",),
    ),
    Question(
        name="memory",
        title="How does memory grow?",
        tables=("memory_growth",),
        figures=("memory",),
    ),
    Question(
        name="speed",
        title="How fast is it?",
        tables=("speed",),
        figures=("speed",),
    ),
)
"""The headlines: what a results folder shows without being asked for more."""

HEADLINE_TABLES = (comparison.COMPARISON.name, *(name for question in QUESTIONS for name in question.tables))
HEADLINE_FIGURES = tuple(dict.fromkeys(kind for question in QUESTIONS for kind in question.figures))

OF_EVERY_BASE = ("effects_accuracy",)
"""Kinds of figures of which every base has a headline: what a toggle does depends on it."""


def list_values(
    records: pd.DataFrame, failures: dict[str, str], names: Collection[str] | None = None
) -> dict[Table, pd.DataFrame]:
    """Returns the values of every table, or of those of `names`, that the records give.

    One that raises is named in `failures`, with why.
    """
    tables = {}
    for table in TABLES:
        if names is not None and table.name not in names:
            continue
        try:
            values = table.values(records)
        except Exception as error:
            failures[f"table {table.name}"] = first_line(error)
            continue
        if not values.empty:
            tables[table] = values
    return tables


def list_figures(
    records: pd.DataFrame, failures: dict[str, str] | None = None, kinds: Collection[str] | None = None
) -> list[FigureSpec]:
    """Returns every figure, or those of `kinds`, that the records give.

    With `failures`, a kind that raises is named there, with why.
    """
    figures: list[FigureSpec] = []
    for kind, list_of_kind in FIGURES.items():
        if kinds is not None and kind not in kinds:
            continue
        try:
            figures += list_of_kind(records)
        except Exception as error:
            if failures is None:
                raise
            failures[f"figures {kind}"] = first_line(error)
    return figures


def headline_figures(figures: list[FigureSpec]) -> list[FigureSpec]:
    """Returns the figure of each kind that QUESTIONS name that says most: of the most images, the largest model, the
    base v2; and that of each set of toggles with one that is not the paper's.

    Of the kinds in OF_EVERY_BASE, further ones stand behind it until every base is shown.
    """

    def weight(spec: FigureSpec) -> tuple[float, ...]:
        named = [panel.conditions for panel in spec.panels]
        images = [each.get("n_train_images") or 0 for each in named]
        sizes = [list(VARIANTS).index(each["variant"]) for each in named if each.get("variant") in VARIANTS]
        return (max(images), max(sizes, default=-1), any(each.get("base") == "v2" for each in named), len(named))

    chosen = []
    for kind in HEADLINE_FIGURES:
        own = [spec for spec in figures if spec.kind == kind]
        by_toggles: dict[str, list[FigureSpec]] = {"": []}  # the paper's first
        for spec in own:
            toggles = str(spec.panels[0].conditions.get("toggles") or "")
            by_toggles.setdefault("" if {*toggles.split(", ")} <= {"", *PAPER_TOGGLES} else toggles, []).append(spec)
        for specs in filter(None, by_toggles.values()):
            shown: set[object] = set()
            for spec in sorted(specs, key=weight, reverse=True):
                bases = {panel.conditions.get("base") for panel in spec.panels}
                if not shown or (kind in OF_EVERY_BASE and bases - shown):
                    chosen.append(spec)
                    shown |= bases
    return chosen
