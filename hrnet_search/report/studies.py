"""Several studies side by side: data, tables, figures and words of that page.

Arms belong together by name. Where one of the studies is a search, and all have the same head,
networks belong together if they are the same: two spaces may reach one under different names.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ..ranks import Agreement, Scores, agree, decided_pairs
from ..result import Metric, count, joined, metric
from ..stats import (
    LEVEL,
    MIN_PAIRS,
    POWER,
    Comparison,
    Pair,
    compare_all,
    differences,
    t_interval,
)
from . import figures, orders
from .frame import Arm, Run, incomparable
from .fronts import front_words
from .summary import TASKS, learnt_nothing, progress
from .tables import NONE, Column, TextTable, interval, probability, settings_table, signed, spread

MAX_TOLD = 3  # pairs of studies that the summary tells one by one
MAX_UNTOLD = 2  # arms that are named as not told apart from the best
MAX_PAIRS = 500  # pairs of arms that are listed; the file holds all
Decided = Mapping[tuple[str, str], int]  # pairs of arms -> 1 or -1: which is better
TEXTS = ("name", "title", "description")  # of a study: they change nothing


@dataclass(frozen=True, kw_only=True)
class Orders:
    """How the orders of the arms that two studies have measured agree.

    Args:
        first: One study.
        second: The other.
        agreement: Of their means.
        told: Pairs of arms that either tells apart (`decided_pairs`) -> in the one and the other
            study 1 where the first arm is better, -1 where the second is, 0 if not told apart.
    """

    first: str
    second: str
    agreement: Agreement
    told: dict[tuple[str, str], tuple[int, int]]

    @property
    def both(self) -> list[tuple[str, str, bool]]:
        """Pairs of arms that both tell apart: the better one in the first study, the other one,
        and is the same one better in the second? Those where it is not come first.
        """
        pairs = [
            (*(pair if one > 0 else pair[::-1]), one == two)
            for pair, (one, two) in self.told.items()
            if one and two
        ]
        return sorted(pairs, key=lambda pair: pair[2])

    @property
    def same(self) -> int:
        """How many of these are in the same order."""
        return sum(is_same for _, _, is_same in self.both)


@dataclass(frozen=True, kw_only=True)
class Change:
    """What an arm's metric is in a study, minus what it is in the first one, paired by seed."""

    study: str
    arm: str
    found: Comparison


@dataclass(frozen=True, kw_only=True, eq=False)
class Together:
    """Studies that are compared.

    Args:
        runs: Study -> what its folder holds; the first is the one that differences are taken to.
        arms: Names of the arms that two studies or more have, in their order.
        shared: Study -> its run with its shared arms alone, under these names and in this order.
        alone: Study -> names of its other arms.
        by_network: Whether arms belong together by network, not by name.
        unlike: Shared arms that are not the same network in all studies. Networks of different
            heads cannot be compared in that.
        decided: Study -> the pairs of shared arms that it tells apart (`decided_pairs`).
        orders: Of each pair of studies.
        changes: Judged together, as one table.
        left_out: Study -> why no difference is taken to the first.
    """

    runs: Mapping[str, Run]
    arms: list[str]
    shared: Mapping[str, Run]
    alone: Mapping[str, list[str]]
    by_network: bool
    unlike: list[str]
    decided: Mapping[str, Decided]
    orders: list[Orders]
    changes: list[Change]
    left_out: Mapping[str, str]

    @property
    def first(self) -> str:
        return next(iter(self.runs))

    @property
    def noun(self) -> str:
        is_grid = all(run.study.search.is_grid for run in self.runs.values())
        return "arm" if is_grid else "network"

    @property
    def has_one_metric(self) -> bool:
        return len({run.study.accuracy for run in self.runs.values()}) == 1


