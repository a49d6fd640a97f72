"""One HRNet as plain data: `hrnet(...)` turns a few numbers into an explicit `ArchSpec`.

Two levels, as in "few searched numbers, one explicit network": a search space varies the
arguments of `hrnet`; everything else in the package (the module, its cost, its key, its exported
copy) reads the `ArchSpec`. Standard library only, so that a study can be checked without torch.

Sources are sections and tables of Wang et al., "Deep High-Resolution Representation Learning for
Visual Recognition" (arXiv 1908.07919), and the official code where the paper is silent.
"""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from .errors import InputError, nearest_name

MIN_STAGES, MAX_STAGES = 2, 8  # the paper has four (section 3.1)
MAX_BRANCHES = 6  # strides 4 to 128; the paper has four branches, strides 4 to 32
STEM_STRIDE = 4  # two convolutions of stride 2 (section 3.1)
BOTTLENECK_EXPANSION = 4  # outputs over width of a bottleneck (official `Bottleneck.expansion`)
MAX_COUNT = 10_000  # channels, units: a slip of the keyboard must not fill the memory
MAX_REPEATS = 100  # modules of a stage, units of stage 1; the paper has up to four
MAX_CHANNELS = 100_000  # of a branch, after the ratio of widths

UPSAMPLE_MODES = ("nearest", "bilinear")
PROJECTIONS = ("before", "after")
DOWNSAMPLE_MODES = ("strided_conv", "bilinear", "avg_pool")
FUSE_OPERATORS = ("sum", "multiply", "concat", "weighted")
UNITS = ("basic", "bottleneck")
EDGE_SETS = ("all", "neighbours", "high_to_low", "low_to_high", "none")

# What the official code of each task builds with; `hrnet` takes these where it is told nothing.
# Enlargement in fusions, align_corners and BatchNorm momentum: pose `pose_hrnet.py`,
# classification `cls_hrnet.py`, segmentation `seg_hrnet.py` (branch pytorch-v1.1),
# segmentation_ocr `seg_hrnet_ocr.py` (branch HRNet-OCR), detection `hrnet.py`.
TASK_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "pose": {"upsample": "nearest", "align_corners": False, "bn_momentum": 0.1},
    "classification": {"upsample": "nearest", "align_corners": False, "bn_momentum": 0.1},
    "segmentation": {"upsample": "bilinear", "align_corners": False, "bn_momentum": 0.01},
    "segmentation_ocr": {"upsample": "bilinear", "align_corners": True, "bn_momentum": 0.1},
    "detection": {"upsample": "nearest", "align_corners": False, "bn_momentum": 0.1},
}

Edge = tuple[int, int]  # from branch, to branch


@dataclass(frozen=True, kw_only=True)
class ModuleSpec:
    """Parallel branches of residual units, then a fusion unit or none.

    Args:
        num_blocks: Residual units of each branch, from high to low resolution; with 0 the branch
            passes its map on.
        edges: Pairs (from branch, to branch) of the fusion unit. A branch always keeps its own
            map; one that nothing leads to is left as it is.
    """

    num_blocks: tuple[int, ...]
    edges: tuple[Edge, ...]

    def __post_init__(self) -> None:
        for blocks in self.num_blocks:
            _check_count("num_blocks", blocks, least=0)
        branches = len(self.num_blocks)
        for edge in self.edges:
            if not (
                isinstance(edge, tuple)
                and len(edge) == 2
                and all(type(b) is int and 0 <= b < branches for b in edge)
                and edge[0] != edge[1]
            ):
                rule = f"must be two different branches of 0 to {branches - 1}"
                raise InputError(rule, key="edges", value=edge)
        if len(set(self.edges)) < len(self.edges):
            raise InputError("must not repeat a pair", key="edges", value=list(self.edges))
        object.__setattr__(self, "edges", tuple(sorted(self.edges)))


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """One stage: its branches' widths, and its modules in order.

    Args:
        num_channels: Width of each branch, from high to low resolution; 0 for a branch that the
            network does without, as its map would reach no output.
        modules: The modules.
    """

    num_channels: tuple[int, ...]
    modules: tuple[ModuleSpec, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.num_channels) <= MAX_BRANCHES:
            rule = f"must have 1 to {MAX_BRANCHES} branches"
            raise InputError(rule, key="num_channels", value=list(self.num_channels))
        for channels in self.num_channels:
            _check_count("num_channels", channels, least=0)
        if not self.modules:
            raise InputError("must have at least one module", key="modules", value=[])
        for module in self.modules:
            self._check_module(module)

    def _check_module(self, module: ModuleSpec) -> None:
        if len(module.num_blocks) != self.num_branches:
            rule = f"must have one entry per branch ({self.num_branches})"
            raise InputError(rule, key="modules.num_blocks", value=list(module.num_blocks))
        absent = [branch for branch, width in enumerate(self.num_channels) if width == 0]
        for branch in absent:
            if module.num_blocks[branch]:
                rule = f"must be 0 for branch {branch}, which has no channels"
                raise InputError(rule, key="modules.num_blocks", value=list(module.num_blocks))
            if any(branch in edge for edge in module.edges):
                rule = f"must not touch branch {branch}, which has no channels"
                raise InputError(rule, key="modules.edges", value=list(module.edges))

    @property
    def num_branches(self) -> int:
        return len(self.num_channels)

    @property
    def num_modules(self) -> int:
        return len(self.modules)


