"""The record of one trial, as a run or a report keeps it, with the study that it belongs to.

A run has all of it (`results.jsonl`); a report has the final metrics of every trial, in full
precision (`results.csv`), and one environment for all of them.
"""

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from .errors import InputError
from .files import read_user_json
from .reading import at, check_name, setting_of
from .result import CAUSES, METRICS, Result, State, read_results
from .settings import Files
from .space import Value
from .study import Study, load_study

RESULTS, TABLE = "results.jsonl", "results.csv"  # of a run, of a report
# What may be given anew: where files lie, and how batches are made ready. Checksums and tests hold
# that none of it decides about a figure.
MAY_CHANGE = ("data.root", "data.cache_gib", "train.pretrained", "train.workers")
WANTED = ("device", "precision", "memory_format", "data", "versions")  # of an environment


@dataclass(frozen=True, kw_only=True)
class Record:
    """One trial that has ended, and can be trained again.

    Args:
        place: Folder of the run or the report.
        study: How it was trained; without variants.
        result: What came of it. From a report: without history and classes.
        arch: Its network, `ArchSpec.to_dict` or `Rival.to_dict`.
    """

    place: Path
    study: Study
    result: Result
    arch: dict[str, Any]

    @property
    def is_of_report(self) -> bool:
        return not (self.place / RESULTS).exists()


def read_record(place: Path, trial: int, overrides: Sequence[str] = ()) -> Record:
    """The record of a trial.

    Args:
        place: Folder of a run, or of a report if there is no `results.jsonl`.
        trial: Its number.
        overrides: Entries "key=value" with keys of `MAY_CHANGE`.

    Raises:
        InputError: There is no such trial, it has nothing to compare with, or the record lacks
            something, is damaged, or does not fit its study.
    """
    study = load_study(place / "study.yaml")
    for override in overrides:
        _check_override(override, study.variants)
    study = load_study(place / "study.yaml", overrides) if overrides else study
    result = find_trial(place, study, trial)
    _check_comparable(result, place)
    arch = study.network(result.params).to_dict()
    record = Record(place=place, study=study.under(result.params), result=result, arch=arch)
    if record.is_of_report:
        _check_paths(study, study.variant_of(result.params), overrides)
    return record


def find_trial(place: Path, study: Study, trial: int) -> Result:
    """What a run or a report has of a trial.

    Args:
        place: Folder of a run, or of a report if there is no `results.jsonl`.
        study: Its own.
        trial: Its number.

    Raises:
        InputError: There is no such trial, it is damaged, or it does not fit its study.
    """
    if (place / RESULTS).exists():
        results = read_results(place / RESULTS)
    else:
        results = read_table(place, study)
    if trial not in results:
        raise InputError(_which(results), file=place, key="--trial", value=trial)
    result = results[trial]
    if (key := study.key(result.params)) != result.key:
        rule = f"of trial {trial} is of another network than its params build ({key})"
        raise InputError(rule, file=place, key="key", value=result.key)
    return result


def of_variant(environment: Mapping[str, Any], variant: str) -> dict[str, Any]:
    """What a study's environment says of the trials of a variant; all of it if that is "".

    A study with variants has data and checkpoint of each.
    """
    own = {name: value for name, value in environment.items() if name != "variants"}
    return own | environment.get("variants", {}).get(variant, {}) if variant else own


def _check_override(override: str, variants: Collection[str]) -> None:
    key = override.partition("=")[0]
    is_of_variant = bool(variants) and key.startswith("variants.")
    if (setting_of(key) if is_of_variant else key) not in MAY_CHANGE:
        rule = f"would make another training of it; only {', '.join(MAY_CHANGE)} may be set"
        raise InputError(rule, file="--set", key=key)
    if is_of_variant:
        check_name("variants", key.split(".")[1], variants)


def _check_paths(study: Study, variant: str, overrides: Sequence[str]) -> None:
    """Whether it was said where files lie: reports do not keep folders of their machine."""
    given = [override.partition("=")[0] for override in overrides]
    own = study.parts[variant]
    wanted = {
        ("data", "root"): own.data.root if isinstance(own.data, Files) else "",
        ("train", "pretrained"): own.train.pretrained,
    }
    for keys, path in wanted.items():
        is_changed = at(study.variants, variant, *keys) is not None
        key = ".".join([*["variants", variant] * is_changed, *keys])
        if path and key not in given:
            rule = f"a report does not keep where it lies; give --set {key}=PATH"
            raise InputError(rule, key=key, value=Path(path).name)