def compare_studies(runs: Mapping[str, Run]) -> Together:
    """Two studies or more beside each other; the first is the one that differences are taken to."""
    has_one_head = len({run.study.task.head for run in runs.values()}) == 1
    has_search = any(not run.study.search.is_grid for run in runs.values())
    # Under variants a network is several arms.
    has_variants = any(run.study.variants for run in runs.values())
    by_network = has_search and has_one_head and not has_variants
    identity = _key if by_network else _name
    names = _shared_names(runs, identity)
    shared = {study: _renamed(run, names, identity) for study, run in runs.items()}
    keys: dict[str, set[str]] = {name: set() for name in names.values()}
    heads: dict[str, set[str | None]] = {name: set() for name in names.values()}
    for arm in (arm for run in shared.values() for arm in run.arms):
        keys[arm.name].add(_key(arm))
        heads[arm.name].add(arm.arguments["head"])
    scores = {study: orders.scores(run) for study, run in shared.items()}
    decided = {study: decided_pairs(each) for study, each in scores.items()}
    changes, left_out = _changes(shared)
    return Together(
        runs=runs,
        arms=list(names.values()),
        shared=shared,
        alone={
            study: [arm.name for arm in run.arms if identity(arm) not in names]
            for study, run in runs.items()
        },
        by_network=by_network,
        unlike=[name for name, found in keys.items() if len(found) > 1 == len(heads[name])],
        decided=decided,
        orders=_orders(scores, decided),
        changes=changes,
        left_out=left_out,
    )


def _name(arm: Arm) -> str:
    return arm.name


def _key(arm: Arm) -> str:
    return arm.network.key


def _shared_names(runs: Mapping[str, Run], identity: Callable[[Arm], str]) -> dict[str, str]:
    """What makes an arm one -> its name where it comes first, of arms that two studies have."""
    numbers = Counter(key for run in runs.values() for key in {identity(arm) for arm in run.arms})
    names: dict[str, str] = {}
    for arm in (arm for run in runs.values() for arm in run.arms):
        key = identity(arm)
        if numbers[key] > 1 and key not in names:
            is_taken = arm.name in names.values()  # by another network of another space
            names[key] = f"{arm.name} ({key})" if is_taken else arm.name
    return names


def _renamed(run: Run, names: Mapping[str, str], identity: Callable[[Arm], str]) -> Run:
    """The run with its shared arms alone, under their common names and in their order."""
    own = {identity(arm): arm for arm in run.arms}
    arms = [dataclasses.replace(own[key], name=name) for key, name in names.items() if key in own]
    return dataclasses.replace(run, arms=tuple(arms))


# --- orders ----------------------------------------------------------------------------------


def _orders(scores: Mapping[str, Scores], decided: Mapping[str, Decided]) -> list[Orders]:
    """Of each pair of studies, over the arms that both have measured."""
    found = []
    for one, two in itertools.combinations(scores, 2):
        both = [arm for arm in scores[one] if scores[one][arm] and scores[two].get(arm)]
        sides = [{arm: scores[study][arm] for arm in both} for study in (one, two)]
        told = {
            pair: (decided[one].get(pair, 0), decided[two].get(pair, 0))
            for pair in itertools.combinations(both, 2)
            if pair in decided[one] or pair in decided[two]
        }
        found.append(Orders(first=one, second=two, agreement=agree(*sides), told=told))
    return found


def orders_data(found: Together) -> pd.DataFrame:
    """One row per pair of studies; what cannot be told is empty."""
    rows = []
    for each in found.orders:
        agreement = each.agreement
        row: dict[str, Any] = {"first": each.first, "second": each.second}
        row |= {"arms": agreement.arms, "seeds.first": agreement.seeds[0]}
        row |= {"seeds.second": agreement.seeds[1]}
        for name in ("spearman", "kendall"):
            one = getattr(agreement, name)
            row |= {name: one.value, f"{name}.low": one.low, f"{name}.high": one.high}
        told, both = each.told.values(), len(each.both)
        row |= {"pairs": agreement.pairs}
        row |= {"told.first": sum(bool(one) for one, _ in told)}
        row |= {"told.second": sum(bool(two) for _, two in told), "told.both": both}
        rows.append(row | {"same_order": each.same, "opposite_order": both - each.same})
    return pd.DataFrame(rows)


