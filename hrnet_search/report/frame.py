"""A run as its report reads it: the study, and the record of each arm and seed.

The arms of a grid are those of its plan, those of a search the networks that were trained.
"""

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..arch import ArchSpec
from ..comparisons import HasEnded, Values, looked_at, seeds_wanted, set_beside
from ..matching import MATCH_KNOB
from ..paper import TABLES, Table
from ..record import RESULTS, TABLE, of_variant, read_mapping, read_table
from ..result import METRICS, Result, metric, read_results
from ..rivals import RIVAL_KNOB, Rival
from ..settings import Files
from ..study import VARIANT_KNOB, Study, load_study


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One network of the study.

    Args:
        name: As the space writes it; ", matched" follows of a cost-matched copy.
        arguments: From `told_by`.
        network: The network they make, or the rival.
        results: Its trials so far, complete, ended early and failed, by seed.
        paper: The paper's figure for it, a fraction, or None; for a copy that of its original.
        matched: Is it a cost-matched copy (`Study.match`)?
        variant: What it is trained under; empty where there are none.
    """

    name: str
    arguments: Mapping[str, Any]
    network: ArchSpec | Rival
    results: tuple[Result, ...]
    paper: float | None
    matched: bool
    variant: str

    def values(self, key: str) -> dict[int, float]:
        """Seed -> the number under a key of `METRICS`, where it was measured.

        What a trial measured that was ended early is of another length of training, so it is not
        set beside the others; its costs are.
        """
        is_cost = key.startswith("profile.")
        counted = (r for r in self.results if is_cost or r.state == "complete")
        found = {result.seed: result.value(key) for result in counted}
        return {s: v for s, v in found.items() if v is not None and math.isfinite(v)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """What `runs/<study>/` holds.

    Args:
        study: What was planned.
        arms: Every network of a grid's plan, in its order, with or without results; of a search
            the networks with results, in the order of their trials.
        environment: Command, versions, machine, data; empty if it was not written.
        status: What the driver last said of itself; empty if it was not written.
        strays: Number of records that belong to no arm of the plan.
    """

    study: Study
    arms: tuple[Arm, ...]
    environment: dict[str, Any]
    status: dict[str, Any]
    strays: int

    @property
    def planned(self) -> int:
        """Trials that are to end; of a network that was ended early those that have."""
        seeds, networks = self.study.seeds, self.study.search.networks
        if networks is None:
            return sum(self.seeds_wanted().values())
        early = [arm for arm in self.arms if any(r.state == "pruned" for r in arm.results)]
        begun = sum(len(arm.results) for arm in early) + seeds * (len(self.arms) - len(early))
        to_come = 0 if self.status.get("state") == "finished" else networks - len(self.arms)
        return begun + seeds * max(0, to_come)

    def seeds_wanted(self) -> dict[str, int]:
        """Of a grid: arm -> number of its seeds, as far as it can be told by now."""
        return seeds_wanted(self.study, self._values(), self._ended())

    def looked_at(self) -> Values:
        """Of a grid: what verdicts may rest on, of the metric that decides."""
        return looked_at(self.study, self._values(), self._ended())

    def _values(self) -> Values:
        return {arm.name: arm.values(self.study.accuracy) for arm in self.arms}

    def _ended(self) -> HasEnded:
        ended = {(arm.name, result.seed) for arm in self.arms for result in arm.results}
        return lambda name, seed: (name, seed) in ended

    @property
    def results(self) -> list[Result]:
        """All trials of the plan's arms, by number."""
        found = [result for arm in self.arms for result in arm.results]
        return sorted(found, key=lambda result: result.trial)

    @property
    def reference(self) -> Arm:
        """Of a grid: the arm that the others are compared with."""
        return next(arm for arm in self.arms if arm.name == self.study.reference_arm)

    def set_beside(self, arm: Arm) -> Arm:
        """Of a grid: the arm that a table of arms sets this one beside; itself if there is none."""
        return self._set_beside[arm.name]

    @functools.cached_property
    def _set_beside(self) -> dict[str, Arm]:
        arms = {arm.name: arm for arm in self.arms}
        return {name: arms[other] for name, other in set_beside(self.study).items()}


def read_run(folder: Path) -> Run:
    """The run of a folder, or what a report's folder keeps of one.

    Of several records of one arm and seed the last counts. Records of seeds that the study had
    before, and has no more, are left out.

    Raises:
        InputError: The study is missing or not valid, or another file is damaged.
    """
    study = load_study(folder / "study.yaml")
    is_of_report = (folder / TABLE).exists() and not (folder / RESULTS).exists()
    records = read_table(folder, study) if is_of_report else read_results(folder / RESULTS)
    latest = {
        (records[n].arm, records[n].seed): records[n]
        for n in sorted(records)
        if records[n].seed < study.most_seeds
    }
    own: dict[str, list[Result]] = {}
    for record in latest.values():
        own.setdefault(record.arm, []).append(record)
    plan = study.arms() if study.search.is_grid else _trained(study, latest.values())
    arms = tuple(_arm(study, params, own.get(study.arm(params), [])) for params in plan)
    return Run(
        study=study,
        arms=arms,
        environment=read_mapping(folder / "environment.json"),
        status=read_mapping(folder / "status.json"),
        strays=len(latest) - sum(len(arm.results) for arm in arms),
    )


