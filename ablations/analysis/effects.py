"""What each toggle does by itself and beside the others: effects, steps, orders of adding, Shapley values.

A factorial is every setting of k toggles. Which toggles those are follows from the arms that records have under equal
conditions, and arms that a study lacks are never asked for. Tables of values have one row a seed and one column an
arm; a value without noise is a table of one row.

Scales: with all signs taken from -1 (off) and +1 (on), an effect is the mean where the product of its toggles' signs
is +1 minus the mean where it is -1. So a main effect is the mean with the toggle minus the mean without it, over all
settings of the others; the interaction of two is half of how much more the first does with the second than without it,
and so on for more (Box, Hunter & Hunter, "Statistics for Experimenters", chapter 5). Effects are in the unit of the
values.

Accuracies have noise. Each seed's contrast is one value, and a t interval over the seeds follows, which holds whatever
arms' variances are and whatever a seed does to a toggle; the pooled linear model, which takes variances to be equal and
a toggle to do the same in every seed, stands beside it as `pooled`. The primary family is the effects of one
factorial, main effects and interactions, corrected by Holm; steps, Shapley values, which effect is the larger one, and
what an interaction means have families of their own. Costs are exact, in the records' unit, and `NAME_percent` is in
percent of the reference's value: additive, as costs are.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations, permutations
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.formula.api import ols

from ablations.analysis.accuracy import Study, difference_rows, split_studies
from ablations.analysis.grouping import AXES, CONDITIONS, Group, group_arms, tabulated
from ablations.analysis.statistics import (
    CONFIDENCE,
    FEWEST_FOR_INTERVAL,
    ROUNDING,
    Estimate,
    check_seeds,
    estimate_difference,
    estimate_mean,
    seeds_needed,
)
from ablations.config import BASES, PAPER_TOGGLES, TOGGLES, arm_name, arms_of, clash
from ablations.errors import pick
from ablations.measure import MEASUREMENTS

RESPONSES = {name: kind.responses for name, kind in MEASUREMENTS.items() if kind.responses}
"""The metrics of each measurement that toggles have effects on."""

CLEAN_BASES = tuple(base for base in BASES if base != "published")
"""Those in which arms differ in nothing but toggles."""


def toggles_of(arm: str) -> tuple[str, ...]:
    """Returns the short names in an arm's name."""
    return tuple(arm.split("+")[1:])


@dataclass(frozen=True)
class Step:
    """One toggle added to an arm that lacks it: an edge of the cube of arms."""

    toggle: str
    start: str
    end: str

    @property
    def name(self) -> str:
        return f"+{self.toggle} at {self.start}"