def orders_table(found: Together) -> TextTable:
    """How well the orders of each pair of studies agree."""
    columns = [
        Column("Study"),
        Column("and"),
        Column(f"{found.noun.capitalize()}s", "number", "measured in both"),
        Column("Spearman's rho", "number", "95 % interval"),
        Column("Kendall's tau", "number", "95 % interval"),
        Column("Pairs", "number", f"of {found.noun}s"),
        Column("Told apart", "number", "by the first; second; both"),
        Column("Same order", "number", "of those told by both"),
        Column("Opposite", "number", "likewise"),
    ]
    rows = []
    for each, row in zip(found.orders, orders_data(found).to_dict("records"), strict=True):
        told = f"{row['told.first']}; {row['told.second']}; {row['told.both']}"
        cells = [each.first, each.second, str(row["arms"])]
        cells += map(orders.correlation, (each.agreement.spearman, each.agreement.kendall))
        cells += [str(row["pairs"]), told, str(row["same_order"]), str(row["opposite_order"])]
        rows.append(cells)
    return TextTable(columns, rows)


def pairs_data(found: Together) -> pd.DataFrame:
    """Pairs of arms that both of two studies tell apart, as in `Orders.both`.

    Differences are `arm` minus `other`, in the units of the records.
    """
    columns = ["first", "second", "arm", "other", "difference.first", "difference.second", "order"]
    rows = []
    for each in found.orders:
        values = [_values(found.shared[study]) for study in (each.first, each.second)]
        for arm, other, is_same in each.both:
            means = [float(differences(one[arm], one[other]).mean()) for one in values]
            rows.append([each.first, each.second, arm, other, *means, _order_word(is_same)])
    return pd.DataFrame(rows, columns=columns)


def pairs_tables(found: Together) -> dict[str, TextTable]:
    """Two studies -> the first `MAX_PAIRS` pairs of arms that both tell apart, if any."""
    laid = {}
    for each in found.orders:
        studies = each.first, each.second
        runs = [found.shared[study] for study in studies]
        sides = [(metric(run.study.accuracy), _values(run)) for run in runs]
        columns = [Column("Arm", "arm"), Column("minus", "arm")]
        columns += [Column(f"in {study}", "number", "95 % interval") for study in studies]
        columns += [Column("Order", "verdict")]
        rows = [
            [arm, other, *(_difference(*side, arm, other) for side in sides), _order_word(is_same)]
            for arm, other, is_same in each.both[:MAX_PAIRS]
        ]
        if rows:
            laid[joined(studies)] = TextTable(columns, rows)
    return laid


def _order_word(is_same: bool) -> str:
    return "same" if is_same else "opposite"


def _difference(shown: Metric, values: Scores, arm: str, other: str) -> str:
    """Of two arms that are told apart, with its t interval."""
    each = differences(values[arm], values[other])
    limits = interval(shown, t_interval(each, level=LEVEL))
    return f"{signed(shown, float(each.mean()))} {shown.label}\n{limits}"


def _values(run: Run) -> dict[str, dict[int, float]]:
    return {arm.name: arm.values(run.study.accuracy) for arm in run.arms}


# --- arms ------------------------------------------------------------------------------------


def arms_data(found: Together) -> pd.DataFrame:
    """One row per shared arm and study that has it, in the units of the records."""
    columns = ["arm", "study", "metric", "mean", "deviation", "seeds", "place", "cost", "cost.mean"]
    rows: list[list[Any]] = []
    for study, run in found.shared.items():
        place, key = orders.places(run), run.study.accuracy
        for arm in run.arms:
            numbers = [*spread(arm, key), len(arm.values(key)), place.get(arm.name)]
            cost = run.study.cost
            rows.append([arm.name, study, key, *numbers, cost, spread(arm, cost)[0]])
    order = {name: number for number, name in enumerate(found.arms)}
    rows.sort(key=lambda row: order[str(row[0])])
    return pd.DataFrame(rows, columns=columns)


def arms_table(found: Together) -> TextTable:
    """Each shared arm in each study: mean, deviation, place; and cost, once if it is the same."""
    columns = [Column(found.noun.capitalize(), "arm"), *orders.mean_columns(found.shared)]
    rows = orders.mean_rows(found.shared, found.arms)
    costs = {study: _costs(run) for study, run in found.shared.items()}
    kinds = {run.study.cost for run in found.runs.values()}
    each = [{shown[arm] for shown in costs.values() if arm in shown} for arm in found.arms]
    if len(kinds) == 1 and all(len(texts) <= 1 for texts in each):
        shown = metric(kinds.pop())
        columns.append(Column(shown.label, "number", shown.unit))
        added = [["".join(texts) or NONE] for texts in each]
    else:
        labels = {study: metric(run.study.cost).label for study, run in found.runs.items()}
        columns += [Column(label, "number", f"in {study}") for study, label in labels.items()]
        added = [[shown.get(arm, NONE) for shown in costs.values()] for arm in found.arms]
    return TextTable(columns, [row + more for row, more in zip(rows, added, strict=True)])


