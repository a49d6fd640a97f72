"""What `profile` and `draw` are asked about: a network or a space, by name or by file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from .arch import ArchSpec
from .blueprint import HEADS, head_of
from .errors import InputError, nearest_name
from .files import read_json
from .frameworks import FRAMEWORKS
from .presets import PRESETS, TASK_SETTINGS, preset
from .reading import check_name
from .rivals import RIVALS, Rival
from .settings import ClassificationTask, PoseTask, SegmentationTask
from .space import Space, Value
from .study import Study, load

DEFAULT_TASK = "pose"

NO_HRNET = "is no HRNet, so it has no branches to draw"

Setting = tuple[str, int, tuple[int, int]]  # head, outputs, image (H, W)


@dataclass(frozen=True)
class Target:
    """What was found.

    Args:
        name: As the user gave it.
        what: One network, or a space of networks.
        setting: Head, number of outputs and image size (H, W) it is looked at with.
        tasks: What it may be for, keys of `TASK_SETTINGS`.
    """

    name: str
    what: ArchSpec | Rival | Space
    setting: Setting
    tasks: tuple[str, ...]


def find_target(name: str, *, task: str | None) -> Target:
    """The network or space of that name.

    Args:
        name: A key of `PRESETS` or `RIVALS`; a file `arch.json`, of an exported network or of a
            bare spec; or the YAML file of a space or a study.
        task: Decides what the name leaves open, a key of `TASK_SETTINGS`; "pose" if not given.

    Raises:
        InputError: There is none, its file breaks a rule, or the task is not for it.
    """
    if task is not None and task not in TASK_SETTINGS:
        rule = f"must be one of {', '.join(TASK_SETTINGS)}"
        near = nearest_name(task, TASK_SETTINGS)
        raise InputError(rule, key="--task", value=task, nearest=near)
    if name in RIVALS:
        (own,) = RIVALS[name].tasks
        if task not in (None, own):
            raise InputError(f"{name} is for {own}", key="--task", value=task)
        return Target(name, RIVALS[name], TASK_SETTINGS[own], (own,))
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return _from_yaml(path, task)
    if path.suffix == ".json":
        return _from_json(path, task)
    task = task or DEFAULT_TASK
    if name in PRESETS:
        return Target(name, preset(name, task=task), TASK_SETTINGS[task], (task,))
    rule = "is no network's name (see docs/networks.md) and no .yaml or .json file"
    raise InputError(rule, value=name, nearest=nearest_name(name, [*PRESETS, *RIVALS]))


def hrnet_of(target: Target) -> ArchSpec:
    """The one network that was found.

    Raises:
        InputError: It is a space, or no HRNet.
    """
    if isinstance(target.what, Space):
        rule = "holds many networks; name one of a study by --arm or --trial"
        raise InputError(rule, value=target.name)
    if isinstance(target.what, Rival):
        raise InputError(NO_HRNET, value=target.name)
    return target.what


def heads_of(task: str) -> tuple[str, ...]:
    """The heads that a study of this task, a key of `TASK_SETTINGS`, can train."""
    if task == "detection":
        those = {head for framework in FRAMEWORKS.values() for head in framework.pyramids}
        return tuple(head for head in HEADS if head in those)
    settings: type[PoseTask | ClassificationTask | SegmentationTask] = SegmentationTask
    if task in ("pose", "classification"):
        settings = PoseTask if task == "pose" else ClassificationTask
    return get_args(settings.model_fields["head"].annotation)


def check_head(head: str | None, target: Target) -> None:
    """Whether a study of its task trains what was found with this head; None is the usual one.

    Raises:
        InputError: There is no such head, or it is another task's.
    """
    known = list(dict.fromkeys(name for task in target.tasks for name in heads_of(task)))
    if head is None or head in known:
        return
    rule = f"must be one of {', '.join(known)} for {' or '.join(target.tasks)}"
    others = [task for task in TASK_SETTINGS if head in heads_of(task)]
    if others:
        rule += f"; {head} is for {' or '.join(others)}"
    raise InputError(rule, key="--head", value=head, nearest=nearest_name(head, known))


def network_of(study: Study, params: Mapping[str, Value]) -> tuple[ArchSpec, str]:
    """The HRNet that a study makes of knob values, and its head.

    Raises:
        InputError: It is no HRNet.
    """
    network = study.network(params)
    if isinstance(network, Rival):
        raise InputError(NO_HRNET, value=study.arm(params))
    return network, study.under(params).task.head


def params_of(study: Study, arm: str) -> dict[str, Value]:
    """The knob values of an arm.

    Raises:
        InputError: There is no such arm, or the study is a search.
    """
    if not study.search.is_grid:
        rule = "is for grids; the networks of a search are named by --trial"
        raise InputError(rule, key="--arm", value=arm)
    arms = {study.arm(params): params for params in study.arms()}
    check_name("--arm", arm, arms)
    return arms[arm]


def _from_yaml(path: Path, task: str | None) -> Target:
    loaded = load(path)
    if isinstance(loaded, Study):
        if task is not None:
            raise InputError("is for spaces; a study has its own", key="--task", value=task)
        setting = (loaded.task.head, loaded.head_outputs, loaded.input_size)
        return Target(str(path), loaded.space, setting, (loaded.task.kind,))
    task = task or DEFAULT_TASK
    return Target(str(path), loaded.for_task(task), TASK_SETTINGS[task], (task,))


def _from_json(path: Path, task: str | None) -> Target:
    try:
        data = read_json(path)
    except FileNotFoundError:
        raise InputError("there is no such file", file=path) from None
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no JSON, no UTF-8
        raise InputError(f"is not readable JSON ({error})", file=path) from None
    try:
        if isinstance(data, Mapping) and "arch" in data:
            spec, setting = ArchSpec.from_dict(data["arch"]), _exported(data, task or DEFAULT_TASK)
            fitting = tuple(name for name in TASK_SETTINGS if setting[0] in heads_of(name))
            return Target(str(path), spec, setting, (task,) if task else fitting)
        setting = TASK_SETTINGS[task or DEFAULT_TASK]
        tasks = (task,) if task else tuple(TASK_SETTINGS)
        return Target(str(path), ArchSpec.from_dict(data), setting, tasks)
    except InputError as error:
        raise error.within(file=path) from None


def _exported(data: Mapping[str, Any], task: str) -> Setting:
    """An exported network knows its head and outputs, but no image size."""
    head, num_outputs = data.get("head"), data.get("num_outputs")
    if not isinstance(head, str):
        raise InputError("must be the name of a head", key="head", value=head)
    head_of(head)
    if type(num_outputs) is not int or num_outputs < 1:
        rule = "must be a whole number of at least 1"
        raise InputError(rule, key="num_outputs", value=num_outputs)
    return head, num_outputs, TASK_SETTINGS[task][2]