@dataclass(frozen=True)
class Factorial:
    """Every setting of some toggles, beside others that are on in all arms."""

    toggles: tuple[str, ...]
    common: tuple[str, ...] = ()

    def arm_with(self, toggles: Collection[str]) -> str:
        """Returns the arm in which these toggles of the factorial are on."""
        return arm_name(name for name in TOGGLES if name in toggles or name in self.common)

    @cached_property
    def arms(self) -> tuple[str, ...]:
        """All arms, those with the fewest toggles first."""
        return tuple(map(self.arm_with, _subsets(self.toggles)))

    @cached_property
    def effects(self) -> dict[str, tuple[str, ...]]:
        """Main effects and interactions by name, such as `ope` and `ope:cffn`, with the toggles that each is of."""
        return {":".join(own): own for own in _subsets(self.toggles) if own}

    @cached_property
    def signs(self) -> pd.DataFrame:
        """The design, effect-coded: +1 or -1 for each arm (rows) and effect (columns). All columns are orthogonal."""
        return _effect_signs(self.arms, self.effects)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """Each toggle added at every setting of the others."""
        return tuple(
            Step(toggle, self.arm_with(own), self.arm_with([*own, toggle]))
            for toggle in self.toggles
            for own in _subsets([other for other in self.toggles if other != toggle])
        )

    @cached_property
    def orders(self) -> tuple[tuple[str, ...], ...]:
        """All orders in which the toggles can be added one by one."""
        return tuple(permutations(self.toggles))

    def steps_of(self, order: tuple[str, ...]) -> tuple[Step, ...]:
        """Returns the steps from the arm with none of the toggles to that with all, in one of the orders."""
        return tuple(
            Step(toggle, self.arm_with(order[:place]), self.arm_with(order[: place + 1]))
            for place, toggle in enumerate(order)
        )

    def complete(self, values: pd.DataFrame) -> pd.DataFrame:
        """Returns the rows of the seeds that have every arm; raises ValueError if a seed occurs twice."""
        check_seeds(values)
        return values.reindex(columns=list(self.arms)).dropna().astype(float)

    def contrasts(self, complete: pd.DataFrame) -> pd.DataFrame:
        """Returns the effects (columns) in each row of complete values; whole numbers give exact ones."""
        return complete[list(self.arms)] @ self.signs / (len(self.arms) / 2)

    def shapley(self, complete: pd.DataFrame, toggle: str) -> pd.Series:
        """Returns the Shapley value of a toggle in each row: the mean of what it adds over all orders.

        All toggles' values add up to the difference between the arm with all and the arm with none of them.
        """
        k = len(self.toggles)
        total = pd.Series(0.0, index=complete.index)
        for step in self.steps:
            if step.toggle == toggle:
                before = len(toggles_of(step.start)) - len(self.common)
                orders = math.factorial(before) * math.factorial(k - before - 1)  # in which just these come before
                total += orders * (complete[step.end] - complete[step.start])
        return total / math.factorial(k)


def spanning(arms: Iterable[str]) -> Factorial:
    """Returns the factorial of all toggles in which arms differ, beside those that all of them have."""
    settings = list(map(toggles_of, arms))
    common = tuple(name for name in TOGGLES if all(name in setting for setting in settings))
    varied = (name for name in TOGGLES if name not in common and any(name in setting for setting in settings))
    return Factorial(tuple(varied), common)


def _effect_signs(arms: Collection[str], effects: Mapping[str, tuple[str, ...]]) -> pd.DataFrame:
    """Returns +1 or -1 for each arm (rows) and effect (columns): the product of its toggles' signs."""
    settings = list(map(toggles_of, arms))
    columns = {
        effect: [math.prod(1 if toggle in setting else -1 for toggle in own) for setting in settings]
        for effect, own in effects.items()
    }
    return pd.DataFrame(columns, index=pd.Index(arms, name="arm"))


def _subsets(names: Collection[str]) -> Iterator[tuple[str, ...]]:
    """Yields all sets of some names, the smallest first."""
    return chain.from_iterable(combinations(names, size) for size in range(len(names) + 1))


def find_factorials(arms: Iterable[str]) -> list[Factorial]:
    """Returns the largest factorials that these arms hold in full, added to what all have in common.

    The paper's stands for itself where it is whole, so that arms with further toggles leave it as it is. Toggles that
    exclude each other are in factorials of their own, which share the other toggles. Where an arm belongs to no
    factorial, or two share a toggle for want of arms, the study is unfinished, and only the paper's is returned, if
    whole.
    """
    present = _of_known_toggles(arms)
    if not present:
        return []
    widest = spanning(present)
    possible = (Factorial(own, widest.common) for own in widest.effects.values())
    whole = [factorial for factorial in possible if set(factorial.arms) <= set(present)]
    largest = [one for one in whole if not any(set(one.toggles) < set(other.toggles) for other in whole)]
    in_one = set(chain.from_iterable(factorial.arms for factorial in largest))
    shared = any(
        set(one.toggles) & set(other.toggles) and not _exclude(one, other) for one, other in combinations(largest, 2)
    )
    if shared or set(present) - in_one:
        largest = []
    papers = [factorial for factorial in whole if factorial.toggles == PAPER_TOGGLES]
    return list(dict.fromkeys([*papers, *largest]))


