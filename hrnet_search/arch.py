"""One HRNet as plain data: `hrnet(...)` turns a few numbers into an explicit `ArchSpec`.

Two levels, as in "few searched numbers, one explicit network": a search space varies the
arguments of `hrnet`; everything else in the package (the module, its cost, its key, its exported
copy) reads the `ArchSpec`. Standard library only, so that a study can be checked without torch.

Sources are sections and tables of Wang et al., "Deep High-Resolution Representation Learning for
Visual Recognition" (arXiv 1908.07919), and the official code where the paper is silent.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import InputError, nearest_name

MIN_STAGES, MAX_STAGES = 2, 4  # the paper's four stages; stage 1 has one branch, stage s has s
STEM_STRIDE = 4  # two convolutions of stride 2 (section 3.1)
BOTTLENECK_EXPANSION = 4  # of the residual units of stage 1 (official code, `Bottleneck.expansion`)
MAX_COUNT = 10_000  # channels, modules, units: a slip of the keyboard must not fill the memory
UPSAMPLE_MODES = ("nearest", "bilinear")


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """One stage of parallel branches, all its modules alike but for their fusion.

    Args:
        num_channels: Width of each branch, from high to low resolution.
        num_blocks: Residual units of each branch in every module.
        fusions: One entry per module: does a fusion unit follow its branches?
    """

    num_channels: tuple[int, ...]
    num_blocks: tuple[int, ...]
    fusions: tuple[bool, ...]

    def __post_init__(self) -> None:
        for name in ("num_channels", "num_blocks"):
            for value in getattr(self, name):
                _check_count(name, value)
        for value in self.fusions:
            _check_bool("fusions", value)
        if len(self.num_blocks) != len(self.num_channels):
            rule = f"must have one entry per branch ({len(self.num_channels)})"
            raise InputError(rule, key="num_blocks", value=list(self.num_blocks))
        if not self.fusions:
            raise InputError("must have at least one module", key="fusions", value=[])

    @property
    def num_branches(self) -> int:
        return len(self.num_channels)

    @property
    def num_modules(self) -> int:
        return len(self.fusions)


@dataclass(frozen=True, kw_only=True)
class ArchSpec:
    """One network body, complete and explicit: what is built, hashed, stored and exported.

    Args:
        stem_channels: Width of the two stride-2 convolutions of the stem.
        stage1_blocks: Bottleneck units of stage 1.
        stage1_channels: Width of those units; they put out `BOTTLENECK_EXPANSION` times as much.
        stages: Stages 2, 3, ... with 2, 3, ... branches.
        upsample: How a fusion unit enlarges a low-resolution map, one of `UPSAMPLE_MODES`.
        align_corners: The convention of every bilinear enlargement, in fusions and heads.

    Raises:
        InputError: A value is of the wrong type or out of range.
    """

    stem_channels: int
    stage1_blocks: int
    stage1_channels: int
    stages: tuple[StageSpec, ...]
    upsample: str
    align_corners: bool

    def __post_init__(self) -> None:
        for name in ("stem_channels", "stage1_blocks", "stage1_channels"):
            _check_count(name, getattr(self, name))
        _check_choice("upsample", self.upsample, UPSAMPLE_MODES)
        _check_bool("align_corners", self.align_corners)
        _check_num_stages(len(self.stages) + 1, key="stages")
        for number, stage in enumerate(self.stages, start=2):
            if stage.num_branches != number:
                rule = f"stage {number} must have {number} branches"
                raise InputError(rule, key="stages", value=list(stage.num_channels))

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
        return sum(sum(stage.fusions) for stage in self.stages)

    @property
    def key(self) -> str:
        """A short hash of the network: equal if and only if the specs are equal."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, as they are written to `arch.json`."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ArchSpec":
        """The inverse of `to_dict`.

        Raises:
            InputError: A field is missing, unknown, or breaks a rule.
        """
        _check_fields(cls, data)
        stages = data["stages"]
        if not isinstance(stages, list) or not all(isinstance(s, Mapping) for s in stages):
            raise InputError("must be a list of stages", key="stages", value=stages)
        for stage in stages:
            _check_fields(StageSpec, stage)
            for name, value in stage.items():
                if not isinstance(value, list):
                    raise InputError("must be a list", key=f"stages.{name}", value=value)
        specs = tuple(StageSpec(**{k: tuple(v) for k, v in stage.items()}) for stage in stages)
        return cls(**{**data, "stages": specs})