def _trained(study: Study, records: Iterable[Result]) -> list[dict[str, Any]]:
    """Knob values of a search's networks, in the order of their first trials."""
    knobs = {name: knob.values() for name, knob in study.space.vary.items()}
    found: dict[str, dict[str, Any]] = {}
    for record in sorted(records, key=lambda record: record.trial):
        params = record.params
        if params.keys() == knobs.keys() and all(params[name] in knobs[name] for name in knobs):
            found.setdefault(record.arm, params)
    return list(found.values())


def paper_table(study: Study) -> Table | None:
    """The paper's table, if the study names one whose column is the study's main metric."""
    if study.paper is None:
        return None
    table = TABLES[study.paper.table]
    return table if table.columns[study.paper.column][0] == study.accuracy else None


def results_frame(run: Run) -> pd.DataFrame:
    """One row per trial in the units of the records; a column per knob, cost and metric."""
    columns = ["study", "trial", "proposal", "state", "arm", "seed", "key"]
    columns += [f"params.{name}" for name in run.study.space.vary]
    columns += [f"params.{MATCH_KNOB}"] if run.study.match else []
    columns += [f"params.{VARIANT_KNOB}"] if run.study.variants else []
    results = run.results
    columns += [key for key in METRICS if any(r.value(key) is not None for r in results)]
    columns += ["seconds", "attempt", "started", "ended"]
    columns += ["error.cause", "error.type", "error.message"]
    frame = pd.DataFrame([_flat(result) for result in results], columns=columns)
    return frame.astype({"proposal": "Int64"})  # whole numbers in CSV, although grids have none


def told_by(study: Study, params: dict[str, Any]) -> dict[str, Any]:
    """What rows of the paper's tables are told by, of an arm.

    All arguments of `hrnet` that build its network, and the head; of a rival its name instead; the
    input size.
    """
    trained, network = study.under(params), study.network(params)
    is_rival = isinstance(network, Rival)
    return study.arguments(params) | {
        RIVAL_KNOB: network.key if is_rival else None,
        "head": None if is_rival else trained.task.head,
        "input_size": list(trained.input_size),
    }


def _arm(study: Study, params: dict[str, Any], results: list[Result]) -> Arm:
    table = paper_table(study)
    arguments = told_by(study, params)
    # A copy stands beside the figure of what it is a copy of.
    row = table.row(arguments | study.arguments(study.original(params))) if table else None
    return Arm(
        name=study.arm(params),
        arguments=arguments,
        network=study.network(params),
        results=tuple(sorted(results, key=lambda result: result.seed)),
        paper=row.values.get(study.paper.column) if row and study.paper else None,
        matched=study.is_copy(params),
        variant=study.variant_of(params),
    )


def _flat(result: Result) -> dict[str, Any]:
    """A record with its mappings spread out under dotted names."""
    data = vars(result)  # not `to_dict`, which copies each network too
    groups = {name: data[name] or {} for name in ("params", "profile", "metrics", "error")}
    spread = {f"{g}.{name}": value for g, group in groups.items() for name, value in group.items()}
    return data | spread


def incomparable(run: Run, base: Run, first: str) -> str:
    """Why values of a run cannot be set against those of the first; empty if they can."""
    shown, other = metric(run.study.accuracy), metric(base.study.accuracy)
    if shown != other:
        return f"measures {shown.label} where {first} measures {other.label}"
    return "" if _has_same_data(run, base) else f"has other data than {first}"


def _has_same_data(run: Run, other: Run) -> bool:
    """By checksum, or where a run has not kept it by the settings; of variants each shared arm."""
    pairs = {("", "")}
    if run.study.variants or other.study.variants:
        variants = {arm.name: arm.variant for arm in other.arms}
        pairs = {(arm.variant, variants[arm.name]) for arm in run.arms if arm.name in variants}
    for own, others in pairs:
        data = _data(run, own), _data(other, others)
        kind = "checksum" if all("checksum" in one for one in data) else "settings"
        if data[0][kind] != data[1][kind]:
            return False
    return True


def _data(run: Run, variant: str) -> dict[str, Any]:
    """What a variant is trained on: settings, and checksum if the run has kept it.

    Of the folder the last name: reports keep no more.
    """
    data = run.study.parts[variant].data
    settings = data.model_dump(exclude={"cache_gib"})
    if isinstance(data, Files):
        settings["root"] = Path(data.root).name
    kept = of_variant(run.environment, variant).get("data")
    checksum = kept.get("checksum") if isinstance(kept, dict) else None
    return {"settings": settings} | ({"checksum": checksum} if checksum else {})
