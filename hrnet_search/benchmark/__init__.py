"""A tabular benchmark: every network of a small space of HRNets, trained beforehand.

A search that asks the table instead of training takes seconds, so samplers can be compared over
hundreds of repetitions (`hrnet_search.search.simulation`). docs/benchmark.md tells what is in it.

Write a table from a finished study of a grid:  python -m hrnet_search.benchmark runs/benchmark_pose
"""

import functools
import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from ..errors import InputError
from ..files import read_json, write_atomic, write_json
from ..portable import portable_environment, portable_study
from ..reading import check_name
from ..result import Result, read_results
from ..space import Value
from ..study import Study, dump_study, load_study

FOLDER = Path(__file__).parent
DIGITS = 5  # significant ones kept of the losses, of which there are dozens for each training
PREFIX = "benchmark_"  # what the names of its studies begin with


@dataclass(frozen=True, kw_only=True)
class Network:
    """One network of a table.

    Args:
        key: Hash of the network.
        params: Knob -> value, of the first combination that builds it.
        profile: Its cost in base units, keys as in `METRICS` after the dot; latency was measured
            on the table's machine.
        trainings: Its completed trainings, by seed.
    """

    key: str
    params: dict[str, Value]
    profile: dict[str, float]
    trainings: tuple[Result, ...]

    @property
    def seconds(self) -> float:
        """Mean wall time of a training with its evaluations."""
        return fmean(training.seconds for training in self.trainings)

    def mean(self, key: str) -> float:
        """The mean over its trainings of a metric, or its cost; keys of `METRICS`, base units."""
        group, name = key.split(".", 1)
        if group == "profile":
            return self.profile[name]
        return fmean(training.metrics[name] for training in self.trainings)

    def value(self, key: str, *, seed: int, step: int | None = None) -> float:
        """A metric of one training, at its end or at an evaluation before.

        Raises:
            KeyError: It was not trained from this seed, or not evaluated at this step.
        """
        training = {each.seed: each for each in self.trainings}[seed]
        name = key.split(".", 1)[1]
        if step is None:
            return training.metrics[name]
        return {point["step"]: point for point in training.history}[step][name]


@dataclass(frozen=True)
class Table:
    """What came of all networks of a space.

    Args:
        study: The study of a grid that they were trained by.
        results: Its records, without networks and environment.
        environment: What they were trained on, as in a run's `environment.json`.
    """

    study: Study
    results: tuple[Result, ...]
    environment: Mapping[str, Any]

    @functools.cached_property
    def networks(self) -> dict[str, Network]:
        """Key -> network, for those of which at least one training is complete."""
        found: dict[str, list[Result]] = {}
        for result in sorted(self.results, key=lambda result: result.seed):
            if result.state == "complete":
                found.setdefault(result.key, []).append(result)
        return {
            key: Network(
                key=key, params=own[0].params, profile=own[0].profile, trainings=tuple(own)
            )
            for key, own in found.items()
        }

    def find(self, **params: Value) -> Network:
        """The network that some knob values build; all combinations of the space are known.

        Raises:
            InputError: A knob is missing or unknown, or a value is none of its own.
            KeyError: The network was not trained to the end.
        """
        knobs = self.study.space.vary
        for name in params:
            check_name("knob", name, knobs)
        for name, knob in knobs.items():
            values = knob.values()
            if params.get(name) not in values:
                shown = ", ".join(map(str, values))
                raise InputError(f"must be one of {shown}", key=name, value=params.get(name))
        return self.networks[self.study.key(params)]

    def frame(self) -> pd.DataFrame:
        """A row for each training: key, seed, state, knobs, costs, final metrics, seconds."""
        groups = ("params", "profile", "metrics")
        return pd.DataFrame(
            [
                {"key": result.key, "seed": result.seed, "state": result.state}
                | {
                    f"{group}.{name}": value
                    for group in groups
                    for name, value in getattr(result, group).items()
                }
                | {"seconds": result.seconds}
                for result in self.results
            ]
        )

    def curves(self) -> pd.DataFrame:
        """A row for each evaluation of each training: key, seed, step, loss, metrics."""
        name = self.study.accuracy.split(".", 1)[1]
        return pd.DataFrame(
            [
                {"key": result.key, "seed": result.seed, **point}
                for result in self.results
                for point in result.history
                if name in point
            ]
        )


def names() -> list[str]:
    """The tables that there are, such as "pose"."""
    return sorted(file.name.removesuffix(".jsonl.gz") for file in FOLDER.glob("*.jsonl.gz"))


def load(name: str) -> Table:
    """A table of the package.

    Raises:
        InputError: There is none of this name.
    """
    if not names():
        raise InputError("no table is there", file=FOLDER)
    check_name("table", name, names())
    return read(FOLDER / name)


def read(place: Path) -> Table:
    """The table that `pack` wrote: `place` with `.yaml`, `.json` and `.jsonl.gz` added."""
    lines = gzip.decompress(_file(place, "jsonl.gz").read_bytes()).decode().splitlines()
    results = tuple(Result.from_dict({**json.loads(line), "arch": {}}) for line in lines)
    return Table(load_study(_file(place, "yaml")), results, read_json(_file(place, "json")))


def pack(run: Path, place: Path) -> Table:
    """Write the records of a run to the files of a table, and read them again.

    Raises:
        InputError: The run is of a search, or a network of its space was not trained yet.
    """
    study = load_study(run / "study.yaml")
    if not study.search.is_grid:
        raise InputError("must be grid: a table has every network", key="search.sampler")
    results = read_results(run / "results.jsonl").values()
    trained = {result.key for result in results}
    if missing := [params for params in study.arms() if study.key(params) not in trained]:
        rule = f"lacks {len(missing)} networks, such as {study.arm(missing[0])}; run it to its end"
        raise InputError(rule, file=run)
    write_atomic(_file(place, "yaml"), dump_study(portable_study(study)))
    environment = portable_environment(read_json(run / "environment.json"))
    write_json(_file(place, "json"), environment)
    text = "".join(json.dumps(_record(result)) + "\n" for result in _in_order(results))
    # Without a time in it, so that equal records give equal files.
    write_atomic(_file(place, "jsonl.gz"), gzip.compress(text.encode(), mtime=0))
    return read(place)


def _file(place: Path, suffix: str) -> Path:
    return place.with_name(f"{place.name}.{suffix}")


def _in_order(results: Iterable[Result]) -> list[Result]:
    return sorted(results, key=lambda result: (result.seed, result.trial))


def _record(result: Result) -> dict[str, Any]:
    """What is kept of a record: not the network, which follows from the knobs, nor the machine."""
    short = [
        {**point, "loss": float(f"{point['loss']:.{DIGITS}g}")} if "loss" in point else point
        for point in result.history
    ]
    kept = replace(result, history=short, environment={}, error=_short(result.error)).to_dict()
    del kept["arch"]
    return kept


def _short(error: Mapping[str, str] | None) -> dict[str, str] | None:
    """Why a training failed, without the places in files of the machine."""
    if error is None:
        return None
    return {key: text for key, text in error.items() if key != "traceback"}
