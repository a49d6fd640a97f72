"""Which layers a network has: the one place that both the torch modules and the cost read.

Every function here turns a few numbers of an `ArchSpec` into layers as plain data: `Conv` and
`Linear` with their widths, kernels and strides. `hrnet_search.model` makes modules of them,
`hrnet_search.cost` counts them; neither knows a width by itself. Standard library only.

Sources: Wang et al., arXiv 1908.07919, and the official code of each head, named beside it.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from .arch import BOTTLENECK_EXPANSION, ArchSpec, pruned, simplified
from .errors import InputError, nearest_name

CLS_WIDTH = 32  # bottleneck width of the highest resolution in head -C, doubling (Fig. 11)
CLS_FEATURES = 2048  # of the last 1x1 convolution of head -C (Fig. 11)
CLS_II_WIDTH = 512  # channels of every map that head -Cii concatenates (Table 16)
V1H_WIDENING = 15  # V2 has 1 + 2 + 4 + 8 times the highest resolution's channels (section 3.3)
PYRAMID_LEVELS = 5  # of HRNetV2p (section 3.3; official `hrfpn.py`, num_outs)
OCR_CHANNELS, OCR_KEYS = 512, 256  # official `seg_hrnet_ocr.py`, MODEL.OCR
IMAGE_CHANNELS = 3


class Conv(NamedTuple):
    """A convolution that keeps the size at stride 1 and halves it, rounded up, at stride 2."""

    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    bias: bool = False
    norm: bool = True  # a BatchNorm follows
    relu: bool = False  # a ReLU follows that


class Linear(NamedTuple):
    """A linear layer on pooled features."""

    inputs: int
    outputs: int
    bias: bool = True


class Unit(NamedTuple):
    """A residual unit: convolutions in a row, their result added to the shortcut, ReLU."""

    convs: tuple[Conv, ...]
    shortcut: Conv | None = None


class Path(NamedTuple):
    """One edge of a fusion unit: convolutions, and a resizing to the target's size."""

    convs: tuple[Conv, ...]
    resize: str = ""  # "nearest", "bilinear", "avg_pool", or none
    resize_first: bool = False


class Chain(NamedTuple):
    """Layers of a head in a row, and the map they start from.

    Args:
        layers: In order.
        branch: The map of the body whose size the first of them sees.
        pool: It is reduced by this factor before them, rounded down.
        regions: They see that many places instead (OCR's object regions), or one if pooled.
    """

    layers: tuple[Conv | Unit | Linear, ...]
    branch: int = 0
    pool: int = 1
    regions: int = 0


def stem(spec: ArchSpec) -> tuple[Conv, Conv]:
    """Two 3x3 convolutions of stride 2 (section 3.1)."""
    width = spec.stem_channels
    return (
        Conv(IMAGE_CHANNELS, width, 3, stride=2, relu=True),
        Conv(width, width, 3, stride=2, relu=True),
    )


def stage1(spec: ArchSpec) -> tuple[Unit, ...]:
    """Bottleneck units (Table 14)."""
    outputs = stage1_outputs(spec)
    first = bottleneck(spec.stem_channels, outputs)
    return (first, *[bottleneck(outputs, outputs)] * (spec.stage1_blocks - 1))


def stage1_outputs(spec: ArchSpec) -> int:
    return spec.stage1_channels * BOTTLENECK_EXPANSION


@functools.lru_cache(maxsize=4096)
def bottleneck(inputs: int, outputs: int, stride: int = 1) -> Unit:
    """1x1, 3x3, 1x1; the shortcut is a 1x1 convolution where width or size change."""
    width = outputs // BOTTLENECK_EXPANSION
    convs = (
        Conv(inputs, width, relu=True),
        Conv(width, width, 3, stride, relu=True),
        Conv(width, outputs),
    )
    same = inputs == outputs and stride == 1
    return Unit(convs, None if same else Conv(inputs, outputs, stride=stride))


@functools.lru_cache(maxsize=4096)
def basic(channels: int) -> Unit:
    """Two 3x3 convolutions and the identity."""
    return Unit((Conv(channels, channels, 3, relu=True), Conv(channels, channels, 3)))


def unit(kind: str, channels: int) -> Unit:
    """A residual unit of a branch, of a kind of `arch.UNITS`."""
    return basic(channels) if kind == "basic" else bottleneck(channels, channels)