def _costs(run: Run) -> dict[str, str]:
    """Arm -> its cost as it is shown, of arms that were measured."""
    shown = metric(run.study.cost)
    found = {arm.name: spread(arm, shown.key)[0] for arm in run.arms}
    return {name: shown.show(cost) for name, cost in found.items() if cost is not None}


def alone_table(found: Together) -> TextTable:
    """The arms that one study has alone."""
    rows = [[study, ", ".join(names)] for study, names in found.alone.items() if names]
    return TextTable([Column("Study"), Column(f"{found.noun.capitalize()}s of it alone")], rows)


def drawn(found: Together) -> dict[str, figures.Style]:
    """How arms are drawn: all, or of many those with the best mean place."""
    frame = arms_data(found).dropna(subset=["place"])
    ranked = frame.groupby("arm")["place"].mean().sort_values(kind="stable")
    kept = set(ranked.index[: figures.MAX_NAMED])
    return figures.named_styles(name for name in found.arms if name in kept)


def means_figure(found: Together) -> go.Figure | None:
    """Each arm's mean in every study; None if their metrics differ, or nothing was measured."""
    if not found.has_one_metric:
        return None
    return orders.means_figure(found.shared, drawn(found), "Study")


def places_figure(found: Together) -> go.Figure | None:
    """Each arm's place in every study; None if nothing was measured."""
    return orders.places_figure(found.shared, drawn(found), "Study")


# --- differences -----------------------------------------------------------------------------


def _changes(shared: Mapping[str, Run]) -> tuple[list[Change], dict[str, str]]:
    """The arms of each study minus those of the first; and which studies that cannot be said of."""
    (first, base), *others = shared.items()
    values, left_out = _values(base), {}
    pairs: dict[tuple[str, str], Pair] = {}
    for study, run in others:
        own = {
            (study, arm): Pair(each, values[arm])
            for arm, each in _values(run).items()
            if arm in values
        }
        if why := incomparable(run, base, first):
            left_out[study] = why
            continue
        pairs |= own  # counted in the table even if not measured yet: what is shown stays so
        if not any(differences(*pair[:2]).size for pair in own.values()):
            left_out[study] = f"has no arm that is measured with a seed of {first}"
    judged = compare_all(list(pairs.values()))
    changes = [
        Change(study=study, arm=arm, found=one)
        for (study, arm), one in zip(pairs, judged, strict=True)
        if study not in left_out
    ]
    return changes, left_out


def changes_data(found: Together) -> pd.DataFrame:
    """One row per comparison, in the units of the records; what needs more seeds is empty."""
    columns = ["arm", "study", "minus", "n", "difference", "t.low", "t.high", "p", "p.table"]
    columns += ["verdict", "detectable"]
    rows = []
    for change in found.changes:
        one = change.found
        limits = one.interval or (None, None)
        row = [change.arm, change.study, found.first, one.n, one.difference, *limits]
        rows.append([*row, one.p, one.p_table, one.verdict, one.detectable])
    return pd.DataFrame(rows, columns=columns)


def changes_table(found: Together) -> TextTable:
    """What each study changes of each arm."""
    shown = metric(found.runs[found.first].study.accuracy)
    columns = [
        Column(found.noun.capitalize(), "arm"),
        Column("Study", "text", f"minus {found.first}"),
        Column("Difference", "number", shown.title),
        Column("95 % interval", "number", "t"),
        Column("p", "number", "of the table; t test alone"),
        Column("Pairs", "number", "seeds"),
        Column("Verdict", "verdict"),
        Column("Detectable", "number", f"{POWER:.0%} of the time"),
    ]
    rows = []
    for change in found.changes:
        one = change.found
        row = [change.arm, change.study, signed(shown, one.difference)]
        row += [interval(shown, one.interval)]
        row += [f"{probability(one.p_table)}; {probability(one.p)}", str(one.n), one.verdict]
        rows.append([*row, shown.show(one.detectable)])
    return TextTable(columns, rows)


