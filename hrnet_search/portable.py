"""Studies, environments and commands without the paths of the machine that they were run on.

What a report or a table holds is sent to others, to whom folders of this machine say nothing.
"""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .reading import PATHS, at, setting_of
from .settings import Files
from .study import Study


def portable_study(study: Study) -> Study:
    """The study without the paths that led to its files here."""
    update: dict[str, Any] = {
        "scales": {name: _without_paths(changes) for name, changes in study.scales.items()},
        "variants": {name: _without_paths(changes) for name, changes in study.variants.items()},
    }
    if isinstance(study.data, Files):
        root = Path(study.data.root).name
        update["data"] = study.data.model_copy(update={"root": root})
    if study.train.pretrained:
        name = Path(study.train.pretrained).name
        update["train"] = study.train.model_copy(update={"pretrained": name})
    return study.model_copy(update=update)


def _without_paths(changes: dict[str, Any]) -> dict[str, Any]:
    """What a scale or a variant changes, likewise."""
    shown = dict(changes)
    for section, key in PATHS:
        if path := at(changes, section, key):
            shown[section] = {**changes[section], key: Path(path).name}
    return shown


def portable_environment(environment: Mapping[str, Any]) -> dict[str, Any]:
    """A run's environment without names of this machine."""
    shown = {key: value for key, value in environment.items() if key != "host"}
    if command := shown.get("command"):
        shown["command"] = portable_command(command)
    return _without_folder(shown)


def _without_folder(environment: dict[str, Any]) -> dict[str, Any]:
    """Without where the data lies, that of each variant likewise."""
    shown = dict(environment)
    if isinstance(shown.get("data"), dict):
        shown["data"] = {k: v for k, v in shown["data"].items() if k != "folder"}
    if isinstance(shown.get("variants"), dict):
        shown["variants"] = {k: _without_folder(v) for k, v in shown["variants"].items()}
    return shown


def portable_command(given: str) -> str:
    """A command line with the last name alone of each path, as in `portable_study`."""
    try:
        words = shlex.split(given)
    except ValueError:  # a record that somebody changed: no line of a shell
        return given
    for place, word in enumerate(words):
        key, equals, value = word.partition("=")
        if equals and setting_of(key) in map(".".join, PATHS):
            words[place] = f"{key}={Path(value).name}"
        elif Path(word).is_absolute() or word.startswith("~"):
            words[place] = Path(word).name
    return shlex.join(words)