@functools.lru_cache(maxsize=4096)
def transition(
    before: tuple[int, ...], after: tuple[int, ...]
) -> tuple[tuple[int, tuple[Conv, ...]] | None, ...]:
    """From the branches of one stage to those of the next: per branch its source and layers.

    A branch that goes on takes its own map, through a 3x3 convolution where the width changes;
    a new one takes the lowest-resolution map through as many 3x3 convolutions of stride 2 as it
    lies below it, of which the last changes the width. None stands for an absent branch.
    """
    steps: list[tuple[int, tuple[Conv, ...]] | None] = []
    for branch, width in enumerate(after):
        source = min(branch, len(before) - 1)
        inputs, down = before[source], branch - source
        if not width:
            steps.append(None)
        elif down:
            convs = [Conv(inputs, inputs, 3, stride=2, relu=True)] * (down - 1)
            steps.append((source, (*convs, Conv(inputs, width, 3, stride=2, relu=True))))
        elif inputs == width:
            steps.append((source, ()))
        else:
            steps.append((source, (Conv(inputs, width, 3, relu=True),)))
    return tuple(steps)


class Resizing(NamedTuple):
    """How the fusion units of a network change resolution: fields of `ArchSpec`."""

    upsample: str
    projection: str
    downsample: str


def resizing(spec: ArchSpec) -> Resizing:
    return Resizing(spec.upsample, spec.projection, spec.downsample)


@functools.lru_cache(maxsize=16384)
def path(how: Resizing, inputs: int, outputs: int, source: int, target: int) -> Path:
    """The edge of a fusion unit from branch `source` to another branch `target`.

    Low to high: a 1x1 convolution before or after the enlargement. High to low: as many 3x3
    convolutions of stride 2 as the branches are apart, of which the last changes the width and
    has no ReLU (section 3.2); or a reduction and a 1x1 convolution.
    """
    if source > target:
        return Path((Conv(inputs, outputs),), how.upsample, how.projection == "after")
    if how.downsample == "strided_conv":
        steps = [Conv(inputs, inputs, 3, stride=2, relu=True)] * (target - source - 1)
        return Path((*steps, Conv(inputs, outputs, 3, stride=2)))
    return Path((Conv(inputs, outputs),), how.downsample, True)


def mix(maps: int, channels: int) -> Conv:
    """What follows the concatenation of a fusion unit that joins by "concat"."""
    return Conv(maps * channels, channels)


# --- heads --------------------------------------------------------------------------------------

Layers = Mapping[str, Chain]  # attribute of the head, as the official code names it -> layers


@dataclass(frozen=True)
class Head:
    """What the package knows of a representation head.

    Args:
        title: What it is and where it comes from.
        outputs: What `num_outputs` counts.
        layers: (spec, num_outputs) -> its layers.
        reads_all: Does it read all maps of the body, or `ArchSpec.output_branch` alone?
        resizes: Does it enlarge maps bilinearly?
        has_output: Does it end in a layer whose bias `ArchSpec.output_bias` decides?
        min_size: Least height and width of an image, if more than the body's largest stride; of a
            head that reads the highest resolution. They double with each branch below that.
    """

    title: str
    outputs: str
    layers: Callable[[ArchSpec, int], Layers]
    reads_all: bool = True
    resizes: bool = False
    has_output: bool = True
    min_size: int = 0


def _v1(spec: ArchSpec, num_outputs: int) -> Layers:
    branch = spec.output_branch
    last = Conv(spec.channels[branch], num_outputs, bias=spec.output_bias, norm=False)
    return {"final_layer": Chain((last,), branch)}


def _v1h(spec: ArchSpec, num_outputs: int) -> Layers:
    """The paper says "a 1x1 convolution to align the dimension" with V2's 15 C; what follows is
    V2's. 15 times, however many other branches there are, so that they do not decide the head.
    """
    branch = spec.output_branch
    channels = spec.channels[branch]
    wide = V1H_WIDENING * channels
    return {"last_layer": _classifier(spec, channels, wide, num_outputs, branch)}


def _v2(spec: ArchSpec, num_outputs: int) -> Layers:
    wide = sum(spec.channels)
    return {"last_layer": _classifier(spec, wide, wide, num_outputs)}


def _classifier(
    spec: ArchSpec, inputs: int, width: int, num_outputs: int, branch: int = 0
) -> Chain:
    """`last_layer` of the official `seg_hrnet.py`."""
    hidden = Conv(inputs, width, bias=True, relu=True)
    return Chain((hidden, Conv(width, num_outputs, bias=spec.output_bias, norm=False)), branch)


def _ocr(spec: ArchSpec, num_outputs: int) -> Layers:
    """Official `seg_hrnet_ocr.py`: coarse classes, then attention between pixels and classes."""
    wide = sum(spec.channels)
    mid, key = OCR_CHANNELS, OCR_KEYS
    attend = (Conv(mid, key, relu=True), Conv(key, key, relu=True))
    last = Conv(mid, num_outputs, bias=spec.output_bias, norm=False)
    return {
        "aux_head": _classifier(spec, wide, wide, num_outputs),
        "conv3x3_ocr": Chain((Conv(wide, mid, 3, bias=True, relu=True),)),
        "f_pixel": Chain(attend),
        "f_object": Chain(attend, regions=num_outputs),
        "f_down": Chain((Conv(mid, key, relu=True),), regions=num_outputs),
        "f_up": Chain((Conv(key, mid, relu=True),)),
        "conv_bn_dropout": Chain((Conv(2 * mid, mid, relu=True),)),
        "cls_head": Chain((last,)),
    }