def _of_known_toggles(arms: Iterable[str]) -> list[str]:
    return [arm for arm in dict.fromkeys(arms) if set(toggles_of(arm)) <= set(TOGGLES)]


def _exclude(one: Factorial, other: Factorial) -> bool:
    """Whether no factorial could have the toggles of both."""
    return any(clash(first, second) for first in one.toggles for second in other.toggles if first != second)


@dataclass(frozen=True)
class PartialDesign:
    """The arms that there are where some are missing, and which effects they tell apart.

    Effects are taken in, main effects first, as long as the arms' values decide them. What is left over is aliased: to
    these arms it is one with effects that were taken in, which hold it too.
    """

    arms: tuple[str, ...]

    @cached_property
    def factorial(self) -> Factorial:
        """The whole of which arms are missing."""
        return spanning(self.arms)

    @cached_property
    def signs(self) -> pd.DataFrame:
        """+1 or -1 for each arm (rows) and each effect (columns) whose toggles some arm could have together."""
        possible = {
            effect: own
            for effect, own in self.factorial.effects.items()
            if not any(clash(*pair) for pair in combinations(own, 2))
        }
        return _effect_signs(self.arms, possible)

    @cached_property
    def _model(self) -> pd.DataFrame:
        """The columns of a mean and of the effects that are estimated: as many as the arms decide."""
        model = pd.DataFrame({"mean": 1.0}, index=self.signs.index)
        for effect in map(str, self.signs):
            wider = model.assign(**{effect: self.signs[effect]})
            model = wider if np.linalg.matrix_rank(wider.to_numpy()) == wider.shape[1] else model
        return model

    @cached_property
    def aliases(self) -> dict[str, tuple[str, ...]]:
        """For each effect those that it cannot be told from; none where the arms decide it."""
        left_out = [effect for effect in self.signs if effect not in self._model]
        weights = np.linalg.pinv(self._model.to_numpy()) @ self.signs[left_out].to_numpy()
        held = pd.DataFrame(np.abs(weights) > ROUNDING**0.5, index=list(self._model), columns=left_out)
        return {
            effect: tuple(
                held.columns[held.loc[effect].to_numpy()]
                if effect in held.index
                else held.index[held[effect].to_numpy()]
            )
            for effect in map(str, self.signs)
        }

    def contrasts(self, values: pd.DataFrame) -> pd.DataFrame:
        """Returns the effects that are estimated (columns) in each row of values that has all of the arms."""
        weights = 2 * np.linalg.pinv(self._model.to_numpy())
        contrasts = values[list(self.arms)].to_numpy() @ weights.T
        return pd.DataFrame(contrasts, index=values.index, columns=list(self._model)).drop(columns="mean")


def find_partial(arms: Iterable[str]) -> PartialDesign | None:
    """Returns the design of arms that are not all in factorials; None where they are, or one toggle varies."""
    known = _of_known_toggles(arms)
    in_one = set(chain.from_iterable(factorial.arms for factorial in find_factorials(known)))
    design = PartialDesign(tuple(sorted(known, key=lambda arm: (len(toggles_of(arm)), arm))))
    return design if set(known) - in_one and len(known) > 2 and len(design.factorial.toggles) > 1 else None


