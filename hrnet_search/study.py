"""A study: one YAML file that says what to train, on what, how often, and what to compare.

Everything here is read without torch. `load` is strict: an unknown key, a wrong type or an
impossible value is refused with file, dotted key, value, rule and the nearest valid name.
"""

import functools
import itertools
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from .arch import TASK_DEFAULTS, ArchSpec
from .blueprint import canonical, check_input
from .cost import count
from .errors import InputError, nearest_name
from .files import write_json
from .frameworks import FRAMEWORKS, DetectorSpec
from .matching import MATCH_KNOB, MATCH_TOLERANCE, MATCHABLE, matched
from .paper import TABLES
from .reading import (
    PATHS,
    Dumper,
    apply_override,
    at,
    check_name,
    expand_user,
    read_yaml,
    validate,
)
from .result import LATENCY, METRICS, closed_form, metric
from .rivals import RIVAL_KNOB, RIVALS, Rival
from .settings import (
    DATA_KINDS,
    Data,
    DetectionTask,
    Labelled,
    Objects,
    People,
    PoseTask,
    SegmentationTask,
    Task,
    Train,
    refuse_unused,
)
from .space import Settings, Space, Strict, Value
from .strategy import Search
from .views import scaled_size

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
ONLY_OF_SPECS = ("profile.activations", "profile.kernels", "profile.depth")
MAX_LOOKS = 20  # at comparisons; each has a share of the 5 %, so that more would show little
MAX_MATCHED = 100  # arms; each is costed dozens of times whenever its study is read
# What a scale may change: anything that leaves the arms, and what they are called, as they are.
SCALED = ("data", "task", "train", "space", "seeds")
VARIED = ("data", "task", "train")  # what a variant may change
# Of `train`, what is one for all trials of a study: how long they are, and what they run on.
NOT_VARIED = (
    *("steps", "epochs", "evaluations"),
    *("processes", "precision", "memory_format"),
)
VARIANT_KNOB = "variant"  # beside the knobs of a network, in the parameters of a trial
PART_PATTERN = r"[A-Za-z0-9_-]{1,32}"  # of a scale or variant: no dots, it stands in dotted keys
FULL = "full"  # the study as it is, beside its scales
RIVAL_MULTIPLE = 32  # pixels: ResNets reduce so much and are enlarged again to a quarter


class Paper(Strict):
    """The table of the paper that this study repeats."""

    table: str = Field(description="A key of hrnet_search.paper.TABLES.")
    column: str = Field(description="Its column for this task.")

    @model_validator(mode="after")
    def _exists(self) -> "Paper":
        check_name("table", self.table, TABLES)
        check_name("column", self.column, TABLES[self.table].columns)
        return self


class Adaptive(Strict):
    """Further seeds for arms whose comparison with the reference is undecided."""

    most: int = Field(ge=2, le=1000, description="Seeds of an arm at the most.")
    step: int = Field(default=5, ge=1, description="Seeds that are added at a time.")