def _v2r(spec: ArchSpec, num_outputs: int) -> Layers:
    """The map that V2p makes its pyramid of. No code of HRNet under CenterNet was published; this
    and CenterNet's own head meet the #Params and GFLOPs that Table 7 prints for W64.
    """
    reduce = Conv(sum(spec.channels), num_outputs, bias=True, norm=False)
    return {"last_layer": Chain((reduce,))}


def _v2p(spec: ArchSpec, num_outputs: int) -> Layers:
    return _pyramid(sum(spec.channels), num_outputs)


def _v2p_s2(spec: ArchSpec, num_outputs: int) -> Layers:
    return _pyramid(sum(spec.channels), num_outputs, stride=2)


def _v1p(spec: ArchSpec, num_outputs: int) -> Layers:
    """The paper draws its figures (Fig. 10b) and says no more than that the high resolution alone
    is read, so what follows is V2p's.
    """
    return _pyramid(spec.channels[spec.output_branch], num_outputs, branch=spec.output_branch)


def _v1hp(spec: ArchSpec, num_outputs: int) -> Layers:
    """Widened as in `_v1h`, with BatchNorm and ReLU as there: without them the widening and the
    reduction would be one convolution.
    """
    branch = spec.output_branch
    channels = spec.channels[branch]
    wide = V1H_WIDENING * channels
    widen = Chain((Conv(channels, wide, bias=True, relu=True),), branch)
    return {"widening_conv": widen, **_pyramid(wide, num_outputs, branch=branch)}


def _pyramid(channels: int, num_outputs: int, *, stride: int = 1, branch: int = 0) -> Layers:
    """Official `hrfpn.py`: one map for all levels, pooled, then a 3x3 convolution each."""
    level = Conv(num_outputs, num_outputs, 3, stride=stride, bias=True, norm=False)
    reduce = Conv(channels, num_outputs, bias=True, norm=False)
    chains = {"reduction_conv": Chain((reduce,), branch)}
    for index in range(PYRAMID_LEVELS):
        chains[f"fpn_conv.{index}"] = Chain((level,), branch, pool=2**index)
    return chains


def _cls(spec: ArchSpec, num_outputs: int) -> Layers:
    """Official `cls_hrnet.py` (Fig. 11)."""
    widths = [cls_width(branch) for branch in range(len(spec.channels))]
    chains = {}
    for branch, (channels, width) in enumerate(zip(spec.channels, widths, strict=True)):
        chains[f"incre_modules.{branch}"] = Chain((bottleneck(channels, width),), branch)
    for branch, (width, wider) in enumerate(itertools.pairwise(widths)):
        down = Conv(width, wider, 3, stride=2, bias=True, relu=True)
        chains[f"downsamp_modules.{branch}"] = Chain((down,), branch)
    last = Conv(widths[-1], CLS_FEATURES, bias=True, relu=True)
    chains["final_layer"] = Chain((last,), len(widths) - 1)
    return chains | _linear(spec, CLS_FEATURES, num_outputs)


def cls_width(branch: int) -> int:
    """Channels that a map has in head -C: 128, 256, 512, 1024 (Fig. 11)."""
    return CLS_WIDTH * BOTTLENECK_EXPANSION * 2**branch


def _cls_i(spec: ArchSpec, num_outputs: int) -> Layers:
    """Table 16, -Ci: every map pooled, all concatenated."""
    return _linear(spec, sum(spec.channels), num_outputs)