@dataclass(frozen=True, kw_only=True)
class ArchSpec:
    """One network body, complete and explicit: what is built, hashed, stored and exported.

    Args:
        stem_channels: Width of the two stride-2 convolutions of the stem.
        stage1_blocks: Bottleneck units of stage 1.
        stage1_channels: Width of those units; they put out `BOTTLENECK_EXPANSION` times as much.
        stages: Stages 2, 3, ...; none has fewer branches than the one before.
        unit: Residual unit of the branches, one of `UNITS`; a bottleneck's branch width is what
            it puts out.
        fuse: How a fusion unit joins its maps, one of `FUSE_OPERATORS`.
        upsample: How it enlarges a low-resolution map, one of `UPSAMPLE_MODES`.
        projection: Its 1x1 convolution comes "before" or "after" the enlargement.
        downsample: How it reduces a high-resolution map, one of `DOWNSAMPLE_MODES`.
        align_corners: The convention of every bilinear resizing, in fusions and heads.
        bn_momentum: Of every BatchNorm.
        output_branch: The map that a head of one map reads (Fig. 9): 0 is the highest resolution.
        output_bias: Does the last layer of the head have a bias?

    Raises:
        InputError: A value is of the wrong type or out of range.
    """

    stem_channels: int
    stage1_blocks: int
    stage1_channels: int
    stages: tuple[StageSpec, ...]
    unit: str
    fuse: str
    upsample: str
    projection: str
    downsample: str
    align_corners: bool
    bn_momentum: float
    output_branch: int
    output_bias: bool

    def __post_init__(self) -> None:
        for name in ("stem_channels", "stage1_blocks", "stage1_channels"):
            _check_count(name, getattr(self, name))
        for name, choices in CHOICES.items():
            _check_choice(name, getattr(self, name), choices)
        for name in ("align_corners", "output_bias"):
            _check_bool(name, getattr(self, name))
        if not isinstance(self.bn_momentum, float) or not 0 < self.bn_momentum <= 1:
            rule = "must be a number above 0 and at most 1"
            raise InputError(rule, key="bn_momentum", value=self.bn_momentum)
        _check_num_stages(len(self.stages) + 1, key="stages")
        before: tuple[int, ...] = (self.stage1_channels,)
        for number, stage in enumerate(self.stages, start=2):
            _check_follows(number, before, stage.num_channels)
            before = stage.num_channels
            if self.unit == "bottleneck":
                _check_multiple(stage.num_channels, BOTTLENECK_EXPANSION, key="stages")
        _check_count("output_branch", self.output_branch, least=0)
        if self.output_branch >= len(before):
            rule = f"must be a branch of the last stage (0 to {len(before) - 1})"
            raise InputError(rule, key="output_branch", value=self.output_branch)

    @property
    def channels(self) -> tuple[int, ...]:
        """Width of each map the body can put out, from high to low resolution."""
        return self.stages[-1].num_channels

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of each of those maps with respect to the input: 4, 8, 16, 32 (section 3.1)."""
        return tuple(STEM_STRIDE * 2**branch for branch in range(len(self.channels)))

    @property
    def num_fusions(self) -> int:
        """Number of fusion units; the paper counts 1, 3 and 8 in Table 12."""
        return sum(bool(module.edges) for stage in self.stages for module in stage.modules)

    @property
    def key(self) -> str:
        """A short hash, equal for specs whose `folded` forms are equal."""
        text = json.dumps(folded(self).to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, as they are written to `arch.json`."""
        fields: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        fields["stages"] = [
            {
                "num_channels": list(stage.num_channels),
                "modules": [
                    {"num_blocks": list(m.num_blocks), "edges": [list(edge) for edge in m.edges]}
                    for m in stage.modules
                ],
            }
            for stage in self.stages
        ]
        return fields

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ArchSpec":
        """The inverse of `to_dict`.

        Raises:
            InputError: A field is missing, unknown, or breaks a rule.
        """
        _check_fields(cls, data)
        stages = []
        for place, entry in enumerate(_list(data["stages"], key="stages")):
            try:
                _check_fields(StageSpec, entry)
                modules = enumerate(_list(entry["modules"], key="modules"))
                stages.append(
                    StageSpec(
                        num_channels=tuple(_list(entry["num_channels"], key="num_channels")),
                        modules=tuple(_module_from_dict(number, data) for number, data in modules),
                    )
                )
            except InputError as error:
                raise error.within(key=f"stages.{place}") from None
        return cls(**{**data, "stages": tuple(stages)})