class Study(Strict):
    """One study file."""

    name: str = Field(pattern=NAME_PATTERN, description="Names runs/<name> and reports/<name>.")
    title: str = Field(default="", description="Headline of the report.")
    description: str = Field(default="", description="Text at the head of the report.")
    task: Task
    data: Data
    space: Space = Field(description="A space, or in a file the path of one.")
    train: Train
    search: Search = Field(default=Search(), description="How networks are chosen.")
    seeds: int = Field(default=3, ge=1, le=1000, description="Trainings of each network.")
    adaptive: Adaptive | None = Field(
        default=None,
        description="Adds seeds to the arms that are undecided; a false verdict stays as rare.",
    )
    rivals: list[str] = Field(
        default=[],
        description="Networks of others to train beside those of the space, as further arms.",
    )
    objectives: list[str] = Field(
        default=[], max_length=2, description="Metrics to compare by; accuracy first, then cost."
    )
    reference: str = Field(default="", description="Arm that others are compared with; last one.")
    match: dict[str, Literal["reference"]] = Field(
        default={},
        max_length=1,
        description="A closed-form cost, in which a copy of each arm is to meet the reference.",
    )
    variants: dict[str, dict[str, Any]] = Field(
        default={},
        description="Name -> what is changed of data, task and train. Each network is an arm under "
        "each variant.",
    )
    paper: Paper | None = Field(default=None, description="Table to set beside the results.")
    scales: dict[str, dict[str, Any]] = Field(
        default={},
        description="Name -> what is changed of data, task, train, space.base and seeds, for "
        "smaller studies of the same arms, cheapest first. `hrnet-search fidelity` trains them, "
        "and this study, and tells how well each predicts it; `run` takes no notice of them.",
    )

    @model_validator(mode="before")
    @classmethod
    def _task_defaults(cls, raw: Any) -> Any:
        """The space's networks have the official defaults of the study's task."""
        kind, space = at(raw, "task", "kind"), at(raw, "space")
        if kind == "segmentation" and at(raw, "task", "head") == "ocr":
            kind = "segmentation_ocr"
        base = at(space, "base", default={})
        wanted = isinstance(kind, str) and kind in TASK_DEFAULTS and isinstance(space, dict)
        if not wanted or not isinstance(base, dict) or "task" in base:
            return raw
        return {**raw, "space": {**space, "base": {"task": kind, **base}}}

    @model_validator(mode="after")
    def _fits_together(self) -> "Study":
        wanted = DATA_KINDS[self.task.kind]
        if self.data.kind not in wanted:
            rule = f"task {self.task.kind} needs data of kind {' or '.join(wanted)}"
            raise InputError(rule, key="data.kind", value=self.data.kind)
        self._check_task()
        self._check_objectives()
        self._check_rivals()
        if not self.search.is_grid:
            self._check_search()
            return self
        if LATENCY in self.space.limits:
            rule = "is measured, so it is for searches (search.sampler); a grid is known beforehand"
            raise InputError(rule, key=f"space.limits.{LATENCY}")
        for params in self._grid:
            self._check_network(params)
        self._check_variants()
        networks = {self.network_name(params) for params in self._own}
        for place, name in enumerate(self.rivals):
            if name in networks:
                raise InputError("is the name of an arm too", key=f"rivals.{place}", value=name)
        arms = [self.arm(params) for params in self._own]
        if self.reference and self.reference not in arms:
            rule = f"must be one of the space's arms ({'; '.join(arms[:10])})"
            near = nearest_name(self.reference, arms)
            raise InputError(rule, key="reference", value=self.reference, nearest=near)
        self._check_match(arms)
        self._check_adaptive()
        for name in self.scales:
            self._check_scale(name)
        _check_spelling("scales", self.scales, "each names a folder")
        return self

    def _check_scale(self, name: str) -> None:
        """Whether a scale makes a valid study of the same arms, measured alike."""
        key = f"scales.{name}"
        _check_part_name("scales", name)
        if name == FULL:
            raise InputError("is the name of the study itself", key="scales", value=name)
        if not re.fullmatch(NAME_PATTERN, made := f"{self.name}-{name}"):
            raise InputError(f"makes a name of more than 64 letters, {made}", key=key)
        if not any(value != {} for value in self.scales[name].values()):
            raise InputError("changes nothing", key=key)
        _check_changes(self.scales[name], key, SCALED)
        for part in self.scales[name].get("space", {}):
            check_name(f"{key}.space.{part}", part, ("base",))
        scaled = self.at_scale(name)
        if scaled.accuracy != self.accuracy:
            rule = f"measures {scaled.accuracy} where the study measures {self.accuracy}"
            raise InputError(rule, key=f"{key}.task")
        if scaled.arms() != self.arms():
            rule = "changes which networks are distinct or within space.limits; all scales need "
            raise InputError(f"{rule}the same arms", key=key)

    def _check_variants(self) -> None:
        """Whether each makes a valid study whose networks can stand beside those of the others."""
        if not self.variants:
            return
        for key in ("match", "adaptive", "scales"):
            if getattr(self, key):
                raise InputError("cannot be given beside variants", key=key)
        if VARIANT_KNOB in self.space.vary:
            rule = "is reserved for variants; choose another name for the knob"
            raise InputError(rule, key=f"space.vary.{VARIANT_KNOB}")
        if len(self.variants) < 2:
            rule = (
                "must be at least two, of which each is an arm; one may be {}, the study as it is"
            )
            raise InputError(rule, key="variants", value=list(self.variants))
        _check_spelling("variants", self.variants, "each is part of the name of files")
        found: dict[str, str] = {}
        for name, study in self._variants.items():
            self._check_variant(name, study)
            if (other := found.setdefault(dump_study(study), name)) != name:
                rule = f"makes the same study as variant {other}"
                raise InputError(rule, key=f"variants.{name}")

    def _check_variant(self, name: str, study: "Study") -> None:
        """Whether trials of a variant's study can be run and compared with those of this one."""
        key = f"variants.{name}"
        for setting in NOT_VARIED:
            before, now = getattr(self.train, setting), getattr(study.train, setting)
            if before != now:
                rule = f"must be that of the study ({before}): it is one for all variants"
                raise InputError(rule, key=f"{key}.train.{setting}", value=now)
        if study.accuracy != self.accuracy:
            rule = f"measures {study.accuracy} where the study measures {self.accuracy}"
            raise InputError(rule, key=f"{key}.task")
        if _learnt(study.data) != _learnt(self.data):
            rule = "changes the joints or classes; all variants need the same"
            raise InputError(rule, key=f"{key}.data")

    def _check_search(self) -> None:
        """What a sampler needs, and that some network of the space can be trained."""
        self._check_grid_settings()
        self._check_start()
        if self.search.scheduler != "none":
            if self.train.processes > 1:
                rule = "must be none where several processes share a trial (train.processes)"
                raise InputError(rule, key="search.scheduler", value=self.search.scheduler)
            if self.search.first_rung >= self.train.evaluations:
                rule = f"must be below train.evaluations ({self.train.evaluations})"
                raise InputError(rule, key="search.first_rung", value=self.search.first_rung)
        first: InputError | None = None
        for params in self.space.examples():
            try:
                self._check_network(params)
                return
            except InputError as error:
                first = first or error
        if first is not None:
            raise first

    def _check_grid_settings(self) -> None:
        for key in ("adaptive", "rivals", "reference", "match", "variants", "paper", "scales"):
            if getattr(self, key):
                rule = f"is for studies of a grid; a search by {self.search.sampler} has no arms"
                raise InputError(rule, key=key, value=str(getattr(self, key)))

    def _check_start(self) -> None:
        for place, params in enumerate(self.search.start):
            for name, value in params.items():
                key = f"search.start.{place}.{name}"
                check_name(key, name, self.space.vary)
                values = self.space.vary[name].values()
                # As JSON, for to Python true is 1 and 4.0 is 4.
                if json.dumps(value) not in map(json.dumps, values):
                    shown = ", ".join(map(str, values[:10]))
                    raise InputError(f"must be one of {shown}", key=key, value=value)

    def at_scale(self, name: str) -> "Study":
        """The study `<name>-<scale>` that a scale makes of this one.

        Raises:
            InputError: It is not valid; the key begins with `scales.<name>`.
        """
        raw = self.model_dump(mode="json", exclude_unset=True, exclude={"scales"})
        raw = _merged(raw, self.scales[name])
        raw |= {"name": f"{self.name}-{name}", "title": f"{self.title or self.name}: scale {name}"}
        try:
            return validate(Study, raw)
        except InputError as error:
            raise error.within(key=f"scales.{name}") from None

    def at_scales(self) -> dict[str, "Study"]:
        """Scale -> its study; the last is this one, `FULL`, which the others are to predict."""
        return {name: self.at_scale(name) for name in self.scales} | {FULL: self}

    def variant(self, name: str) -> "Study":
        """The study without variants, and with the same name, that one of them makes of this one.

        Raises:
            InputError: It is not valid; the key begins with `variants.<name>`.
        """
        raw = self.model_dump(mode="json", exclude_unset=True, exclude={"variants", "reference"})
        try:
            return validate(Study, _merged(raw, self.variants[name]))
        except InputError as error:
            raise error.within(key=f"variants.{name}") from None

    @functools.cached_property
    def _variants(self) -> dict[str, "Study"]:
        for name, changes in self.variants.items():
            _check_part_name("variants", name)
            _check_changes(changes, f"variants.{name}", VARIED)
        return {name: self.variant(name) for name in self.variants}

    @property
    def parts(self) -> dict[str, "Study"]:
        """The studies, without variants, of trials: variant -> its own; or "" -> this one."""
        return self._variants if self.variants else {"": self}

    def under(self, params: Mapping[str, Value]) -> "Study":
        """Which of `parts` a trial with these parameters is trained by."""
        return self.parts[self.variant_of(params)]

    def variant_of(self, params: Mapping[str, Value]) -> str:
        """The name of its variant; empty where there are none."""
        return str(params[VARIANT_KNOB]) if self.variants else ""

    def _check_task(self) -> None:
        """What the task's settings ask of the data."""
        if isinstance(self.task, SegmentationTask) and isinstance(self.data, Labelled):
            for part in ("augmentation", "test"):
                if self.data.base_length and getattr(self.task, part).resize:
                    rule = f"cannot be given beside task.{part}.resize, which sets the size too"
                    raise InputError(rule, key="data.base_length", value=self.data.base_length)
            count, classes = len(self.task.class_weights), self.num_outputs
            if count not in (0, classes):
                rule = f"must have one weight for each of {classes} classes"
                raise InputError(rule, key="task.class_weights", value=count)
        if isinstance(self.task, PoseTask) and isinstance(self.data, People):
            joints, wanted = self.data.joints, self.task.metric
            lacking = {
                "oks": not joints.sigmas and "needs keypoints.sigmas",
                "pckh": self.data.kind != "mpii_pose" and "needs data of kind mpii_pose",
                "nme": not joints.normalise_by and "needs keypoints.normalise_by",
            }[wanted]
            if lacking:
                raise InputError(lacking, key="task.metric", value=wanted)
            if not joints.upper_body:
                self._check_half_body(self.task)
            if self.task.loss == "ohkm" and self.task.ohkm_joints > len(joints.names):
                rule = f"cannot be more than the {len(joints.names)} joints"
                raise InputError(rule, key="task.ohkm_joints", value=self.task.ohkm_joints)

        if isinstance(self.task, DetectionTask):
            self._check_detection(self.task)

    def _check_half_body(self, task: PoseTask) -> None:
        """What crops of half a body would be, of joints that have no upper half."""
        by, rule = task.augmentation, "needs keypoints.upper_body"
        try:
            if by.half_body:
                refuse_unused(by, ("half_body", "half_body_joints"), rule)
        except InputError as error:
            raise error.within(key="task.augmentation") from None

    def _check_detection(self, task: DetectionTask) -> None:
        detector = task.detector(self.num_outputs)
        if detector.masks and self.data.kind == "voc_detection":
            without = ", ".join(name for name, one in FRAMEWORKS.items() if not one.masks)
            rule = f"learns masks, which Pascal VOC does not have; {without} need none"
            raise InputError(rule, key="task.framework", value=task.framework)
        if self.rivals:
            self._check_detection_rivals(task)

    def _check_detection_rivals(self, task: DetectionTask) -> None:
        wrong = {
            "gradient_checkpointing": task.gradient_checkpointing,
            "framework": task.framework == "centernet",
            "pyramid": task.head != FRAMEWORKS[task.framework].pyramids[0],
        }
        for key, is_wrong in wrong.items():
            if is_wrong:
                rule = "is for HRNets alone; leave the rivals out"
                raise InputError(rule, key=f"task.{key}", value=getattr(task, key))

    def _check_objectives(self) -> None:
        costs = [key for key in METRICS if key.startswith("profile.")]
        for place, (key, valid) in enumerate(
            zip(self.objectives, (self.task.metrics, costs), strict=False)
        ):
            try:
                metric(key)
            except InputError as error:
                raise error.within(key=f"objectives.{place}") from None
            if key not in valid:
                rule = f"must be one of {', '.join(valid)}"
                raise InputError(rule, key=f"objectives.{place}", value=key)
            if self.rivals and key in ONLY_OF_SPECS:
                rule = "is not known of rivals; choose another cost, or leave the rivals out"
                raise InputError(rule, key=f"objectives.{place}", value=key)
            if self.detector and key in ONLY_OF_SPECS:
                raise InputError("is not known of detectors", key=f"objectives.{place}", value=key)

    def _check_network(self, params: dict[str, Value]) -> None:
        """Whether the network can be built, and takes what this study shows it.

        Raises:
            InputError: It cannot, or does not.
        """
        spec = self.space.arch(params)
        if isinstance(self.task, DetectionTask):
            stages = len(spec.stages) + 1  # stage 1 is not in the list
            if self.task.frozen_stages > stages:
                rule = f"cannot be more than the {stages} stages of a network of the space"
                raise InputError(rule, key="task.frozen_stages", value=self.task.frozen_stages)
        spec = canonical(spec, self.task.head)
        for key, value, scale, size in self._views():
            try:
                check_input(spec, self.task.head, size)
            except InputError as error:
                shown = f"is {size[1]}x{size[0]} at scale {scale:g}; " if scale != 1 else ""
                raise InputError(shown + error.rule, key=key, value=value) from None

    def obstacle(self, params: dict[str, Value]) -> str:
        """Why the network cannot be built or trained here, but for its cost; empty if it can."""
        try:
            self._check_network(params)
        except InputError as error:
            return str(error)
        return ""

    def _views(self) -> Iterator[tuple[str, list[int], float, tuple[int, int]]]:
        """Sizes (H, W) that networks are shown: their key, its value, scale, and size at that.

        Whole images are as large as they are: `Task.check` looks at them.
        """
        if isinstance(self.task, DetectionTask):
            assert isinstance(self.data, Objects)
            yield "data.image_size", self.data.image_size, 1, self.input_size
            return
        if not isinstance(self.task, SegmentationTask):
            yield "data.input_size", list(self.input_size), 1, self.input_size
            return
        yield "data.crop_size", list(self.input_size), 1, self.input_size
        test = self.task.test
        if test.window:  # what is smaller is filled up
            height, width = test.window
            yield "task.test.window", test.window, 1, (height, width)
        elif test.resize:
            height, width = test.resize
            least = min(test.scales)
            yield "task.test.resize", test.resize, least, scaled_size((height, width), least)

    def _check_rivals(self) -> None:
        if RIVAL_KNOB in self.space.vary and self.rivals:
            rule = "is reserved for networks of others; choose another name for the knob"
            raise InputError(rule, key=f"space.vary.{RIVAL_KNOB}")
        names = [name for name, rival in RIVALS.items() if self.task.kind in rival.tasks]
        for place, name in enumerate(self.rivals):
            check_name(f"rivals.{place}", name, names)
        wrong = [side for side in self.input_size if side % RIVAL_MULTIPLE]
        if self.task.kind == "pose" and self.rivals and wrong:
            rule = f"must be multiples of {RIVAL_MULTIPLE} where rivals are trained"
            raise InputError(rule, key="data.input_size", value=list(self.input_size))
        if len(set(self.rivals)) < len(self.rivals):
            raise InputError("must not repeat a name", key="rivals", value=self.rivals)

    def _check_match(self, arms: list[str]) -> None:
        """What cost-matched arms need: `arms` are the names of those of the space."""
        if not self.match:
            return
        key = self._matched_cost
        if key == LATENCY:
            rule = "is measured, so widths cannot be found beforehand that meet it"
            raise InputError(rule, key="match", value=key, nearest="profile.macs")
        check_name("match", key, MATCHABLE)
        if MATCH_KNOB in self.space.vary:
            rule = "is reserved for cost-matched arms; choose another name for the knob"
            raise InputError(rule, key=f"space.vary.{MATCH_KNOB}")
        if len(arms) > MAX_MATCHED:
            raise InputError(f"is for at most {MAX_MATCHED} arms", key="match", value=len(arms))
        if len(self.unmatched) == len(arms) - 1 > 0:  # the reference matches itself
            name, miss = next(iter(self.unmatched.items()))
            rule = (
                f"arm '{name}' cannot be brought within {MATCH_TOLERANCE:.0%} of arm "
                f"'{self.reference_arm}' by whole channels; the nearest is {miss:.1%} off"
            )
            raise InputError(rule, key="match", value=key)
        for name in (self.arm(params) for params in self._plan.values() if self.is_copy(params)):
            if name in (*arms, *self.rivals):
                rule = "is the name of an arm, and of the cost-matched copy of another"
                raise InputError(rule, key="match", value=name)

    def _check_adaptive(self) -> None:
        """What a first look at the comparisons needs."""
        if self.adaptive is None:
            return
        if self.seeds < 2:
            rule = "must be at least 2 with adaptive: one difference has no spread"
            raise InputError(rule, key="seeds", value=self.seeds)
        if self.adaptive.most <= self.seeds:
            rule = f"must be above seeds ({self.seeds})"
            raise InputError(rule, key="adaptive.most", value=self.adaptive.most)
        if (self.adaptive.most - self.seeds) / self.adaptive.step > MAX_LOOKS - 1:
            rule = f"must be larger: with so many steps there are more than {MAX_LOOKS} looks"
            raise InputError(rule, key="adaptive.step", value=self.adaptive.step)

    def is_feasible(self, params: dict[str, Value]) -> bool:
        """Can the network be trained here, within the limits that are counted?"""
        if self.obstacle(params):
            return False
        limits = {key: most for key, most in self.space.limits.items() if key != LATENCY}
        costs = self.costs(params) if limits else {}
        return all(costs[key] <= most for key, most in limits.items())

    def arms(self) -> list[dict[str, Value]]:
        """Of a grid: knob values of each network within the limits, in order; rivals last.

        With `match` an arm is followed by its cost-matched copy, which has `MATCH_KNOB` besides.
        There is none where it would be a network that is an arm already. With `variants` a network
        is an arm for each of them, which has `VARIANT_KNOB` besides.
        """
        rivals = self._under_each([{RIVAL_KNOB: name} for name in self.rivals])
        own = list(self._plan.values()) if self.match else self._own
        return [*own, *rivals]

    @functools.cached_property
    def _own(self) -> list[dict[str, Value]]:
        """Of the space's networks within its limits; where there are variants, under each."""
        if not self.variants:
            return self._feasible
        kept = {
            name: {study.arm(params) for params in study._feasible}
            for name, study in self.parts.items()
        }
        return [
            params
            for params in self._under_each(self.space.params())
            if self.network_name(params) in kept[self.variant_of(params)]
        ]

    def _under_each(self, networks: Iterable[dict[str, Value]]) -> list[dict[str, Value]]:
        """Each network's parameters, with each variant where there are any."""
        variants: list[dict[str, Value]] = [{VARIANT_KNOB: name} for name in self.variants]
        return [params | variant for params in networks for variant in variants or [{}]]

    def left_out(self) -> int:
        """How many networks of the space are above its limits; where there are variants, arms."""
        return sum(len(study._grid) - len(study._feasible) for study in self.parts.values())

    @functools.cached_property
    def _grid(self) -> list[dict[str, Value]]:
        """Knob values of the space's distinct networks."""
        return self.space.grid(self.task.head)

    @functools.cached_property
    def _feasible(self) -> list[dict[str, Value]]:
        """Those within its limits."""
        grid = self._grid
        if not self.space.limits:
            return grid
        costs = [self.costs(params) for params in grid]
        limits = self.space.limits.items()
        kept = [p for p, c in zip(grid, costs, strict=True) if all(c[k] <= m for k, m in limits)]
        if not kept:
            least = ", ".join(
                f"{key} is at least {min(c[key] for c in costs):g}" for key, _ in limits
            )
            raise InputError(f"no network meets all of them ({least})", key="space.limits")
        return kept

    @functools.cached_property
    def _plan(self) -> dict[str, dict[str, Value]]:
        """With `match`: key of the network -> arm of the space, or its copy right after it."""
        own = {self._spec(params).key: params for params in self._feasible}
        plan: dict[str, dict[str, Value]] = {}
        for key, params in own.items():
            plan[key] = params
            copy = self._copy(params)
            if self.arm(params) in self.unmatched:
                continue
            key = self._spec(copy).key
            if key not in own and key not in plan:
                self._check_limits(copy)
                plan[key] = copy
        return plan

    def _check_limits(self, copy: dict[str, Value]) -> None:
        costs = self.costs(copy)
        for key, most in self.space.limits.items():
            if costs[key] > most:
                rule = f"arm '{self.arm(copy)}' would be above space.limits.{key}"
                raise InputError(rule, key="match", value=self._matched_cost)

    @functools.cached_property
    def _matches(self) -> dict[str, tuple[ArchSpec, float]]:
        """Arm -> its network at the reference's cost, its own if near enough; and how far off."""
        key = self._matched_cost
        reference = next(p for p in self._feasible if self.arm(p) == self.reference_arm)
        target = self.costs(reference)[key]
        return {
            self.arm(params): matched(self._spec(params), target, lambda s: self._counted(s)[key])
            for params in self._feasible
        }

    @functools.cached_property
    def unmatched(self) -> dict[str, float]:
        """Arms without a copy as no whole channels come within `MATCH_TOLERANCE` of the cost.

        Such an arm has few branches. How far off the nearest is, as a share, stands with it.
        """
        off = {name: miss for name, (_, miss) in self._matches.items()} if self.match else {}
        return {name: miss for name, miss in off.items() if miss > MATCH_TOLERANCE}

    @property
    def _matched_cost(self) -> str:
        return next(iter(self.match))

    def _copy(self, params: Mapping[str, Value]) -> dict[str, Value]:
        return {**params, MATCH_KNOB: self._matched_cost}

    def is_copy(self, params: Mapping[str, Value]) -> bool:
        """Whether it is a cost-matched copy of an arm of the space."""
        return bool(self.match) and MATCH_KNOB in params

    def original(self, params: Mapping[str, Value]) -> dict[str, Value]:
        """The knob values alone: of a copy those of its arm, of a rival its name."""
        names = [RIVAL_KNOB] if self._is_rival(params) else self.space.vary
        return {name: params[name] for name in names}

    def counterpart(self, params: Mapping[str, Value]) -> dict[str, Value] | None:
        """Which arm stands for this one where all have the reference's cost: its copy; itself if
        it is a copy, the reference or within `MATCH_TOLERANCE` of that; or another arm, if the copy
        would be that. None without `match`, of a rival, which nothing widens, and of `unmatched`.
        """
        if not self.match or self._is_rival(params) or self.arm(params) in self.unmatched:
            return None
        return self._plan[self._spec(self._copy(self.original(params))).key]

    def is_matched(self, params: Mapping[str, Value]) -> bool:
        """Whether the arm is one of those that have the reference's cost."""
        return self.counterpart(params) == params

    def costs(self, params: Mapping[str, Value]) -> dict[str, float]:
        """The network's costs in closed form, keys of `METRICS`, in base units."""
        return self.under(params)._counted(self._spec(params))

    def _counted(self, spec: ArchSpec) -> dict[str, float]:
        return closed_form(
            count(
                spec,
                head=self.task.head,
                num_outputs=self.head_outputs,
                input_size=self.input_size,
            )
        )

    def network(self, params: Mapping[str, Value]) -> ArchSpec | Rival:
        """What these knob values build with the task's head, in its canonical form."""
        return RIVALS[str(params[RIVAL_KNOB])] if self._is_rival(params) else self._spec(params)

    def _spec(self, params: Mapping[str, Value]) -> ArchSpec:
        if self.is_copy(params):
            return self._matches[self.arm(self.original(params))][0]
        return canonical(self.space.arch(self.original(params)), self.under(params).task.head)

    def key(self, params: Mapping[str, Value]) -> str:
        """Tells trainings of a seed apart: the network's hash, and the variant if there are any."""
        return "-".join(filter(None, [self.network(params).key, self.variant_of(params)]))

    def arguments(self, params: Mapping[str, Value]) -> Settings:
        """All arguments of `hrnet` that build the network; none for a rival."""
        if self._is_rival(params):
            return {}
        arguments = self.space.arguments(self.original(params))
        if self.is_copy(params):
            arguments["width"] = self._widths(params)
        return arguments

    def _widths(self, copy: Mapping[str, Value]) -> Value:
        """Of each branch of each stage; as it was where the network does without the branch."""
        before = self.space.arch(self.original(copy)).stages
        pairs = zip(before, self._spec(copy).stages, strict=True)
        return [
            [new or old for old, new in itertools.zip_longest(one.num_channels, other.num_channels)]
            for one, other in pairs
        ]

    def arm(self, params: Mapping[str, Value]) -> str:
        """The knob values as text, or the rival's name; then the variant.

        The variant alone where there is one network.
        """
        is_alone = self.variants and self.space.size == 1 and not self.rivals
        names = ["" if is_alone else self.network_name(params), self.variant_of(params)]
        return ", ".join(filter(None, names))

    def network_name(self, params: Mapping[str, Value]) -> str:
        """What the arms of one network have in common in their names."""
        if self._is_rival(params):
            return str(params[RIVAL_KNOB])
        name = self.space.arm(self.original(params))
        return f"{name}, matched" if self.is_copy(params) else name

    def _is_rival(self, params: Mapping[str, Value]) -> bool:
        return RIVAL_KNOB in params and RIVAL_KNOB not in self.space.vary

    @property
    def most_seeds(self) -> int:
        """Of an arm of a grid, whatever its comparison shows."""
        return self.seeds if self.adaptive is None else self.adaptive.most

    @property
    def accuracy(self) -> str:
        """Key of the metric that decides."""
        return self.objectives[0] if self.objectives else self.task.metrics[0]

    @property
    def cost(self) -> str:
        """Key of the cost that it is set against."""
        return self.objectives[1] if len(self.objectives) > 1 else "profile.macs"

    @property
    def goals(self) -> tuple[str, ...]:
        """Keys of the metrics that a sampler is told: the objectives, or accuracy and cost."""
        return tuple(self.objectives) or (self.accuracy, self.cost)

    @property
    def num_outputs(self) -> int:
        """Joints or classes."""
        return self.data.num_outputs

    @property
    def head_outputs(self) -> int:
        """What the representation head puts out: joints, classes, or a pyramid's channels."""
        task = self.task
        return task.channels if isinstance(task, DetectionTask) else self.num_outputs

    @property
    def detector(self) -> DetectorSpec | None:
        """What stands on the pyramid, if objects are to be found."""
        task = self.task
        return task.detector(self.num_outputs) if isinstance(task, DetectionTask) else None

    @property
    def input_size(self) -> tuple[int, int]:
        """(H, W) that networks are trained and profiled at."""
        return self.data.size

    @property
    def reference_arm(self) -> str:
        """The arm that the others are compared with."""
        return self.reference or self.arm(self._own[-1])


