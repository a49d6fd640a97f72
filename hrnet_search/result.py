"""What one trial yields: `Metric` names a number, `Result` holds one trial's record.

One name from YAML to axis label: `profile.macs` is the key in the record, the column in the
frame and the objective in a study; its label, unit and direction stand in `METRICS` alone.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .cost import PAPER_GFLOP, Cost
from .errors import InputError, nearest_name
from .files import read_json

Direction = Literal["maximize", "minimize"]
State = Literal["complete", "pruned", "failed"]  # of a trial that has ended


@dataclass(frozen=True)
class Metric:
    """One reported number. Records keep base units; `scale` is for display alone.

    Args:
        key: Dotted path in the record.
        label: Name on axes and in tables.
        unit: Unit after scaling, empty for a pure number.
        direction: Which way is better.
        scale: Display value = record value * scale.
        digits: Digits after the point, or None for three significant ones.
    """

    key: str
    label: str
    unit: str
    direction: Direction
    scale: float = 1.0
    digits: int | None = None

    @property
    def title(self) -> str:
        """Label with unit, for axes and headings."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if self.direction == "maximize" else -1

    def show(self, value: float | None) -> str:
        """The value as text in display units, "n/a" if there is none."""
        if value is None or value != value:
            return "n/a"
        scaled = value * self.scale
        return f"{scaled:.{self.digits}f}" if self.digits is not None else f"{scaled:.3g}"


METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        # Accuracies are kept as fractions and shown times 100, as the paper prints them.
        Metric("metrics.ap", "AP", "", "maximize", 100, 1),
        Metric("metrics.ap50", "AP50", "", "maximize", 100, 1),
        Metric("metrics.ap75", "AP75", "", "maximize", 100, 1),
        Metric("metrics.apm", "APM", "", "maximize", 100, 1),
        Metric("metrics.apl", "APL", "", "maximize", 100, 1),
        Metric("metrics.ar", "AR", "", "maximize", 100, 1),
        Metric("metrics.pckh", "PCKh@0.5", "", "maximize", 100, 1),
        Metric("metrics.pckh01", "PCKh@0.1", "", "maximize", 100, 1),
        Metric("metrics.nme", "NME", "%", "minimize", 100, 2),
        Metric("metrics.miou", "mIoU", "", "maximize", 100, 1),
        Metric("metrics.pixel_accuracy", "Pixel accuracy", "", "maximize", 100, 1),
        Metric("metrics.class_accuracy", "Mean class accuracy", "", "maximize", 100, 1),
        Metric("metrics.box_ap", "Box AP", "", "maximize", 100, 1),
        Metric("metrics.box_ap50", "Box AP50", "", "maximize", 100, 1),
        Metric("metrics.box_ap75", "Box AP75", "", "maximize", 100, 1),
        Metric("metrics.box_aps", "Box APS", "", "maximize", 100, 1),
        Metric("metrics.box_apm", "Box APM", "", "maximize", 100, 1),
        Metric("metrics.box_apl", "Box APL", "", "maximize", 100, 1),
        Metric("metrics.mask_ap", "Mask AP", "", "maximize", 100, 1),
        Metric("metrics.mask_ap50", "Mask AP50", "", "maximize", 100, 1),
        Metric("metrics.mask_ap75", "Mask AP75", "", "maximize", 100, 1),
        Metric("metrics.mask_aps", "Mask APS", "", "maximize", 100, 1),
        Metric("metrics.mask_apm", "Mask APM", "", "maximize", 100, 1),
        Metric("metrics.mask_apl", "Mask APL", "", "maximize", 100, 1),
        Metric("metrics.top1", "Top-1", "", "maximize", 100, 1),
        Metric("metrics.top5", "Top-5", "", "maximize", 100, 1),
        Metric("profile.params", "Params", "M", "minimize", 1e-6),
        Metric("profile.macs", "GMACs", "1e9 conv + linear", "minimize", 1e-9),
        # The paper's "GFLOPs" are the same multiply-adds in units of 2^30 (Tables 1 and 3).
        Metric("profile.paper_gflops", "GFLOPs", "paper: MACs / 2^30", "minimize"),
        Metric("profile.activations", "Activations", "M", "minimize", 1e-6),
        Metric("profile.kernels", "Kernels", "", "minimize"),
        Metric("profile.depth", "Depth", "conv + linear layers", "minimize"),
        Metric("profile.memory", "Peak memory", "MiB, one training image", "minimize", 2**-20),
        Metric("profile.latency", "Latency", "ms, batch 1, 1 thread", "minimize", 1e3),
    )
}


# Of each class, by kind of task: its key in a trial's classes.json.
CLASS_FIGURES: Mapping[str, str] = {"segmentation": "iou", "detection": "ap"}