CHOICES: Mapping[str, tuple[str, ...]] = {
    "unit": UNITS,
    "fuse": FUSE_OPERATORS,
    "upsample": UPSAMPLE_MODES,
    "projection": PROJECTIONS,
    "downsample": DOWNSAMPLE_MODES,
}

PerStage = int | Sequence[int]
PerBranch = int | Sequence[int | Sequence[int]]


def hrnet(
    *,
    task: str = "pose",
    width: PerBranch = 32,
    width_ratios: Sequence[float] = (1, 2, 4, 8, 16, 32),
    num_stages: int = 4,
    num_branches: PerStage = (2, 3, 4, 5, 6, 6, 6),
    num_modules: PerStage = (1, 4, 3),
    num_blocks: PerBranch = 4,
    unit: str = "basic",
    stage1_blocks: int = 4,
    stage1_width: int = 64,
    stem_width: int = 64,
    within: bool = True,
    across: bool = True,
    final: bool = True,
    edges: str | Sequence[str | Sequence[str]] = "all",
    fuse: str = "sum",
    upsample: str | None = None,
    projection: str = "before",
    downsample: str = "strided_conv",
    align_corners: bool | None = None,
    bn_momentum: float | None = None,
    output_branch: int = 0,
    output_bias: bool = True,
) -> ArchSpec:
    """An HRNet from a few numbers. The defaults are HRNet-W32 as the official pose code builds it.

    `width`, `num_branches`, `num_modules`, `num_blocks` and `edges` take one value for all
    stages or a list with one entry for each of the stages 2, 3, ...; entries beyond `num_stages`
    name stages that do not exist and are left out, so that a space can vary `num_stages` beside
    them. An entry of `width` or `num_blocks` may itself be a list with one number per branch,
    an entry of `edges` a list with one set per module; surplus numbers are left out too.

    A choice that cannot matter in the network is set to the official one, so that settings
    which build the same network give equal specs.

    Args:
        task: Whose official defaults `upsample`, `align_corners` and `bn_momentum` have, a key
            of `TASK_DEFAULTS`.
        width: Channels of the highest-resolution branch, or of each branch.
        width_ratios: Branch r has width * width_ratios[r] channels, rounded (with bottleneck
            units to a multiple of 4); 1, 2, 4, 8 in the paper (section 3.1).
        num_stages: 2 to 8; 4 in the paper.
        num_branches: Branches of each stage, never fewer than before; 2, 3, 4 in the paper. 4
            starts all of them at once, 1 keeps the high resolution alone (section 7).
        num_modules: Modules of each stage; 1, 4, 3 in the paper (Table 14).
        num_blocks: Residual units per branch and module; 4 in the paper (Table 14).
        unit: "basic", or "bottleneck" as in the lower half of Table 15, where the width is what
            the units put out and must be a multiple of 4.
        stage1_blocks: Bottleneck units of stage 1; 4 in the paper (Table 14).
        stage1_width: Width of those units; 64 in the paper (Table 14).
        stem_width: Channels of the stem; 64 in the paper (Table 14).
        within: Keep the fusion units inside stages, after all modules but the last of a stage.
        across: Keep those between stages, after the last module of all stages but the last.
        final: Keep the one before the head, after the last module of the last stage. With
            within, across, final the paper's depth has 1, 3, 8 fusion units (Table 12).
        edges: Which branches a fusion unit joins: "all" pairs as in the paper, "neighbours",
            "high_to_low", "low_to_high", "none", or pairs such as "3>2 2>1" of branches counted
            from 0, the highest resolution, that all modules they are given for must have.
        fuse: "sum" (official); "multiply" (section 7); "concat" and a 1x1 convolution with
            BatchNorm; "weighted", a sum with one learned weight per map, 1 at first (the
            unbounded fusion of Tan et al., EfficientDet, 2020, section 3.3).
        upsample: "nearest" (official pose, classification, detection) or "bilinear"
            (official segmentation).
        projection: 1x1 convolution "before" the enlargement (official code) or "after" it
            (the paper's text, section 3.2).
        downsample: "strided_conv" (official), "bilinear" (section 7) or "avg_pool"; the latter
            two are followed by a 1x1 convolution with BatchNorm, as nothing is said of how the
            widths are met.
        align_corners: Convention of bilinear resizing; True in the official OCR code alone.
        bn_momentum: Of every BatchNorm; 0.01 in the official segmentation code, else 0.1.
        output_branch: The map that heads of one map (V1, V1h) read (Fig. 9).
        output_bias: Bias of the head's last layer; True in all official code.

    Raises:
        InputError: An argument is of the wrong type or out of range.
    """
    _check_choice("task", task, tuple(TASK_DEFAULTS))
    _check_num_stages(num_stages, key="num_stages")
    for name, flag in (("within", within), ("across", across), ("final", final)):
        _check_bool(name, flag)
    _check_count("stage1_blocks", stage1_blocks, most=MAX_REPEATS)
    for name, value in (("stage1_width", stage1_width), ("stem_width", stem_width)):
        _check_argument(name, value)
    _check_choice("unit", unit, UNITS)
    count = num_stages - 1
    branches = _branches(num_branches, count)
    step = BOTTLENECK_EXPANSION if unit == "bottleneck" else 1
    widths = _widths(width, width_ratios, branches, step)
    modules = _per_stage("num_modules", num_modules, count)
    for number in modules:
        _check_count("num_modules", number, most=MAX_REPEATS)
    blocks = _per_branch("num_blocks", num_blocks, branches, least=0)
    sets = _edge_sets(edges, modules, branches)
    stages = []
    for index in range(count):
        kept = [within] * (modules[index] - 1) + [final if index == count - 1 else across]
        stage = _stage(
            widths[index],
            blocks[index],
            tuple(pairs if keep else () for pairs, keep in zip(sets[index], kept, strict=True)),
        )
        stages.append(stage)
    defaults = TASK_DEFAULTS[task]
    momentum = defaults["bn_momentum"] if bn_momentum is None else bn_momentum
    spec = ArchSpec(
        stem_channels=stem_width,
        stage1_blocks=stage1_blocks,
        stage1_channels=stage1_width,
        stages=tuple(stages),
        unit=unit,
        fuse=fuse,
        upsample=defaults["upsample"] if upsample is None else upsample,
        projection=projection,
        downsample=downsample,
        align_corners=defaults["align_corners"] if align_corners is None else align_corners,
        bn_momentum=1.0 if type(momentum) is int and momentum == 1 else momentum,
        output_branch=output_branch,
        output_bias=output_bias,
    )
    return simplified(spec)