def _check_part_name(section: str, name: str) -> None:
    """Whether it can be the name of a scale or a variant."""
    if not re.fullmatch(PART_PATTERN, name):
        rule = "must be at most 32 letters, digits, '_' or '-'"
        raise InputError(rule, key=section, value=name)


def _check_spelling(section: str, names: Iterable[str], why: str) -> None:
    if len({name.lower() for name in names}) < len(list(names)):
        rule = f"must differ by more than capital letters: {why}"
        raise InputError(rule, key=section, value=list(names))


def _check_changes(changes: Mapping[str, Any], key: str, sections: Sequence[str]) -> None:
    """Whether a scale or a variant changes only what it may."""
    for section, values in changes.items():
        check_name(f"{key}.{section}", section, sections)
        if section != "seeds" and not isinstance(values, dict):
            raise InputError("must be a mapping", key=f"{key}.{section}", value=values)


def _learnt(data: Data) -> Any:
    """What networks learn to tell apart."""
    if isinstance(data, People):
        return data.joints.names
    return getattr(data, "class_names", data.num_outputs)


def _merged(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `below`, replaced by those of `above` key by key, however deep."""
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        both = isinstance(inner, dict) and isinstance(value, dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def load_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """The study of a YAML file.

    Args:
        path: The file. Relative paths in it are relative to its folder.
        overrides: Entries "dotted.key=value", the value in YAML. Relative paths among them
            are relative to the current folder.

    Raises:
        InputError: The file, or what it says, is not valid.
    """
    raw = read_yaml(path)
    if "vary" in raw and "task" not in raw:
        raise InputError("is a space; a study is wanted, which names a space", file=path)
    space_file: Path | None = None
    for override in overrides:
        if override.startswith("space="):  # another space, which further overrides may change
            apply_override(raw, override)
    if isinstance(raw.get("space"), str):
        space_file = Path(os.path.normpath(path.parent / raw["space"]))
        try:
            raw["space"] = read_yaml(space_file)
        except InputError as error:
            raise InputError(
                error.rule, file=path, key="space", value=raw["space"], nearest=error.nearest
            ) from None
    parts = [at(raw, section, default={}) for section in ("scales", "variants")]
    for part in (
        raw,
        *(one for inner in parts if isinstance(inner, dict) for one in inner.values()),
    ):
        _resolve_paths(part, path.parent)
    for override in overrides:
        if not override.startswith("space="):
            apply_override(raw, override)
    try:
        return validate(Study, raw, path)
    except InputError as error:
        key = error.key
        given = [override.partition("=")[0] for override in overrides]
        if any(f"{key}.".startswith(f"{n}.") or n.startswith(f"{key}.") for n in given):
            raise InputError(
                error.rule, key=key, value=error.value, file="--set", nearest=error.nearest
            ) from None
        if space_file is not None and key.startswith("space."):
            key = key.removeprefix("space.")
            raise InputError(
                error.rule, key=key, value=error.value, file=space_file, nearest=error.nearest
            ) from None
        raise


def _resolve_paths(raw: Any, folder: Path) -> None:
    """Make paths absolute, of a study, scale or variant, that are relative to the file's folder."""
    for section, key in PATHS:
        values = at(raw, section)
        if isinstance(values, dict) and isinstance(values.get(key), str) and values[key]:
            values[key] = os.path.abspath(folder / expand_user(values[key]))


def load_space(path: Path, overrides: Sequence[str] = ()) -> Space:
    """The space of a YAML file, with overrides as in `load_study`.

    Raises:
        InputError: The file, or what it says, is not valid.
    """
    raw = read_yaml(path)
    for override in overrides:
        apply_override(raw, override)
    return validate(Space, raw, path)


def load(path: Path, overrides: Sequence[str] = ()) -> Study | Space:
    """Whatever the file holds: a mapping with `vary` is a space, any other a study."""
    reader = load_space if "vary" in read_yaml(path) else load_study
    return reader(path, overrides)


def dump_study(study: Study) -> str:
    """The study as YAML, complete: every default written out."""
    data = study.model_dump(mode="json")
    return yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True)


def json_schemas() -> dict[str, dict[str, Any]]:
    """JSON Schemas of the two kinds of file, for editors: name -> schema."""
    schemas = {"study": Study.model_json_schema(), "space": Space.model_json_schema()}
    inline = schemas["study"]["properties"]["space"]
    description = inline.pop("description")
    file = {"type": "string", "description": "Path of a space file, relative to this file."}
    schemas["study"]["properties"]["space"] = {"anyOf": [inline, file], "description": description}
    for name, schema in schemas.items():
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
        schema["title"] = f"hrnet-search {name} file"
    return schemas


def write_schemas(folder: Path) -> None:
    """Write `<name>.schema.json` into `folder`."""
    for name, schema in json_schemas().items():
        write_json(folder / f"{name}.schema.json", schema)


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]))