def _cls_ii(spec: ArchSpec, num_outputs: int) -> Layers:
    """Table 16, -Cii: bottlenecks of stride 2 bring every map to 512 channels at the lowest
    resolution, where they are concatenated and pooled. The paper says no more; that each step
    doubles the width up to 512 meets the printed #Params and GFLOPs of all three networks.
    """
    lowest = len(spec.channels) - 1
    width = CLS_II_WIDTH
    chains = {}
    for branch, channels in enumerate(spec.channels):
        steps = lowest - branch
        outputs = [width // 2**step for step in reversed(range(max(1, steps)))]
        inputs = [channels, *outputs]
        units = (bottleneck(i, o, 2 if steps else 1) for i, o in zip(inputs, outputs, strict=False))
        chains[f"downsamp_modules.{branch}"] = Chain(tuple(units), branch)
    return chains | _linear(spec, width * len(spec.channels), num_outputs)


def _linear(spec: ArchSpec, inputs: int, num_outputs: int) -> dict[str, Chain]:
    return {"classifier": Chain((Linear(inputs, num_outputs, spec.output_bias),), regions=1)}


HEADS: Mapping[str, Head] = {
    "v1": Head("HRNetV1: the highest resolution (Fig. 4a)", "joints or classes", _v1, False),
    "v1h": Head(
        "HRNetV1h: V1 widened to V2's channels (Fig. 10)", "joints or classes", _v1h, False
    ),
    "v2": Head("HRNetV2: all resolutions (Fig. 4b)", "joints or classes", _v2, resizes=True),
    "ocr": Head("HRNetV2 + OCR (Table 3)", "classes", _ocr, resizes=True),
    "v1p": Head(
        "V2p's pyramid of V1's map (Fig. 10b)",
        "channels of each level",
        _v1p,
        False,
        has_output=False,
        min_size=64,
    ),
    "v1hp": Head(
        "V2p's pyramid of V1h's map (Fig. 10b)",
        "channels of each level",
        _v1hp,
        False,
        has_output=False,
        min_size=64,
    ),
    "v2p": Head(
        "HRNetV2p: a pyramid of strides 4 to 64 (Fig. 4c)",
        "channels of each level",
        _v2p,
        resizes=True,
        has_output=False,
        min_size=64,
    ),
    "v2p_s2": Head(
        "HRNetV2p with level convolutions of stride 2, strides 8 to 128 (official HRNet-FCOS)",
        "channels of each level",
        _v2p_s2,
        resizes=True,
        has_output=False,
        min_size=64,
    ),
    "v2r": Head(
        "HRNetV2's maps in one of stride 4, under CenterNet (Table 7)",
        "channels of the map",
        _v2r,
        resizes=True,
        has_output=False,
    ),
    "cls": Head("HRNet-C (Fig. 11)", "classes", _cls),
    "cls_i": Head("HRNet-Ci (Table 16)", "classes", _cls_i),
    "cls_ii": Head("HRNet-Cii (Table 16)", "classes", _cls_ii),
}


def head_of(name: str) -> Head:
    """The head of that name.

    Raises:
        InputError: There is none.
    """
    if name not in tuple(HEADS):
        rule = f"must be one of {', '.join(HEADS)}"
        raise InputError(rule, key="head", value=name, nearest=nearest_name(name, HEADS))
    return HEADS[name]


def reads(spec: ArchSpec, head: str) -> tuple[int, ...]:
    """The branches of the last stage whose maps the head reads."""
    if head_of(head).reads_all:
        return tuple(range(len(spec.channels)))
    return (spec.output_branch,)


def canonical(spec: ArchSpec, head: str) -> ArchSpec:
    """The network that is built with this head: without what cannot reach its output, and with
    every choice that cannot matter set to the official one. Equal networks have equal specs,
    and so equal keys.

    Raises:
        InputError: There is no such head, or the spec lacks a map that it reads.
    """
    known = head_of(head)
    if not isinstance(spec, ArchSpec):
        raise InputError('must be an ArchSpec, such as preset("w32")', key="spec", value=spec)
    for branch in reads(spec, head):
        if not spec.channels[branch]:
            rule = f"has no branch {branch}, which the head {head} reads"
            raise InputError(rule, key="stages", value=list(spec.channels))
    if known.reads_all and spec.output_branch:
        spec = dataclasses.replace(spec, output_branch=0)
    if not known.has_output and not spec.output_bias:
        spec = dataclasses.replace(spec, output_bias=True)
    return simplified(pruned(spec, reads(spec, head)), head_resizes=known.resizes)


def min_size(spec: ArchSpec, head: str) -> int:
    """Least height and width of an image in pixels: one place on the lowest-resolution map."""
    lowest = max(b for stage in spec.stages for b, c in enumerate(stage.num_channels) if c)
    first = min(reads(spec, head))
    return max(spec.strides[lowest], head_of(head).min_size * 2**first)


def check_input(spec: ArchSpec, head: str, input_size: tuple[int, int]) -> None:
    """Refuse what is no size of an image, and an image that is too small.

    Args:
        input_size: (H, W) in pixels.

    Raises:
        InputError: It is no pair of whole numbers, or one is below `min_size`.
    """
    pair = isinstance(input_size, (tuple, list)) and len(input_size) == 2
    if not pair or any(isinstance(side, (bool, float, str)) for side in input_size):
        raise InputError("must be (height, width) in pixels", key="input_size", value=input_size)
    least = min_size(spec, head)
    if min(input_size) < least:
        rule = f"must be at least {least} x {least} pixels for this network and head {head}"
        raise InputError(rule, key="input_size", value=tuple(input_size))