def simplified(spec: ArchSpec, *, head_resizes: bool = True) -> ArchSpec:
    """The same network with every choice that cannot matter in it set to the official one.

    Args:
        spec: The network.
        head_resizes: Does a head follow that resizes maps, so that align_corners matters to it?
    """
    modules = [module for stage in spec.stages for module in stage.modules]
    pairs = {edge for module in modules for edge in module.edges}
    up = any(source > target for source, target in pairs)
    down = any(source < target for source, target in pairs)
    official = TASK_DEFAULTS["pose"]
    changes: dict[str, Any] = {}
    if not up:
        changes |= {"upsample": official["upsample"], "projection": PROJECTIONS[0]}
    if not down:
        changes["downsample"] = DOWNSAMPLE_MODES[0]
    if not pairs:
        changes["fuse"] = FUSE_OPERATORS[0]
    if not any(blocks for module in modules for blocks in module.num_blocks):
        changes["unit"] = UNITS[0]
    bilinear = (up and spec.upsample == "bilinear") or (down and spec.downsample == "bilinear")
    if not bilinear and not (head_resizes and sum(map(bool, spec.channels)) > 1):
        changes["align_corners"] = official["align_corners"]
    stages = tuple(_without_empty_modules(stage) for stage in spec.stages)
    if stages != spec.stages:
        changes["stages"] = stages
    changed = {name: value for name, value in changes.items() if getattr(spec, name) != value}
    return dataclasses.replace(spec, **changed) if changed else spec


