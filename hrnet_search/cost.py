"""What a network costs, in closed form: from its spec alone, without torch, in under a millisecond.

The layers come from `blueprint`, which the torch modules are made of as well; here they are only
counted. See docs/counting.md for what each number is.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from . import blueprint
from .arch import ArchSpec, Edge, ModuleSpec
from .blueprint import Chain, Conv, Linear, Path, Resizing, Unit
from .errors import InputError

BN_MACS = 2  # per element: fvcore's count of an affine BatchNorm in inference
BILINEAR_MACS = 4  # per element put out: fvcore's count; 1 for nearest
FLOAT_BYTES = 4
PAPER_GFLOP = 2**30  # multiply-adds; the official `get_model_summary` divides by 1024**3

Size = tuple[int, int]  # (height, width)


class Tally(NamedTuple):
    """Countable costs of one part, for one image. All but `params` grow with its size.

    Args:
        params: Parameters, those of BatchNorm too.
        conv_macs: Multiply-adds of convolutions, biases left out.
        linear_macs: Of linear layers, biases left out.
        matmul_macs: Of products of two activations (OCR's attention).
        elementwise_macs: BatchNorm 2 per element, resizing 1 (nearest) or 4 (bilinear) per
            element put out and pooling 1 per element taken in, products of maps 1; sums of maps
            and ReLU none. Where fvcore counts, it counts the same.
        activations: Elements that convolutions and linear layers put out.
        kernels: Operators that run one after the other in a forward pass, views left out.
        saved: Elements that a training step keeps for the backward pass.
    """

    params: int = 0
    conv_macs: int = 0
    linear_macs: int = 0
    matmul_macs: int = 0
    elementwise_macs: int = 0
    activations: int = 0
    kernels: int = 0
    saved: int = 0

    @property
    def macs(self) -> int:
        """Multiply-adds of convolutions and linear layers: what the paper counts."""
        return self.conv_macs + self.linear_macs


class Part(NamedTuple):
    """Where a share of the cost arises.

    Args:
        stage: "stem", "stage1", "transition1", "stage2", ..., "head".
        module: Number of the module within its stage, or None.
        branch: The branch it belongs to, for an edge the one it leads to, or None.
        edge: (from branch, to branch) of a fusion edge, or None.
        joins: Is it where a fusion unit makes one map of several?
        tally: Its cost.
    """

    stage: str
    module: int | None
    branch: int | None
    edge: Edge | None
    joins: bool
    tally: Tally


# A place in the network, and what lies there: branch, edge, does it join, cost of each piece.
Piece = tuple[int | None, Edge | None, bool, Tally]
Pieces = tuple[Piece, ...]
Group = tuple[str, int | None, Pieces]  # stage, module


@dataclass(frozen=True)
class Cost:
    """Cost of one network for one image. The fields of `Tally`, in sum, and:

    Args:
        total: The sum of all parts.
        depth: Convolutions and linear layers on the longest way from image to output.
        memory: Estimated peak bytes of tensors in a training step on one image in float32:
            parameters, maps kept for the backward pass and gradients; without the optimiser's
            state, BatchNorm's statistics and the libraries' scratch memory.
        groups: What `parts` is made of.
    """

    total: Tally
    depth: int
    memory: int
    groups: tuple[Group, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """Every part, from the image to the output."""
        return tuple(
            Part(stage, module, *piece) for stage, module, pieces in self.groups for piece in pieces
        )

    @property
    def params(self) -> int:
        return self.total.params

    @property
    def macs(self) -> int:
        """Multiply-adds of convolutions and linear layers; in units of 2**30 the paper's GFLOPs."""
        return self.total.macs

    @property
    def conv_macs(self) -> int:
        return self.total.conv_macs

    @property
    def linear_macs(self) -> int:
        return self.total.linear_macs

    @property
    def matmul_macs(self) -> int:
        return self.total.matmul_macs

    @property
    def elementwise_macs(self) -> int:
        return self.total.elementwise_macs

    @property
    def activations(self) -> int:
        return self.total.activations

    @property
    def kernels(self) -> int:
        return self.total.kernels

    def by_stage(self) -> dict[str, Tally]:
        """Stage -> its cost, from the image to the output."""
        return _grouped((part.stage, part.tally) for part in self.parts)

    def by_branch(self) -> dict[int, Tally]:
        """Branch -> cost of its transitions, its units and the fusion edges that lead to it."""
        groups = _grouped((p.branch, p.tally) for p in self.parts)
        return {branch: tally for branch, tally in groups.items() if branch is not None}

    def by_edge(self) -> dict[Edge, Tally]:
        """(from branch, to branch) -> cost of that edge in all modules."""
        groups = _grouped((p.edge, p.tally) for p in self.parts)
        return {edge: tally for edge, tally in groups.items() if edge is not None}


def cost(spec: ArchSpec, *, head: str, num_outputs: int, input_size: Size) -> Cost:
    """Cost of the network that `build(spec, head=head, num_outputs=num_outputs)` makes.

    Args:
        spec: The body.
        head: A key of `blueprint.HEADS`.
        num_outputs: Joints or classes; channels of each level of a pyramid.
        input_size: (H, W) of one image in pixels.

    Raises:
        InputError: There is no such head, a number is not a whole one of at least 1, or the
            image is too small for the network.
    """
    return count(
        blueprint.canonical(spec, head), head=head, num_outputs=num_outputs, input_size=input_size
    )


def count(spec: ArchSpec, *, head: str, num_outputs: int, input_size: Size) -> Cost:
    """The same of a spec that is already in its canonical form for this head.

    Raises:
        InputError: As `cost`.
    """
    if type(num_outputs) is not int or num_outputs < 1:
        rule = "must be a whole number of at least 1"
        raise InputError(rule, key="num_outputs", value=num_outputs)
    blueprint.check_input(spec, head, input_size)
    walk = _Walk(spec, input_size)
    walk.body()
    walk.head(head, num_outputs)
    total = _sum(*(tally for tally, _ in walk.steps))
    memory = FLOAT_BYTES * (total.params + _peak(walk.steps))
    return Cost(total, walk.depth, memory, tuple(walk.groups))


def text(found: Cost) -> str:
    """The cost as text for a terminal: by stage, then in sum."""
    lines = [f"{'':14}{'params':>14}{'multiply-adds':>20}{'activations':>16}{'kernels':>9}"]
    for name, tally in [*found.by_stage().items(), ("all", found.total)]:
        lines.append(
            f"{name:14}{tally.params:14,}{tally.macs:20,}{tally.activations:16,}{tally.kernels:9,}"
        )
    macs = f"{found.macs / 1e9:.4g} GMACs, {found.macs / PAPER_GFLOP:.4g} of the paper's GFLOPs"
    lines.append(f"{macs} (conv + linear); depth {found.depth}")
    lines.append(f"{found.memory / 2**20:,.1f} MiB for a training step on one image, estimated")
    return "\n".join(lines)


class _Walk:
    """From the image to the output: gathers the parts, and how deep each branch has become."""

    def __init__(self, spec: ArchSpec, input_size: Size) -> None:
        self.spec = spec
        self.input_size = input_size
        self.sizes = [_halved(_halved(input_size))]
        for _ in range(len(spec.channels) - 1):
            self.sizes.append(_halved(self.sizes[-1]))
        self.groups: list[Group] = []
        self.steps: list[Step] = []
        self.depths: list[int] = []  # of each branch so far

    def add(self, stage: str, tally: Tally, flow: int, branch: int | None = None) -> None:
        self.groups.append((stage, None, ((branch, None, False, tally),)))
        self.steps.append((tally, flow))

    def body(self) -> None:
        spec = self.spec
        image = Tally(saved=blueprint.IMAGE_CHANNELS * _places(self.input_size))
        convs = blueprint.stem(spec)
        stem = _sum(image, _convs(convs, self.input_size))
        self.add("stem", stem, _flow(convs, self.input_size))
        units = blueprint.stage1(spec)
        self.add("stage1", _units(units, self.sizes[0]), _unit_flow(units[-1], self.sizes[0]))
        self.depths = [len(convs) + sum(len(unit.convs) for unit in units)]
        channels: tuple[int, ...] = (blueprint.stage1_outputs(spec),)
        for index, stage in enumerate(spec.stages):
            self._transition(f"transition{index + 1}", channels, stage.num_channels)
            for number, module in enumerate(stage.modules):
                self._module(f"stage{index + 2}", number, stage.num_channels, module)
            channels = stage.num_channels

    def _transition(self, name: str, before: tuple[int, ...], after: tuple[int, ...]) -> None:
        depths = []
        waiting = _maps(after, self.sizes)
        for branch, step in enumerate(blueprint.transition(before, after)):
            source, convs = step or (0, ())
            if convs:
                flow = waiting + after[branch] * _places(self.sizes[branch])
                self.add(name, _convs(convs, self.sizes[source]), flow, branch)
            depths.append(self.depths[source] + len(convs))
        self.depths = depths

    def _module(
        self, stage: str, number: int, channels: tuple[int, ...], module: ModuleSpec
    ) -> None:
        spec = self.spec
        how = blueprint.resizing(spec)
        cost = _module(spec.unit, spec.fuse, how, channels, module, tuple(self.sizes))
        self.steps.append((cost.total, cost.flow))
        self.groups.append((stage, number, cost.pieces))
        depths = [deep + length for deep, length in zip(self.depths, cost.lengths, strict=True)]
        self.depths = list(depths)
        for source, target, length in cost.ways:
            self.depths[target] = max(self.depths[target], depths[source] + length)

    def head(self, name: str, num_outputs: int) -> None:
        layers = blueprint.head_of(name).layers(self.spec, num_outputs)
        branches = blueprint.reads(self.spec, name)
        sizes = [self.sizes[branch] for branch in branches]
        waiting = _maps([self.spec.channels[branch] for branch in branches], sizes)
        beside = HEAD_RULES[name](self.spec, sizes, num_outputs)  # runs before the layers
        steps = [(tally, waiting) for tally in beside]
        for chain in layers.values():
            steps += self._chain(chain)
        self.steps += steps
        tally = _sum(*(tally for tally, _ in steps))
        self.groups.append(("head", None, ((None, None, False, tally),)))
        self.depth = self._head_depth(name, layers, branches)

    def _chain(self, chain: Chain) -> "list[Step]":
        """Its layers, whatever they start from."""
        height, width = self.sizes[chain.branch]
        size = (chain.regions, 1) if chain.regions else (height // chain.pool, width // chain.pool)
        steps: list[Step] = []
        for layer in chain.layers:
            if isinstance(layer, Linear):
                steps.append((_linear(layer), layer.inputs + layer.outputs))
            elif isinstance(layer, Unit):
                steps.append((_unit(layer, size), _unit_flow(layer, size)))
                size = _after(layer.convs, size)
            else:
                steps.append((_convs((layer,), size), _flow((layer,), size)))
                size = _after((layer,), size)
        return steps

    def _head_depth(self, name: str, layers: blueprint.Layers, branches: Sequence[int]) -> int:
        """Layers on the longest way; heads -C and OCR join their chains in ways of their own."""
        length = {key: _length(chain) for key, chain in layers.items()}
        if name == "cls":
            deep = 0
            for branch in branches:
                wide = self.depths[branch] + length[f"incre_modules.{branch}"]
                down = deep + length[f"downsamp_modules.{branch - 1}"] if branch else 0
                deep = max(wide, down)
            return deep + length["final_layer"] + length["classifier"]
        if name == "cls_ii":
            ways = (self.depths[b] + length[f"downsamp_modules.{b}"] for b in branches)
            return max(ways) + length["classifier"]
        start = max(self.depths[branch] for branch in branches)
        if name == "ocr":
            pixels = length["conv3x3_ocr"] + length["f_pixel"]
            regions = max(length["aux_head"], length["conv3x3_ocr"]) + max(
                length["f_object"], length["f_down"]
            )
            rest = length["f_up"] + length["conv_bn_dropout"] + length["cls_head"]
            return start + max(pixels, regions) + rest
        if "reduction_conv" in length:
            widened = start + length.get("widening_conv", 0)
            return widened + length["reduction_conv"] + length["fpn_conv.0"]
        return start + sum(length.values())


# --- parts --------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=65536)
def _conv(conv: Conv, size: Size) -> Tally:
    """One convolution with its BatchNorm and ReLU. `size` is what it puts out."""
    weights = conv.inputs * conv.outputs * conv.kernel**2
    places = _places(size)
    elements = conv.outputs * places
    return Tally(
        params=weights + conv.outputs * (conv.bias + 2 * conv.norm),
        conv_macs=weights * places,
        elementwise_macs=BN_MACS * elements * conv.norm,
        activations=elements,
        kernels=1 + conv.norm + conv.relu,
        saved=elements * (conv.norm + conv.relu),  # BatchNorm keeps what it takes, ReLU its result
    )


@functools.lru_cache(maxsize=65536)
def _convs(convs: tuple[Conv, ...], size: Size) -> Tally:
    """Convolutions in a row. `size` is what the first takes in."""
    tallies = []
    for conv in convs:
        size = _after((conv,), size)
        tallies.append(_conv(conv, size))
    return _sum(*tallies)


@functools.lru_cache(maxsize=65536)
def _unit(unit: Unit, size: Size) -> Tally:
    """A residual unit. `size` is what it takes in."""
    after = _after(unit.convs, size)
    joined = Tally(kernels=2, saved=unit.convs[-1].outputs * _places(after))  # the sum, ReLU
    short = () if unit.shortcut is None else (_convs((unit.shortcut,), size),)
    return _sum(_convs(unit.convs, size), *short, joined)


def _units(units: Sequence[Unit], size: Size) -> Tally:
    return _sum(*(_unit(unit, size) for unit in units))


class _Piece(NamedTuple):
    """The units of a branch, or an edge of a fusion unit."""

    tally: Tally
    flow: int  # elements of gradients alive as it runs backwards
    length: int  # convolutions in a row


@functools.lru_cache(maxsize=65536)
def _branch(kind: str, channels: int, blocks: int, size: Size) -> _Piece:
    unit = blueprint.unit(kind, channels)
    tally = Tally(*(blocks * number for number in _unit(unit, size)))
    return _Piece(tally, _flow(unit.convs, size), blocks * len(unit.convs))


@functools.lru_cache(maxsize=65536)
def _edge(how: Resizing, inputs: int, outputs: int, edge: Edge, size: Size, target: Size) -> _Piece:
    path = blueprint.path(how, inputs, outputs, *edge)
    return _Piece(_path(path, size, target), _flow(path.convs, size), len(path.convs))


def _path(path: Path, size: Size, target: Size) -> Tally:
    """An edge of a fusion unit from a map of `size` to one of size `target`."""
    if not path.resize:
        return _convs(path.convs, size)
    (conv,) = path.convs
    width = conv.inputs if path.resize_first else conv.outputs
    if path.resize == "avg_pool":
        macs = width * _places(size)
    else:
        macs = width * _places(target) * (BILINEAR_MACS if path.resize == "bilinear" else 1)
    kept = width * _places(target) * path.resize_first  # the convolution keeps what it takes
    resizing = Tally(elementwise_macs=macs, kernels=1, saved=kept)
    return _sum(_conv(conv, target if path.resize_first else size), resizing)


# What runs one after the other: its cost, and elements of gradients alive as it runs backwards.
Step = tuple[Tally, int]


def _peak(steps: Sequence[Step]) -> int:
    """Most elements alive in a backward pass, beside the parameters.

    It goes through the steps from the last to the first: what a step kept is freed, the
    gradients of its parameters stay.
    """
    kept = sum(tally.saved for tally, _ in steps)
    gradients, peak = 0, kept
    for tally, flow in reversed(steps):
        peak = max(peak, kept + gradients + flow)
        kept -= tally.saved
        gradients += tally.params
    return max(peak, kept + gradients)


@functools.lru_cache(maxsize=65536)
def _flow(convs: tuple[Conv, ...], size: Size) -> int:
    """Most elements of gradients of maps alive while these run backwards, one after the other."""
    most = 0
    for conv in convs:
        after = _after((conv,), size)
        inputs, outputs = conv.inputs * _places(size), conv.outputs * _places(after)
        norm = 2 * outputs if conv.norm or conv.relu else 0  # gradients into and out of it
        most, size = max(most, norm, inputs + outputs), after
    return most


def _unit_flow(unit: Unit, size: Size) -> int:
    """The same of a residual unit, whose shortcut's gradient waits meanwhile."""
    waiting = unit.convs[0].inputs * _places(size)
    last = unit.convs[-1].outputs * _places(_after(unit.convs, size))
    return max(_flow(unit.convs, size) + waiting, 2 * last)


def _maps(channels: Sequence[int], sizes: Sequence[Size]) -> int:
    """Elements of parallel maps."""
    return sum(c * _places(size) for c, size in zip(channels, sizes, strict=False))


class _ModuleCost(NamedTuple):
    """One module: its pieces, and how many layers it adds to each branch's longest way."""

    total: Tally
    flow: int
    pieces: Pieces
    lengths: tuple[int, ...]  # of each branch's units
    ways: tuple[tuple[int, int, int], ...]  # from branch, to branch, layers on the way


@functools.lru_cache(maxsize=16384)
def _module(
    unit: str,
    fuse: str,
    how: Resizing,
    channels: tuple[int, ...],
    module: ModuleSpec,
    sizes: tuple[Size, ...],
) -> _ModuleCost:
    waiting = _maps(channels, sizes)  # gradients of the other branches
    pieces: list[Piece] = []
    steps: list[Step] = []
    lengths = [0] * len(channels)
    for branch, blocks in enumerate(module.num_blocks):
        if blocks:
            tally, flow, lengths[branch] = _branch(unit, channels[branch], blocks, sizes[branch])
            pieces.append((branch, None, False, tally))
            steps.append((tally, flow + waiting))
    mixing = int(fuse == "concat")
    ways, maps = [], [1] * len(channels)
    for edge in module.edges:
        source, target = edge
        tally, flow, length = _edge(
            how, channels[source], channels[target], edge, sizes[source], sizes[target]
        )
        pieces.append((target, edge, False, tally))
        steps.append((tally, flow + waiting))
        maps[target] += 1
        ways.append((source, target, length + mixing))
    for target, joined in enumerate(maps):
        if joined > 1:
            tally = _join(fuse, joined, channels[target], sizes[target])
            pieces.append((target, None, True, tally))
            steps.append((tally, 2 * channels[target] * _places(sizes[target]) + waiting))
            ways.append((target, target, mixing))
    total = _sum(*(tally for tally, _ in steps))
    flow = _peak(steps) - total.saved if steps else 0
    return _ModuleCost(total, flow, tuple(pieces), tuple(lengths), tuple(ways))


@functools.lru_cache(maxsize=65536)
def _join(fuse: str, maps: int, channels: int, size: Size) -> Tally:
    """How a fusion unit makes one map of several, of equal size by now, and its ReLU."""
    elements = channels * _places(size)
    if fuse == "concat":
        mixed = _conv(blueprint.mix(maps, channels), size)
        return _sum(mixed, Tally(kernels=2, saved=(maps + 1) * elements))
    if fuse == "multiply":  # products keep both factors
        macs = (maps - 1) * elements
        return Tally(elementwise_macs=macs, kernels=maps, saved=(2 * maps - 2) * elements)
    if fuse == "weighted":
        return Tally(
            params=maps,
            elementwise_macs=maps * elements,
            kernels=2 * maps,
            saved=maps * elements,
        )
    return Tally(kernels=maps, saved=elements)


def _linear(layer: Linear) -> Tally:
    return Tally(
        params=layer.inputs * layer.outputs + layer.outputs * layer.bias,
        linear_macs=layer.inputs * layer.outputs,
        activations=layer.outputs,
        kernels=1,
        saved=layer.inputs,
    )


# --- what heads do beside their layers ----------------------------------------------------------


def _nothing(spec: ArchSpec, sizes: Sequence[Size], num_outputs: int) -> list[Tally]:
    return []


def _concatenation(spec: ArchSpec, sizes: Sequence[Size], num_outputs: int) -> list[Tally]:
    """V2: maps enlarged to the first one's size and concatenated."""
    if len(sizes) == 1:
        return []
    places = _places(sizes[0])
    enlarged = sum(spec.channels[1:]) * places
    kernels = len(sizes)
    return [
        Tally(
            elementwise_macs=BILINEAR_MACS * enlarged,
            kernels=kernels,
            saved=sum(spec.channels) * places,
        )
    ]


def _pyramid(spec: ArchSpec, sizes: Sequence[Size], num_outputs: int) -> list[Tally]:
    """V2p, V1p, V1hp: the reduced map, kept, and pooled for every level but the first."""
    height, width = sizes[0]
    pools = [2**level for level in range(1, blueprint.PYRAMID_LEVELS)]
    kept = sum((height // pool) * (width // pool) for pool in (1, *pools))
    pooling = Tally(
        elementwise_macs=len(pools) * num_outputs * height * width,
        kernels=len(pools),
        saved=num_outputs * kept,
    )
    return [*_concatenation(spec, sizes, num_outputs), pooling]


def _sums(spec: ArchSpec, sizes: Sequence[Size], num_outputs: int) -> list[Tally]:
    """-C: each map added to the one before, brought to its size; the last one pooled."""
    widths = [blueprint.cls_width(branch) for branch in range(1, len(sizes))]
    kept = _maps(widths, sizes[1:])
    last = _pooling(blueprint.CLS_FEATURES, sizes[-1])
    return [Tally(kernels=len(sizes) - 1, saved=kept), last]


def _pooled_maps(spec: ArchSpec, sizes: Sequence[Size], num_outputs: int) -> list[Tally]:
    """-Ci: every map pooled, all concatenated."""
    pools = [_pooling(c, size) for c, size in zip(spec.channels, sizes, strict=True)]
    return [*pools, Tally(kernels=len(sizes) > 1)]


def _joined_maps(spec: ArchSpec, sizes: Sequence[Size], num_outputs: int) -> list[Tally]:
    """-Cii: all maps at the lowest resolution, concatenated and pooled."""
    width = blueprint.CLS_II_WIDTH * len(sizes)
    return [Tally(kernels=len(sizes) > 1), _pooling(width, sizes[-1])]


def _attention(spec: ArchSpec, sizes: Sequence[Size], num_outputs: int) -> list[Tally]:
    """OCR: regions gathered, pixels attending to them (`model.heads.HeadOCR`)."""
    places = _places(sizes[0])
    mid, key, regions = blueprint.OCR_CHANNELS, blueprint.OCR_KEYS, num_outputs
    gather, attend = mid * places * regions, key * places * regions
    attention = Tally(
        matmul_macs=gather + 2 * attend,
        elementwise_macs=places * regions,  # the scale of the scores
        kernels=7,  # two softmaxes, three products, the scale, a concatenation
        saved=2 * regions * places + mid * regions + key * places + 2 * mid * places,
    )
    return [*_concatenation(spec, sizes, num_outputs), attention]


def _pooling(channels: int, size: Size) -> Tally:
    return Tally(elementwise_macs=channels * _places(size), kernels=1)


HeadRule = Callable[[ArchSpec, Sequence[Size], int], list[Tally]]
HEAD_RULES: dict[str, HeadRule] = {
    "v1": _nothing,
    "v1h": _nothing,
    "v2": _concatenation,
    "ocr": _attention,
    "v1p": _pyramid,
    "v1hp": _pyramid,
    "v2p": _pyramid,
    "v2p_s2": _pyramid,
    "v2r": _concatenation,
    "cls": _sums,
    "cls_i": _pooled_maps,
    "cls_ii": _joined_maps,
}


def _length(chain: Chain) -> int:
    """Convolutions and linear layers on the longest way through it."""
    return sum(len(layer.convs) if isinstance(layer, Unit) else 1 for layer in chain.layers)


def _after(convs: Sequence[Conv], size: Size) -> Size:
    """The size after convolutions: strides halve it, rounded up."""
    for conv in convs:
        size = _halved(size) if conv.stride == 2 else size
    return size


def _halved(size: Size) -> Size:
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def _places(size: Size) -> int:
    return size[0] * size[1]


def _sum(*tallies: Tally) -> Tally:
    return Tally(*map(sum, zip(*tallies, strict=True))) if tallies else Tally()


def _grouped(pairs: Iterable[tuple[object, Tally]]) -> dict:  # type: ignore[type-arg]
    groups: dict[object, Tally] = {}
    for label, tally in pairs:
        groups[label] = _sum(groups.get(label, Tally()), tally)
    return groups