def hrnet(
    *,
    width: int | Sequence[int] = 32,
    num_stages: int = 4,
    num_modules: int | Sequence[int] = (1, 4, 3),
    num_blocks: int | Sequence[int] = 4,
    stage1_blocks: int = 4,
    stage1_width: int = 64,
    stem_width: int = 64,
    within: bool = True,
    across: bool = True,
    final: bool = True,
    upsample: str = "nearest",
    align_corners: bool = False,
) -> ArchSpec:
    """An HRNet from a few numbers. The defaults are HRNet-W32 as the official pose code builds it.

    `width`, `num_modules` and `num_blocks` take one number for all stages or a list with one
    entry for each of the stages 2, 3, ...; entries beyond `num_stages` name stages that do not
    exist and are left out, so that a space can vary `num_stages` beside them.

    Args:
        width: Channels of the highest-resolution branch; branch r has width * 2**r (section 3.1).
        num_stages: 2 to 4; stage s has s branches.
        num_modules: Modules of each stage; 1, 4, 3 in the paper (Table 14).
        num_blocks: Residual units per branch and module; 4 in the paper (Table 14).
        stage1_blocks: Bottleneck units of stage 1; 4 in the paper (Table 14).
        stage1_width: Width of those units; 64 in the paper (Table 14).
        stem_width: Channels of the stem; 64 in the paper (Table 14).
        within: Keep the fusion units inside stages, after all modules but the last of a stage.
        across: Keep those between stages, after the last module of all stages but the last.
        final: Keep the one before the head, after the last module of the last stage. With
            within, across, final the paper's depth has 1, 3, 8 fusion units (Table 12).
        upsample: "nearest" (official pose, classification, detection) or "bilinear"
            (official segmentation).
        align_corners: Convention of the bilinear enlargements; False but in the official OCR code.

    Raises:
        InputError: An argument is of the wrong type or out of range.
    """
    _check_num_stages(num_stages, key="num_stages")
    for name, flag in (("within", within), ("across", across), ("final", final)):
        _check_bool(name, flag)
    count = num_stages - 1
    widths = _per_stage("width", width, count)
    modules = _per_stage("num_modules", num_modules, count)
    blocks = _per_stage("num_blocks", num_blocks, count)
    _check_argument("stage1_blocks", stage1_blocks)
    _check_argument("stage1_width", stage1_width)
    _check_argument("stem_width", stem_width)
    stages = []
    for index in range(count):
        branches = index + 2
        last = final if index == count - 1 else across
        stage = StageSpec(
            num_channels=tuple(widths[index] * 2**branch for branch in range(branches)),
            num_blocks=(blocks[index],) * branches,
            fusions=(within,) * (modules[index] - 1) + (last,),
        )
        stages.append(stage)
    return ArchSpec(
        stem_channels=stem_width,
        stage1_blocks=stage1_blocks,
        stage1_channels=stage1_width,
        stages=tuple(stages),
        upsample=upsample,
        align_corners=align_corners,
    )


def _per_stage(name: str, value: object, count: int) -> tuple[int, ...]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) < count:
            rule = f"must be a number or a list with an entry for each of {count} stages"
            raise InputError(rule, key=name, value=list(value))
        entries = tuple(value)[:count]
    else:
        entries = (value,) * count
    for entry in entries:
        _check_argument(name, entry)
    return entries


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError("must be a whole number of at least 1", key=name, value=value)


def _check_argument(name: str, value: Any) -> None:
    _check_count(name, value)
    if value > MAX_COUNT:
        raise InputError(f"must be at most {MAX_COUNT}", key=name, value=value)


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