def pruned(spec: ArchSpec, reads: Sequence[int]) -> ArchSpec:
    """The network without what cannot reach the maps that are read, such as a final fusion's
    low-resolution outputs under a head that reads the highest resolution alone.

    Args:
        spec: The network.
        reads: The branches of the last stage whose maps are read.
    """
    needed = frozenset(reads)
    stages: list[StageSpec] = []
    for index in reversed(range(len(spec.stages))):
        stage, needed = _pruned_stage(spec.stages[index], needed)
        stages.insert(0, stage)
        before = spec.stages[index - 1].num_branches if index else 1
        needed = frozenset(min(branch, before - 1) for branch in needed)
    for index, stage in enumerate(stages):
        stages[index] = _trimmed(stage, least=stages[index - 1].num_branches if index else 1)
    if tuple(stages) == spec.stages:
        return spec
    return dataclasses.replace(spec, stages=tuple(stages))


@functools.lru_cache(maxsize=4096)
def _pruned_stage(stage: StageSpec, needed: frozenset[int]) -> tuple[StageSpec, frozenset[int]]:
    """The stage for the maps that are needed of it, and those that it needs itself."""
    used = needed
    modules: list[ModuleSpec] = []
    for module in reversed(stage.modules):
        live = tuple(edge for edge in module.edges if edge[1] in needed)
        needed |= {source for source, _ in live}
        used |= needed
        blocks = tuple(n if b in needed else 0 for b, n in enumerate(module.num_blocks))
        modules.insert(0, _module(blocks, live))
    channels = tuple(c if b in used else 0 for b, c in enumerate(stage.num_channels))
    return StageSpec(num_channels=channels, modules=tuple(modules)), needed


def _trimmed(stage: StageSpec, *, least: int) -> StageSpec:
    """The stage without its lowest branches if they are absent; `least` of them stay."""
    kept = max(least, 1 + max(b for b, width in enumerate(stage.num_channels) if width))
    if kept == stage.num_branches:
        return stage
    modules = tuple(_module(m.num_blocks[:kept], m.edges) for m in stage.modules)
    return StageSpec(num_channels=stage.num_channels[:kept], modules=modules)


def folded(spec: ArchSpec) -> ArchSpec:
    """The same computation in the fewest stages and modules, to tell equal networks by.

    A stage that starts from the maps of the one before as they are only adds modules to it, and
    a module without edges only adds units to the next. What is built keeps its own stages and
    modules: the names of its parameters hang on them.
    """
    stages: list[tuple[tuple[int, ...], tuple[ModuleSpec, ...]]] = []
    for stage in spec.stages:
        channels, modules = stage.num_channels, stage.modules
        if stages and _goes_on(stages[-1][0], channels):
            channels, before = stages.pop()
            modules = before + modules
        stages.append((channels, modules))
    joined = (StageSpec(num_channels=c, modules=_joined(m)) for c, m in stages)
    return dataclasses.replace(spec, stages=tuple(joined))