@tabulated
def partial_effect_values(records: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Returns the effects on accuracy where a factorial's arms are not all there: `top1_effect_…`, a row an `effect`.

    `aliases` are the effects that it cannot be told from. One without `top1_effect_mean` is aliased with effects that
    have one. Rows of seeds that lack one of the arms are left out.
    """
    for study in split_studies(records[records["base"].isin(CLEAN_BASES)]):
        design = find_partial(study.rows["arm"].unique())
        if design is None:
            continue
        values = by_arm(study.rows, "top1")
        check_seeds(values)
        complete = values[list(design.arms)].dropna().astype(float)
        if complete.empty:
            continue
        contrasts = design.contrasts(complete)
        names = study.conditions | {"toggles": ", ".join(design.factorial.toggles)}
        possible = set(design.factorial.arms) & set(arms_of((*design.factorial.toggles, *design.factorial.common)))
        names |= {"n_arms": len(design.arms), "n_arms_missing": len(possible - set(design.arms))}
        names |= {"n_seeds": len(complete), "n_seeds_left_out": len(values) - len(complete)}
        rows = {
            effect: names | {"effect": effect, "aliases": ", ".join(aliases)}
            for effect, aliases in design.aliases.items()
        }
        family = [(rows[effect], estimate_mean(contrasts[effect])) for effect in map(str, contrasts)]
        estimated = {row["effect"]: row for row in difference_rows("top1_effect", family, study.declared)}
        yield from (estimated.get(effect, row) for effect, row in rows.items())


def estimate_effects(factorial: Factorial, values: pd.DataFrame, declared: int | None = None) -> pd.DataFrame:
    """Returns the effects from the seeds that have every arm: contrasts by seed, t intervals, Holm over all.

    Columns: `effect`; `order`, the number of toggles it is of; `n_seeds` and `n_seeds_left_out`; those of
    `difference_rows` without a name before them (`mean`, `low`, `high`, `p`, `p_holm`, `sign_flip_p`, `resolved` …);
    and `pooled_low`, `pooled_high`, `pooled_p` of the pooled linear model. Raises ValueError if a seed occurs twice.
    """
    complete = factorial.complete(values)
    contrasts = factorial.contrasts(complete)
    pooled = _pooled_model(factorial, complete)
    seeds = {"n_seeds": len(complete), "n_seeds_left_out": len(values) - len(complete)}
    family = [
        ({"effect": effect, "order": len(toggles), **seeds}, estimate_mean(contrasts[effect]))
        for effect, toggles in factorial.effects.items()
    ]
    return pd.DataFrame([row | pooled[str(row["effect"])] for row in difference_rows("", family, declared)])


def _pooled_model(factorial: Factorial, complete: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Returns the interval and p of each effect in a linear model with a block for each seed.

    It pools the (2^k - 1)(n - 1) degrees of freedom of all effects. One seed has neither, as values without noise.
    """
    names = ("pooled_low", "pooled_high", "pooled_p")
    nothing = dict(zip(names, [math.nan] * len(names), strict=True))
    if len(complete) < 2:
        return dict.fromkeys(factorial.effects, nothing)
    rows = complete.rename_axis("seed").reset_index().melt("seed", var_name="arm", value_name="value")
    rows = rows.astype({"seed": str}).join(factorial.signs[list(factorial.toggles)], on="arm")
    fit = ols(f"value ~ C(seed) + {' * '.join(factorial.toggles)}", rows).fit()
    if fit.ssr <= ROUNDING**2 * (rows["value"] ** 2).sum():
        return dict.fromkeys(factorial.effects, nothing)
    # A coefficient is the change from the mean to one side; an effect is from one side to the other.
    ends = 2 * fit.conf_int(1 - CONFIDENCE)
    return {
        effect: dict(zip(names, [*ends.loc[effect].tolist(), float(fit.pvalues[effect])], strict=True))
        for effect in factorial.effects
    }


@dataclass(frozen=True)
class FactorialStudy:
    """The values of a factorial's arms under one set of conditions: by metric, a column an arm and a row a seed."""

    conditions: dict[str, Any]
    factorial: Factorial
    tables: dict[str, pd.DataFrame]
    """Without noise there is one row."""
    has_noise: bool = False
    paired: bool = True
    declared: int | None = None

    @cached_property
    def complete(self) -> dict[str, pd.DataFrame]:
        """The values of the seeds that have every arm."""
        return {metric: self.factorial.complete(values) for metric, values in self.tables.items()}

    @cached_property
    def references(self) -> dict[str, float]:
        """The mean of each metric of the arm without the toggles."""
        return {metric: float(values[self.factorial.arms[0]].mean()) for metric, values in self.complete.items()}

    @property
    def names(self) -> dict[str, Any]:
        """The conditions, the toggles that are varied, and how many seeds have every arm."""
        names = self.conditions | {"toggles": ", ".join(self.factorial.toggles)}
        if self.has_noise:
            (values,), (complete,) = self.tables.values(), self.complete.values()
            names |= {"n_seeds": len(complete), "n_seeds_left_out": len(values) - len(complete)}
            names |= {"declared_seeds": self.declared} if self.declared else {}
        return names

    def estimate_step(self, step: Step) -> Estimate:
        """Returns what a step adds to the accuracy, from the seeds that have every arm."""
        (values,) = self.complete.values()
        return estimate_difference(values[step.end], values[step.start], paired=self.paired)


def exact_columns(name: str, difference: float, reference: float) -> dict[str, float]:
    """Returns a difference and what percent of the reference it is, as columns `NAME` and `NAME_percent`."""
    return {name: difference, f"{name}_percent": 100 * difference / reference}


def list_factorial_studies(records: pd.DataFrame, measurement: str) -> Iterator[FactorialStudy]:
    """Yields the factorials of a measurement's records in CLEAN_BASES, each under its conditions.

    Raises InputError for a measurement that is none of RESPONSES, and where two records stand in one place.
    """
    pick("measurement", measurement, RESPONSES)
    clean = records[records["base"].isin(CLEAN_BASES)]
    of_seeds = "seed" in AXES[measurement]
    for group in split_studies(clean) if of_seeds else split_places(clean, measurement, CONDITIONS[measurement]):
        tables = {metric: by_arm(group.rows, metric) for metric in RESPONSES[measurement]}
        noise: dict[str, Any] = {}
        if isinstance(group, Study):
            noise = {"has_noise": True, "paired": group.paired, "declared": group.declared}
        for factorial in find_factorials(group.rows["arm"].unique()):
            yield FactorialStudy(group.conditions, factorial, tables, **noise)


def split_places(records: pd.DataFrame, measurement: str, names: Iterable[str]) -> Iterator[Group]:
    """Yields the rows that have the conditions of `names` and, beside these, their resolution in common."""
    yield from group_arms(records, measurement, (*names, "resolution", "pixels"))


def by_arm(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Returns a metric with a row a seed, or one row, and a column an arm; no row where it was never counted."""
    if metric not in rows:
        return pd.DataFrame(columns=list(rows["arm"].unique()), dtype=float)
    arms = rows.assign(seed=rows.get("seed", 0)).groupby("arm", sort=False)
    return pd.DataFrame({arm: own.set_index("seed")[metric].astype(float) for arm, own in arms})


@tabulated
def effect_values(records: pd.DataFrame, measurement: str) -> Iterator[dict[str, Any]]:
    """Returns the effects of each factorial: `METRIC_effect`, exact, or of `estimate_effects` as `top1_effect_…`."""
    for study in list_factorial_studies(records, measurement):
        if study.has_noise:
            effects = estimate_effects(study.factorial, study.tables["top1"], study.declared)
            kept = ("effect", "order", "n_seeds", "n_seeds_left_out", "declared_seeds")
            effects = effects.rename(columns={name: f"top1_effect_{name}" for name in effects if name not in kept})
            yield from ({**study.names, **row} for row in effects.to_dict("records"))
            continue
        contrasts = {metric: study.factorial.contrasts(values).mean() for metric, values in study.complete.items()}
        for effect, toggles in study.factorial.effects.items():
            row = study.names | {"effect": effect, "order": len(toggles)}
            for metric, contrast in contrasts.items():
                row |= exact_columns(f"{metric}_effect", contrast[effect], study.references[metric])
            yield row


@tabulated
def lead_values(records: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Returns by how much the size of a main effect on accuracy is behind that of a larger one, for each two of them.

    A row is a pair of toggles, `effect` and `larger`; seed by seed, `top1_behind_mean` and so on. All pairs of a
    factorial are one family of Holm's, for which one is the largest is seen in the data.
    """
    for study in list_factorial_studies(records, "accuracy"):
        contrasts = study.factorial.contrasts(study.complete["top1"])[list(study.factorial.toggles)]
        sizes = contrasts * np.where(contrasts.mean() < 0, -1, 1)
        order = sorted(study.factorial.toggles, key=lambda toggle: -sizes[toggle].mean())
        family = [
            ({**study.names, "effect": less, "larger": more}, estimate_mean(sizes[more] - sizes[less]))
            for more, less in combinations(order, 2)
        ]
        yield from difference_rows("top1_behind", family, study.declared)


@tabulated
def overlap_values(records: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Returns what the strongest resolved interaction of two toggles means, of each factorial that has one.

    `toggle`, of the two that with the smaller main effect, adds `top1_without_mean` and so on where the `other` is off
    and `top1_with_mean` where it is on, over all settings of the rest. The two are one family of Holm's.
    """
    for study in list_factorial_studies(records, "accuracy"):
        contrasts = study.factorial.contrasts(study.complete["top1"])
        every: list[tuple[dict[str, Any], Estimate]] = [({}, estimate_mean(contrasts[effect])) for effect in contrasts]
        rows = dict(zip(study.factorial.effects.values(), difference_rows("", every, study.declared), strict=True))
        pairs = [own for own, estimated in rows.items() if len(own) == 2 and estimated["resolved"]]
        if not pairs:
            continue
        strongest = max(pairs, key=lambda own: abs(rows[own]["mean"]))
        toggle, other = sorted(strongest, key=lambda name: abs(rows[(name,)]["mean"]))
        pair = ":".join(strongest)
        row = {**study.names, "toggle": toggle, "other": other}
        family: list[tuple[dict[str, Any], Estimate]] = [
            ({}, estimate_mean(contrasts[toggle] + sign * contrasts[pair])) for sign in (-1, 1)
        ]
        for where, own in zip(("without", "with"), difference_rows("", family, study.declared), strict=True):
            row |= {f"top1_{where}_{name}": value for name, value in own.items() if name != "declared_seeds"}
        yield row


def effects_at_work(records: pd.DataFrame, measurement: str) -> pd.DataFrame:
    """Returns exact effects without the interactions that are 0 at every resolution under the same conditions."""
    values = effect_values(records, measurement)
    if values.empty:
        return values
    works = (values[[f"{metric}_effect" for metric in RESPONSES[measurement]]].fillna(0) != 0).any(axis="columns")
    kept = _anywhere(works, values, (*CONDITIONS[measurement], "toggles", "effect"))
    return values[kept | (values["order"] == 1)].reset_index(drop=True)


def contributions_at_work(records: pd.DataFrame, measurement: str) -> pd.DataFrame:
    """Returns exact Shapley values where there are interactions; elsewhere they are the effects."""
    values = shapley_values(records, measurement)
    if values.empty:
        return values
    ends = ((values[f"{metric}_smallest"], values[f"{metric}_largest"]) for metric in RESPONSES[measurement])
    varies = pd.concat([smallest != largest for smallest, largest in ends], axis="columns").any(axis="columns")
    return values[_anywhere(varies, values, (*CONDITIONS[measurement], "toggles"))].reset_index(drop=True)


def _anywhere(holds: pd.Series, values: pd.DataFrame, names: Iterable[str]) -> pd.Series:
    """Returns for each row whether something holds of any row that is equal in those of `names` that there are."""
    return holds.groupby([values[name] for name in names if name in values], dropna=False).transform("any")


@tabulated
def step_values(records: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Returns what each toggle adds to accuracy at every setting of the others, `top1_step_…`: a row a `step`."""
    for study in list_factorial_studies(records, "accuracy"):
        family = [
            (
                study.names | {"step": step.name, "toggle": step.toggle, "start": step.start, "arm": step.end},
                study.estimate_step(step),
            )
            for step in study.factorial.steps
        ]
        yield from difference_rows("top1_step", family, study.declared)


@tabulated
def order_values(records: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Returns what each toggle adds to the mean accuracy in each order of adding them: a row an `order`.

    Columns are `top1_TOGGLE`; those of a row add up to the whole way. Each is a step of `step_values`, where its
    interval stands.
    """
    for study in list_factorial_studies(records, "accuracy"):
        added = {step: study.estimate_step(step).mean for step in study.factorial.steps}
        for order in study.factorial.orders:
            steps = {f"top1_{step.toggle}": added[step] for step in study.factorial.steps_of(order)}
            yield study.names | {"order": ", ".join(order)} | steps


@tabulated
def shapley_values(records: pd.DataFrame, measurement: str) -> Iterator[dict[str, Any]]:
    """Returns the Shapley value of each `toggle`, `METRIC_shapley`: its share of the whole way, whatever the order.

    `METRIC_smallest` and `METRIC_largest` are the least and the most that it adds at any setting of the others.
    """
    for study in list_factorial_studies(records, measurement):
        family: list[tuple[dict[str, Any], Estimate]] = []
        for toggle in study.factorial.toggles:
            row, shares = study.names | {"toggle": toggle}, dict[str, float]()
            for metric, values in study.complete.items():
                steps = [step for step in study.factorial.steps if step.toggle == toggle]
                added = [(values[step.end] - values[step.start]).mean() for step in steps]
                for label, value in (("smallest", min(added)), ("largest", max(added))):
                    exact = exact_columns(f"{metric}_{label}", value, study.references[metric])
                    row |= {f"{metric}_{label}": value} if study.has_noise else exact
                share = study.factorial.shapley(values, toggle)
                shares |= exact_columns(f"{metric}_shapley", share.mean(), study.references[metric])
            if study.has_noise:
                family.append((row, estimate_mean(share)))
            else:
                yield row | shares
        yield from difference_rows("top1_shapley", family, study.declared)


@tabulated
def power_values(records: pd.DataFrame, difference: float, power: float = 0.8) -> Iterator[dict[str, Any]]:
    """Returns how many seeds each effect and step of each factorial needs to resolve a true `difference`, a fraction.

    A row is a `comparison` of a `family`, whose size Holm's rule allows for: `sd` over the seeds that there are
    (`n_seeds`, at least FEWEST_FOR_INTERVAL), `paired` or not, and `seeds_needed`: none where the sd is 0, and where
    more than MOST_SEEDS are needed. Raises ValueError for a difference that is not above 0.
    """
    for study in list_factorial_studies(records, "accuracy"):
        (complete,) = study.complete.values()
        if len(complete) < FEWEST_FOR_INTERVAL:
            continue
        contrasts = study.factorial.contrasts(complete)
        family = [("effects", name, contrasts[name].std(), True) for name in study.factorial.effects]
        for step in study.factorial.steps:
            ends = complete[[step.start, step.end]]
            # Unpaired, each side has its own deviation; equal ones of the same mean square need as many seeds.
            sd = (ends[step.end] - ends[step.start]).std() if study.paired else math.sqrt(ends.var().mean())
            family.append(("steps", step.name, sd, study.paired))
        sizes = {"effects": len(study.factorial.effects), "steps": len(study.factorial.steps)}
        for name, comparison, sd, paired in family:
            needed = (
                seeds_needed(difference, sd, paired=paired, comparisons=sizes[name], power=power) if sd > 0 else None
            )
            row = {"family": name, "comparison": comparison, "comparisons": sizes[name], "paired": paired}
            yield study.names | row | {"sd": sd, "seeds_needed": needed}