# --- settings and trials ---------------------------------------------------------------------


def differing_table(settings: Mapping[str, Mapping[str, Any]]) -> TextTable:
    """The dotted keys whose values are not the same in all studies.

    Args:
        settings: Study -> all its settings.
    """
    each = {study: dict(settings_table(dict(own)).rows) for study, own in settings.items()}
    keys = dict.fromkeys(key for own in each.values() for key in own if key not in TEXTS)
    rows = [[key, *(own.get(key, NONE) for own in each.values())] for key in keys]
    columns = [Column("Setting"), *(Column(study) for study in settings)]
    return TextTable(columns, [row for row in rows if len(set(row[1:])) > 1])


def studies_data(found: Together) -> pd.DataFrame:
    """One row per study: what it trains and what that took."""
    rows = []
    for study, run in found.runs.items():
        states = Counter(result.state for result in run.results)
        row: dict[str, Any] = {"study": study, "task": run.study.task.kind}
        row |= {"metric": run.study.accuracy, "cost": run.study.cost, "arms": len(run.arms)}
        row |= {"shared": len(found.shared[study].arms), "seeds": run.study.seeds}
        row |= {"planned": run.planned, "complete": states["complete"]}
        row |= {"ended_early": states["pruned"], "failed": states["failed"]}
        rows.append(row | {"seconds": sum(result.seconds for result in run.results)})
    return pd.DataFrame(rows)


def studies_table(found: Together) -> TextTable:
    """What each study trains, and what that took."""
    columns = [Column("Study"), Column("Task"), Column("Metric")]
    columns += [Column(f"{found.noun.capitalize()}s", "number", "of these shared")]
    columns += [Column("Seeds", "number"), Column("Trials"), Column("Hours", "number")]
    rows = []
    for row in studies_data(found).to_dict("records"):
        run = found.runs[row["study"]]
        cells = [row["study"], TASKS[row["task"]], metric(row["metric"]).label]
        cells += [f"{row['arms']}; {row['shared']}", _seeds(run), progress(run)]
        rows.append([*cells, f"{row['seconds'] / 3600:.2g}"])
    return TextTable(columns, rows)


def _seeds(run: Run) -> str:
    seeds, most = run.study.seeds, run.study.most_seeds
    return str(seeds) if seeds == most else f"{seeds} to {most}"


# --- words -----------------------------------------------------------------------------------


def summary(found: Together, fronts: pd.DataFrame) -> str:
    """What is compared; whether one arm is the best everywhere; how orders agree; what changed.

    Args:
        found: The studies.
        fronts: As `fronts.fronts_data` makes it.
    """
    if not found.arms:
        return f"{_what(found)} No {found.noun} is in two of them, so there is nothing to compare."
    told = [
        _winners(found),
        _order_words(found),
        _change_words(found),
        front_words(found.runs, fronts),
    ]
    return "\n\n".join([_what(found), *("\n".join(words) for words in told if words)])


def trials(found: Together) -> str:
    """As in "12 of 18 trials complete, 1 failed", over all studies."""
    data = studies_data(found)
    failed = f", {data['failed'].sum()} failed" if data["failed"].any() else ""
    return f"{data['complete'].sum()} of {data['planned'].sum()} trials complete{failed}"


def _what(found: Together) -> str:
    each = [
        f"{study} ({TASKS[run.study.task.kind]}, {metric(run.study.accuracy).label})"
        for study, run in found.runs.items()
    ]
    text = f"{len(each)} studies: {joined(each)}."
    if not found.arms:
        return text
    shared = count(len(found.arms), found.noun)
    verb = "is" if len(found.arms) == 1 else "are"
    is_in_all = all(len(run.arms) == len(found.arms) for run in found.shared.values())
    which = "all of them" if is_in_all else "two of them or more"
    which = "both" if len(each) == 2 else which
    rest = sum(map(len, found.alone.values()))
    only = f", {rest} in one alone" if rest else ""
    return f"{text} {shared} {verb} in {which}{only}."