def _goes_on(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Has every branch of a stage the map of the stage before, unchanged?"""
    return len(before) == len(after) and all(
        width in (0, old) for old, width in zip(before, after, strict=True)
    )


@functools.lru_cache(maxsize=4096)
def _joined(modules: tuple[ModuleSpec, ...]) -> tuple[ModuleSpec, ...]:
    """Modules without edges joined to the next one."""
    kept: list[ModuleSpec] = []
    for module in modules:
        if kept and not kept[-1].edges:
            before = kept.pop().num_blocks
            blocks = tuple(a + b for a, b in zip(before, module.num_blocks, strict=True))
            module = _module(blocks, module.edges)
        kept.append(module)
    idle = not kept[-1].edges and not any(kept[-1].num_blocks)
    return tuple(kept[:-1] if idle and len(kept) > 1 else kept)


def _without_empty_modules(stage: StageSpec) -> StageSpec:
    """Modules that pass every map on are left out, but for one where there is no other."""
    kept = tuple(m for m in stage.modules if m.edges or any(m.num_blocks))
    if len(kept) == len(stage.modules) or len(stage.modules) == 1:
        return stage
    return StageSpec(num_channels=stage.num_channels, modules=kept or stage.modules[:1])


@functools.lru_cache(maxsize=4096)
def _module(blocks: tuple[int, ...], edges: tuple[Edge, ...]) -> ModuleSpec:
    return ModuleSpec(num_blocks=blocks, edges=edges)


@functools.lru_cache(maxsize=4096)
def _stage(
    channels: tuple[int, ...], blocks: tuple[int, ...], fusions: tuple[tuple[Edge, ...], ...]
) -> StageSpec:
    modules = tuple(_module(blocks, edges) for edges in fusions)
    return StageSpec(num_channels=channels, modules=modules)


@functools.lru_cache(maxsize=1024)
def edge_set(name: str, branches: int) -> tuple[Edge, ...]:
    """The pairs (from branch, to branch) that a name of `EDGE_SETS`, or "3>2 2>1", stands for.

    Raises:
        InputError: It stands for none.
    """
    pairs = [(j, i) for j in range(branches) for i in range(branches) if i != j]
    if name == "all":
        return tuple(pairs)
    if name == "neighbours":
        return tuple((j, i) for j, i in pairs if abs(i - j) == 1)
    if name == "high_to_low":
        return tuple((j, i) for j, i in pairs if j < i)
    if name == "low_to_high":
        return tuple((j, i) for j, i in pairs if j > i)
    if name == "none":
        return ()
    chosen = []
    for text in name.split():
        source, arrow, target = text.partition(">")
        if not (arrow and re.fullmatch("[0-9]", source) and re.fullmatch("[0-9]", target)):
            rule = f"must be one of {', '.join(EDGE_SETS)}, or pairs such as '3>2 2>1'"
            near = nearest_name(name, EDGE_SETS)
            raise InputError(rule, key="edges", value=name, nearest=near)
        pair = (int(source), int(target))
        if pair not in pairs:
            rule = f"must join two different branches; {branches} here, 0 to {branches - 1}"
            raise InputError(rule, key="edges", value=text)
        chosen.append(pair)
    if not chosen:
        raise InputError(f"must be one of {', '.join(EDGE_SETS)}", key="edges", value=name)
    return tuple(sorted(set(chosen)))


def _branches(value: object, count: int) -> tuple[int, ...]:
    branches = _per_stage("num_branches", value, count)
    for before, after in zip((1, *branches), branches, strict=False):
        if not before <= after <= MAX_BRANCHES:
            rule = f"must not shrink from stage to stage, and be at most {MAX_BRANCHES}"
            raise InputError(rule, key="num_branches", value=value)
    return branches


def _widths(
    width: object, ratios: Any, branches: tuple[int, ...], step: int
) -> tuple[tuple[int, ...], ...]:
    """Channels of each branch of each stage, multiples of `step`."""
    if not _is_list(ratios) or len(ratios) < branches[-1]:
        rule = f"must be a list with a number for each of {branches[-1]} branches"
        raise InputError(rule, key="width_ratios", value=ratios)
    for ratio in ratios:
        if type(ratio) not in (int, float) or not 0 < ratio <= MAX_COUNT:
            rule = f"must be numbers above 0 and at most {MAX_COUNT}"
            raise InputError(rule, key="width_ratios", value=ratio)
    entries = _entries("width", width, len(branches))
    widths = []
    for entry, number in zip(entries, branches, strict=True):
        if _is_list(entry):
            channels = _numbers("width", entry, number, least=1)
        else:
            _check_argument("width", entry)
            _check_multiple((entry,), step)
            steps = (max(1, round(entry * ratio / step)) for ratio in ratios[:number])
            channels = tuple(step * count for count in steps)
        for count in channels:
            _check_count("width", count)
        _check_multiple(channels, step)
        widths.append(channels)
    return tuple(widths)


def _edge_sets(
    value: object, modules: tuple[int, ...], branches: tuple[int, ...]
) -> tuple[tuple[tuple[Edge, ...], ...], ...]:
    sets = []
    entries = _entries("edges", value, len(modules))
    for entry, count, number in zip(entries, modules, branches, strict=True):
        names = (entry,) * count if isinstance(entry, str) else entry
        if not _is_list(names) or len(names) < count:
            rule = f"must be a set of edges or a list with one for each of {count} modules"
            raise InputError(rule, key="edges", value=entry)
        for name in names[:count]:
            if not isinstance(name, str):
                rule = f"must be one of {', '.join(EDGE_SETS)}, or pairs such as '3>2 2>1'"
                raise InputError(rule, key="edges", value=name)
        sets.append(tuple(edge_set(name, number) for name in names[:count]))
    return tuple(sets)


def _per_stage(name: str, value: object, count: int) -> tuple[int, ...]:
    entries = _entries(name, value, count)
    for entry in entries:
        _check_argument(name, entry)
    return entries


def _per_branch(
    name: str, value: object, branches: tuple[int, ...], *, least: int
) -> tuple[tuple[int, ...], ...]:
    """One tuple per stage with one number per branch."""
    return tuple(
        _numbers(name, entry, number, least=least)
        for entry, number in zip(_entries(name, value, len(branches)), branches, strict=True)
    )


def _entries(name: str, value: Any, count: int) -> tuple[Any, ...]:
    if not _is_list(value):
        return (value,) * count
    if len(value) < count:
        rule = f"must be one value or a list with an entry for each of {count} stages"
        raise InputError(rule, key=name, value=list(value))
    return tuple(value)[:count]


def _numbers(name: str, entry: Any, count: int, *, least: int) -> tuple[int, ...]:
    if not _is_list(entry):
        entry = (entry,) * count
    if len(entry) < count:
        rule = f"must be a number or a list with one for each of {count} branches"
        raise InputError(rule, key=name, value=list(entry))
    for number in entry[:count]:
        _check_argument(name, number, least=least)
    return tuple(entry[:count])


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, (list, tuple))


def _check_multiple(channels: tuple[int, ...], step: int, *, key: str = "width") -> None:
    for width in channels:
        if width % step:
            rule = f"must be a multiple of {step} in branches of bottleneck units"
            raise InputError(rule, key=key, value=width)


def _check_count(name: str, value: Any, *, least: int = 1, most: int = MAX_CHANNELS) -> None:
    if type(value) is not int or value < least:
        raise InputError(f"must be a whole number of at least {least}", key=name, value=value)
    if value > most:
        raise InputError(f"must be at most {most}", key=name, value=value)


def _check_argument(name: str, value: Any, *, least: int = 1) -> None:
    _check_count(name, value, least=least, most=MAX_COUNT)


def _check_follows(number: int, before: tuple[int, ...], after: tuple[int, ...]) -> None:
    """Each branch must have a map to start from: its own, or the lowest one of the stage before."""
    rule = ""
    if len(after) < len(before):
        rule = f"stage {number} must have at least the {len(before)} branches before it"
    elif not any(after):
        rule = f"stage {number} must have a branch with channels"
    elif any(c and not before[min(b, len(before) - 1)] for b, c in enumerate(after)):
        rule = f"a branch of stage {number} has channels where the one it starts from has none"
    if rule:
        raise InputError(rule, key="stages", value=list(after))


def _check_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise InputError("must be true or false", key=name, value=value)


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        rule = f"must be one of {', '.join(choices)}"
        raise InputError(rule, key=name, value=value, nearest=nearest_name(value, choices))


def _check_num_stages(value: object, *, key: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError("must be a whole number", key=key, value=value)
    if not MIN_STAGES <= value <= MAX_STAGES:
        rule = f"the number of stages must be {MIN_STAGES} to {MAX_STAGES}"
        raise InputError(rule, key=key, value=value)


def _module_from_dict(number: int, data: Any) -> ModuleSpec:
    try:
        _check_fields(ModuleSpec, data)
        edges = [tuple(_list(edge, key="edges")) for edge in _list(data["edges"], key="edges")]
        blocks = _list(data["num_blocks"], key="num_blocks")
        return ModuleSpec(num_blocks=tuple(blocks), edges=tuple(edges))
    except InputError as error:
        raise error.within(key=f"modules.{number}") from None


def _list(value: object, *, key: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError("must be a list", key=key, value=value)
    return value


def _check_fields(cls: type, data: object) -> None:
    if not isinstance(data, Mapping):
        raise InputError("must be a mapping of fields to values", value=data)
    names = [field.name for field in dataclasses.fields(cls)]
    for name in data:
        if name not in names:
            raise InputError("unknown field", key=name, nearest=nearest_name(name, names))
    for name in names:
        if name not in data:
            raise InputError("is missing", key=name)