def _which(results: dict[int, Result]) -> str:
    """Which trials there are, as a rule."""
    if not results:
        return "no trial has ended yet"
    return f"is no trial that has ended; {there_are(results)}"


def there_are(trials: Collection[int]) -> str:
    """As in "there are 0 to 12, with gaps": a list of thousands would fill the screen."""
    low, high = min(trials), max(trials)
    gaps = "" if len(trials) == high - low + 1 else ", with gaps"
    return f"there are {low} to {high}{gaps}" if low < high else f"there is {low}"


def _check_comparable(result: Result, place: Path) -> None:
    key, number = "--trial", result.trial
    if result.state == "failed":
        cause = CAUSES[(result.error or {}).get("cause", "error")]
        rule = f"failed ({cause}), so there is nothing to compare with"
        raise InputError(rule, file=place, key=key, value=number)
    if not result.metrics and not result.history:
        rule = "was ended early, and a report does not keep its history; replay it from its run"
        raise InputError(rule, file=place, key=key, value=number)
    lacking = [name for name in WANTED if name not in result.environment]
    if lacking:
        rule = f"the record does not say what it was trained with: {', '.join(lacking)}"
        raise InputError(rule, file=place, key="environment")
    if (processes := result.environment.get("processes", 1)) > 1:
        rule = f"was trained by {processes} processes; a replay has one"
        raise InputError(rule, file=place, key=key, value=number)


# --- reports -----------------------------------------------------------------------------------


def read_table(place: Path, study: Study) -> dict[int, Result]:
    """Trial -> what a report tells of it: no history, no classes, and of a failure its cause.

    Args:
        place: Folder of the report.
        study: Its own.

    Raises:
        InputError: A file is missing or damaged.
    """
    file, environment = place / TABLE, read_mapping(place / "environment.json")
    try:
        # As bytes: a name may hold any line break, which reading as text would change.
        text = file.read_bytes().decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        rows = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"cannot be read ({error})", file=file) from None
    if "trial" not in (reader.fieldnames or ()):
        raise InputError("is no table of trials", file=file)
    named = {study.arm(p): p for p in study.arms()} if study.search.is_grid else {}
    found = {}
    for number, row in enumerate(rows, start=1):
        try:
            params = named[row["arm"]] if study.search.is_grid else _params(row, study)
            result = _of_row(
                row, study.name, params, of_variant(environment, study.variant_of(params))
            )
        except (KeyError, ValueError, TypeError):
            raise InputError(f"is damaged in row {number}", file=file) from None
        found[result.trial] = result
    return found


def read_mapping(file: Path) -> dict[str, Any]:
    """What `environment.json` or `status.json` says; nothing if there is none.

    Raises:
        InputError: It is damaged.
    """
    about = read_user_json(file) if file.exists() else {}
    if not isinstance(about, dict):
        raise InputError("must hold names and values", file=file)
    return about


def _of_row(
    row: dict[str, str], study: str, params: dict[str, Value], environment: dict[str, Any]
) -> Result:
    if row["state"] not in get_args(State):
        raise ValueError(row["state"])
    found: dict[str, dict[str, float]] = {"metrics": {}, "profile": {}}
    for key in METRICS:
        group, _, name = key.partition(".")
        if row.get(key):
            found[group][name] = float(row[key])
    return Result(
        study=study,
        trial=int(row["trial"]),
        state=row["state"],  # type: ignore[arg-type]
        arm=row["arm"],
        params=params,
        seed=int(row["seed"]),
        key=row["key"],
        arch={},
        **found,
        history=[],
        seconds=float(row["seconds"]),
        attempt=int(row["attempt"]),
        started=row["started"],
        ended=row["ended"],
        proposal=int(row["proposal"]) if row["proposal"] else None,
        environment=environment,
        error={"cause": row["error.cause"] or "error"} if row["state"] == "failed" else None,
    )


def _params(row: dict[str, str], study: Study) -> dict[str, Value]:
    """Knob -> value of a search's network, of which a table has the text.

    Raises:
        ValueError: A text is none of its knob's values.
    """
    knobs = {name: knob.values() for name, knob in study.space.vary.items()}
    return {name: _value(row[f"params.{name}"], values) for name, values in knobs.items()}


def _value(text: str, values: Sequence[Value]) -> Value:
    """The value that pandas wrote as this text: of a column with gaps, whole numbers as 4.0."""
    for value in values:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if text == str(value) or (is_number and text == str(float(value))):  # type: ignore[arg-type]
            return value
    raise ValueError(text)