def _winners(found: Together) -> list[str]:
    """The best shared arm of each study, and from which others its seeds tell it apart."""
    empty = [study for study, run in found.shared.items() if learnt_nothing(run)]
    best = {s: orders.best(run) for s, run in found.shared.items() if s not in empty}
    unmeasured = [study for study, arm in best.items() if arm is None]
    known = {study: arm for study, arm in best.items() if arm is not None}
    words = []
    if len(known) > 1:
        same = "the same" if len(set(known.values())) == 1 else "not the same"
        each = [_winner(found, study, arm) for study, arm in known.items()]
        words = [f"The {found.noun} with the best mean is {same} in all: {joined(each)}."]
    if empty:
        words.append(f"Nothing was learnt in {joined(empty)}.")
    if unmeasured:
        words.append(f"In {joined(unmeasured)} no shared {found.noun} is measured yet.")
    return words


def _winner(found: Together, study: str, best: str) -> str:
    """As in "final in a (not told apart from +across)"."""
    decided = found.decided[study]
    others = [arm for arm in orders.means(found.shared[study]) if arm != best]
    untold = [o for o in others if (best, o) not in decided and (o, best) not in decided]
    if not others:
        told = "alone measured"
    elif not untold:
        told = "told apart from all others" if len(others) > 1 else "told apart from the other"
    elif len(untold) <= MAX_UNTOLD:
        told = f"not told apart from {joined(untold)}"
    elif len(untold) == len(others):
        told = f"not told apart from any of {len(others)} others"
    else:
        told = f"not told apart from {len(untold)} of {len(others)} others"
    return f"{best} in {study} ({told})"


def _order_words(found: Together) -> list[str]:
    """Of each pair of studies, or of many the range of rho."""
    if len(found.orders) <= MAX_TOLD:
        return [_order(found, each) for each in found.orders if _is_ordered(found, each)]
    values = [each.agreement.spearman.value for each in found.orders]
    known = [value for value in values if value is not None]
    if not known:
        return []
    ends = [orders.number(end) for end in (min(known), max(known))]
    return [f"Spearman's rho of {count(len(known), 'pair')} of studies is {' to '.join(ends)}."]


def _is_ordered(found: Together, each: Orders) -> bool:
    """Whether two arms or more are measured in both studies, not all of them at 0."""
    runs = [found.shared[study] for study in (each.first, each.second)]
    return each.agreement.arms > 1 and not all(map(learnt_nothing, runs))


def _order(found: Together, each: Orders) -> str:
    names = f"{each.first} and {each.second}"
    rho = each.agreement.spearman
    if rho.value is None:
        why = "all means of one are equal"
        if not all(each.agreement.seeds):
            why = f"in one of them no seed has all {each.agreement.arms} {found.noun}s"
        return f"{names}: no rank correlation, since {why}."
    same, both = each.same, len(each.both)
    text = f"{names}: Spearman's rho {' '.join(orders.correlation(rho).split())}"
    pairs = f"of {count(each.agreement.pairs, 'pair')} of {found.noun}s both tell"
    if not both:
        return f"{text}; {pairs} none apart."
    return f"{text}; {pairs} {both} apart, {same} in the same order, {both - same} in the opposite."


def _change_words(found: Together) -> list[str]:
    """From least to most difference to the first study, of each other one."""
    shown, words = metric(found.runs[found.first].study.accuracy), []
    for study in found.runs:
        own = [change.found for change in found.changes if change.study == study]
        known = sorted(one.difference for one in own if one.difference is not None)
        if not known:
            continue
        ends = dict.fromkeys(signed(shown, end) for end in (known[0], known[-1]))
        verdicts = [one.verdict == "shown" for one in own]
        tells = f"shown for {sum(verdicts) or 'none'} of {count(len(known), found.noun)}"
        if all(one.n < MIN_PAIRS for one in own):
            tells = "with one seed, which cannot tell that from chance"
        change = f"{' to '.join(ends)} {shown.label}, {tells}"
        words.append(f"{study} minus {found.first}, seed by seed: {change}.")
    return words