def joined(names: Sequence[str]) -> str:
    """As in "a, b and c"."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def count(number: int, noun: str) -> str:
    """As in "1 seed" and "3 seeds"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def metric(key: str) -> Metric:
    """The metric of that key.

    Raises:
        InputError: There is none.
    """
    if key not in METRICS:
        raise InputError("unknown metric", value=key, nearest=nearest_name(key, METRICS))
    return METRICS[key]


def closed_form(cost: Cost) -> dict[str, float]:
    """The metrics that follow from a network's spec alone, in base units."""
    return {
        "profile.params": cost.params,
        "profile.macs": cost.macs,
        "profile.paper_gflops": cost.macs / PAPER_GFLOP,
        "profile.activations": cost.activations,
        "profile.kernels": cost.kernels,
        "profile.depth": cost.depth,
        "profile.memory": cost.memory,
    }


LATENCY = "profile.latency"  # measured, not counted
COUNTED = tuple(key for key in METRICS if key.startswith("profile.") and key != LATENCY)


def check_limits(limits: Mapping[str, float], valid: Iterable[str] = COUNTED) -> dict[str, float]:
    """The limits, if each is on one of the valid metrics and above 0.

    Raises:
        InputError: One is not.
    """
    keys = list(valid)
    for key, most in limits.items():
        if key not in keys:
            rule = f"must be one of {', '.join(keys)}"
            near = nearest_name(key, keys)
            raise InputError(rule, key="limits", value=key, nearest=near)
        if not most > 0:
            raise InputError("must be above 0", key=f"limits.{key}", value=most)
    return dict(limits)


# Why a trial failed -> what that means. The driver starts it again only for `RETRIED`.
CAUSES: Mapping[str, str] = {
    "diverged": "training diverged",
    "memory": "memory ran out",
    "disk": "a file could not be read or written",
    "died": "the worker process died",
    "timeout": "longer than search.trial_limit",
    "error": "an exception",
}
RETRIED = ("memory", "disk", "died")  # the same again may go well; the others would not


@dataclass(frozen=True, kw_only=True)
class Result:
    """The record of one trial: one line of `results.jsonl`.

    Args:
        study: Name of the study.
        trial: Number of the trial in the study's ledger.
        state: "complete"; "pruned" if a scheduler stopped it early; or "failed".
        arm: The settings this trial varies, as text.
        params: Knob -> value, as the space names them.
        seed: Seed of initial weights and data order.
        key: `Study.key`: hash of the network, and the variant if there are any.
        arch: The network (`ArchSpec.to_dict`).
        profile: Cost in base units, keys as in `METRICS` after the dot.
        metrics: Final metrics, likewise; empty if the trial failed.
        history: Measured points of training: step, loss, metrics.
        seconds: Wall time of training and evaluation.
        attempt: How often the trial was started, from 1.
        started: Start in ISO 8601, UTC.
        ended: End, likewise.
        environment: Host, CPU, threads, precision, memory format, package versions.
        error: None, or type, message and traceback of the failure, and its cause: a key of
            `CAUSES`.
        proposal: Number of the sampler's proposal that it trains; None in a grid.
        classes: Class -> its final intersection over union (segmentation) or box AP (detection,
            classes with objects), fractions.
    """

    study: str
    trial: int
    state: State
    arm: str
    params: dict[str, Any]
    seed: int
    key: str
    arch: dict[str, Any]
    profile: dict[str, float]
    metrics: dict[str, float]
    history: list[dict[str, float]]
    seconds: float
    attempt: int
    started: str
    environment: dict[str, Any] = field(default_factory=dict)
    error: dict[str, str] | None = None
    classes: dict[str, float] = field(default_factory=dict)
    ended: str = ""
    proposal: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Result":
        return cls(**data)

    @classmethod
    def read(cls, path: Path) -> "Result":
        return cls.from_dict(read_json(path))

    def value(self, key: str) -> float | None:
        """The number under a dotted key of `METRICS`, or None if it was not measured."""
        group, name = key.split(".", 1)
        return getattr(self, group).get(name)

    def learnt_nothing(self, key: str) -> bool:
        """Whether the metric is exactly 0, and that is its worst: of an error it is the best."""
        return self.value(key) == 0 and metric(key).direction == "maximize"


def read_results(file: Path) -> dict[int, Result]:
    """Trial -> its line of a `results.jsonl`; lines that cannot be read are left out."""
    found = {}
    for line in file.read_bytes().split(b"\n") if file.exists() else []:
        try:
            result = Result.from_dict(json.loads(line))
        except (ValueError, TypeError):
            continue
        found[result.trial] = result
    return found
