"""Weights in files, under our names or those of others, and from a larger network to a smaller one.

`model/` keeps the attribute names of the official code, so names differ in their first word alone:

    ours        body.*      head.*
    official    *           *           pose, classification, segmentation; timm has the same
    parts       backbone.*  neck.*, head.*, keypoint_head.*     official detection, mmdet, mmpose

Of mmseg the backbone alone fits: its heads have other layers. Nothing is ever unpickled.
"""

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, zip_longest
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from .arch import MAX_BRANCHES
from .blueprint import CLS_II_WIDTH, reads
from .errors import InputError, nearest_name
from .files import write_atomic
from .model import Network
from .model.blocks import FusionRow
from .model.heads import HeadV2p

SAFE, PICKLE = ".safetensors", (".pth", ".pt", ".bin")  # kinds of files that are written
# Where a training checkpoint keeps the state dict; official pose code has a string under "model".
CONTAINERS = ("state_dict", "best_state_dict", "model_state", "model_state_dict", "model", "net")
PARTS = {"all": "", "body": "body."}  # what our names of the entries to load begin with
WRAPPERS = ("module.", "model.")  # DataParallel; the official segmentation code's FullModel

_BODY = re.compile(r"(conv[12]|bn[12]|layer1|transition\d+|stage\d+)\.")
_PARTS = {"backbone": "body", "neck": "head", "head": "head", "keypoint_head": "head"}
# First layers of heads, which see the maps of all branches that the head reads side by side.
_JOINED = (
    *("final_layer", "last_layer.0", "aux_head.0", "conv3x3_ocr.0"),
    *("reduction_conv.0", "widening_conv.0"),
)

State = Mapping[str, Tensor]
Groups = Mapping[int, int]  # branch -> channels of it, in the order in which they are joined
Difference = tuple[str, Any, Any]  # name, our shape, their shape; "none" where there is none


def official_name(net: nn.Module, name: str) -> str:
    """The official code's name of an entry of `net.state_dict()`.

    Pose, classification and segmentation put body and head side by side; detection calls them
    "backbone" and "neck" (official `hrnet.py`, `hrfpn.py`). Networks of others keep their names.
    """
    if not isinstance(net, Network):
        return name
    part, _, rest = name.partition(".")
    if isinstance(net.head, HeadV2p):
        return f"{'backbone' if part == 'body' else 'neck'}.{rest}"
    return rest


@dataclass(frozen=True)
class Loaded:
    """What `load_weights` did.

    Args:
        convention: Whose names the checkpoint has: "ours", "official" or "parts".
        matched: Entries of the network that were loaded.
        missing: Those that keep their values: the head with parts="body", and what old
            checkpoints do without, `num_batches_tracked`.
        ignored: Entries of the checkpoint that were not used, as it names them.
    """

    convention: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    ignored: tuple[str, ...]


def load_weights(net: nn.Module, path: str | Path, *, parts: str = "all") -> Loaded:
    """Load a checkpoint file: ours, official, timm, mmdet or mmpose. See `load_state`.

    Args:
        net: The network; unchanged if anything is wrong.
        path: A .safetensors file, or one of `torch.save` with nothing but tensors and plain data.
        parts: "all", or "body" to leave the head as it is.

    Raises:
        InputError: There is no such file, it holds no state dict, or does not fit.
    """
    _check_arguments(net, parts)
    state = _read(Path(path))
    try:
        return load_state(net, state, parts=parts)
    except InputError as error:
        raise error.within(file=path) from None


def save_weights(net: nn.Module, path: str | Path, *, names: str = "ours") -> None:
    """Write the network's state dict; the file is whole or absent.

    Args:
        net: The network.
        path: Ends in .safetensors, or in .pth, .pt or .bin for `torch.save`.
        names: "ours", or "official": those of the head's repository; for "cls" timm's as well.

    Raises:
        InputError: The file name ends otherwise, it cannot be written, or no such names.
    """
    path = Path(path)
    if names not in ("ours", "official"):
        raise InputError("must be ours or official", key="names", value=names)
    if path.suffix not in (SAFE, *PICKLE):
        raise InputError(f"must end in {', '.join((SAFE, *PICKLE))}", file=path)
    state = {name: entry.detach().contiguous() for name, entry in net.state_dict().items()}
    if names == "official":
        state = {official_name(net, name): entry for name, entry in state.items()}
    buffer = io.BytesIO()
    if path.suffix != SAFE:
        torch.save(state, buffer)
    try:
        write_atomic(path, buffer.getvalue() or save(state))
    except OSError as error:
        raise InputError(f"cannot be written ({error.strerror})", file=path) from None


def _read(path: Path) -> State:
    """The state dict in a file."""
    if path.is_dir():
        raise InputError("is a folder, not a file", file=path)
    if not path.is_file():
        others = [other.name for other in path.parent.glob("*") if other.is_file()]
        raise InputError("is no file", file=path, nearest=nearest_name(path.name, others))
    read: Callable[[Path], Any] = partial(torch.load, map_location="cpu", weights_only=True)
    try:
        content = load_file(path) if path.suffix == SAFE else read(path)
    except Exception:  # the readers fail in many ways on a damaged file
        rule = "must hold a state dict alone, whole, and no objects that need unpickling"
        raise InputError(rule, file=path) from None
    held = [content.get(name) for name in CONTAINERS] if isinstance(content, Mapping) else []
    for state in (s for s in (content, *held) if isinstance(s, Mapping) and s):
        if all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
            return state
    raise InputError(f"must be a state dict, or hold one under {', '.join(CONTAINERS)}", file=path)


@torch.no_grad()
def load_state(net: nn.Module, state: State, *, parts: str = "all") -> Loaded:
    """Load a state dict; it is checked completely before anything is copied.

    With parts="all" every entry must match, but for a wrapper's `loss.*`, such as
    `loss.criterion.weight`, and other heads beside named parts, such as `rpn_head.*`. With
    parts="body" every entry of the network's body must match; heads are ignored, and branches
    and fusion rows that this network does without because nothing leads from there to its
    head, such as the last low-resolution outputs under head "v1".

    What is loaded are weights: dense tensors with data, of real numbers (floating-point ones
    where ours are), all of them finite in our data type.

    Args:
        net: The network; unchanged if anything is wrong.
        state: Names as in the table above, behind any of `WRAPPERS`.
        parts: "all" or "body".

    Raises:
        InputError: It does not fit, an entry holds no weights, or the network is on the meta
            device.
    """
    _check_arguments(net, parts)
    convention, names = _our_names(net, state)
    ours: State = net.state_dict()
    theirs = {name: state[original] for name, original in names.items()}
    for name in (name for name in theirs if name.startswith(PARTS[parts])):
        _check_kind(names[name], theirs[name], ours.get(name))
    differing = _differences(net, ours, theirs, parts)
    if differing:
        rule = _mismatch(differing)
        if isinstance(net, Network) and not _differences(net, ours, theirs, "body"):
            rule += "; to load the body alone: load_weights(..., parts='body')"
        raise InputError(rule)
    matched = [name for name in ours if name in theirs and name.startswith(PARTS[parts])]
    for name in matched:
        _check_values(names[name], theirs[name], ours[name])
    for name in matched:
        ours[name].copy_(theirs[name])
    missing = ours.keys() - set(matched)
    ignored = state.keys() - {names[name] for name in matched}
    return Loaded(convention, tuple(matched), *(tuple(sorted(s)) for s in (missing, ignored)))


def _check_arguments(net: nn.Module, parts: str) -> None:
    if parts not in PARTS or (parts == "body" and not isinstance(net, Network)):
        near = nearest_name(parts, PARTS) if parts not in PARTS else None
        rule = "must be all, or for an HRNet body"
        raise InputError(rule, key="parts", value=parts, nearest=near)
    if any(entry.is_meta for entry in net.state_dict().values()):
        raise InputError("the network must not be on the meta device, which keeps no values")


def _check_kind(name: str, entry: Any, ours: Tensor | None) -> None:
    """A dense tensor that has data, of real numbers, floating-point ones where ours are.

    Raises:
        InputError: It is not; `name` is the state's.
    """
    dense = isinstance(entry, Tensor) and entry.layout is torch.strided and not entry.is_nested
    if not dense:
        raise InputError("must be a dense tensor", key=name)
    if entry.is_meta:
        raise InputError("is on the meta device: it has no values", key=name)
    floating = ours is not None and ours.is_floating_point()
    if entry.is_complex() or entry.is_quantized or (floating and not entry.is_floating_point()):
        rule = f"must be of {'floating-point' if floating else 'real'} numbers, is {entry.dtype}"
        raise InputError(rule, key=name)


def _check_values(name: str, entry: Tensor, ours: Tensor) -> None:
    """Numbers that are finite, also in our data type."""
    dtype = ours.dtype if ours.is_floating_point() else torch.float64
    if not entry.to(dtype).isfinite().all():
        raise InputError(f"must be finite numbers in {dtype}, has infinite ones or NaN", key=name)


def _our_names(net: nn.Module, state: State) -> tuple[str, dict[str, str]]:
    """The convention, and our name -> the state's, without what is always ignored."""
    names = _unwrapped(state)
    firsts = {name.partition(".")[0] for name in names}
    if not isinstance(net, Network) or "body" in firsts:
        return "ours", names
    parts = "backbone" in firsts
    renamed: dict[str, str] = {}
    for name, original in names.items():
        ours = _from_part(name) if parts else f"{'body' if _BODY.match(name) else 'head'}.{name}"
        if ours in renamed:
            raise InputError(f"must not have both {renamed[ours]} and {original}")
        if ours:
            renamed[ours] = original
    return "parts" if parts else "official", renamed


def _unwrapped(state: State) -> dict[str, str]:
    """Name without wrappers -> the state's. A wrapper is around all entries but its losses."""
    names = {name: name for name in state}
    while True:
        names = {name: old for name, old in names.items() if not name.startswith("loss.")}
        around = [w for w in WRAPPERS if names and all(name.startswith(w) for name in names)]
        if not around:
            return names
        names = {name.removeprefix(around[0]): old for name, old in names.items()}


def _from_part(name: str) -> str:
    """Our name, or none for an entry that is ignored."""
    part, _, rest = name.partition(".")
    if part not in _PARTS:
        return "" if part.endswith("_head") else name
    rest = re.sub(r"^reduction_conv\.conv\.", "reduction_conv.0.", rest)  # mmdet's `hrfpn.py`
    rest = re.sub(r"^fpn_convs\.(\d+)\.conv\.", r"fpn_conv.\1.", rest)
    return f"{_PARTS[part]}.{rest}"


def _differences(net: nn.Module, ours: State, theirs: State, parts: str) -> list[Difference]:
    """Every entry that does not match, and is not tolerated."""
    dead = _dead_ends(net) if isinstance(net, Network) and parts == "body" else ()
    differing = []
    for name in (n for n in dict.fromkeys([*ours, *theirs]) if n.startswith(PARTS[parts])):
        mine, other = (tuple(s[name].shape) if name in s else "none" for s in (ours, theirs))
        old = other == "none" and name.endswith(".num_batches_tracked")
        tolerated = old or (mine == "none" and name.startswith(dead))
        if mine != other and not tolerated:
            differing.append((name, mine, other))
    return differing


def _mismatch(differing: list[Difference]) -> str:
    """Counts, and three examples, of each kind if there are several."""
    kinds = {
        "missing": [entry for entry in differing if entry[2] == "none"],
        "surplus": [entry for entry in differing if entry[1] == "none"],
        "of other shape": [entry for entry in differing if "none" not in entry],
    }
    counts = ", ".join(f"{len(group)} {kind}" for kind, group in kinds.items())
    mixed = [entry for row in zip_longest(*kinds.values()) for entry in row if entry]
    examples = ", ".join(f"{name} (ours {a}, theirs {b})" for name, a, b in mixed[:3])
    return f"must fit the network: {counts}: {examples}"


def _dead_ends(net: Network) -> tuple[str, ...]:
    """Beginnings of names of what changes no output, as nothing reads its map (`arch.pruned`)."""
    dead: list[str] = []
    needed = set(reads(net.spec, net.head_name))
    for index, stage in reversed(list(enumerate(net.spec.stages))):
        branches = set(range(MAX_BRANCHES))  # also those that the checkpoint alone has
        for place in reversed(range(stage.num_modules)):
            module = f"body.stage{index + 2}.{place}"
            dead += [f"{module}.fuse_layers.{i}." for i in branches - needed]
            needed |= {j for j, i in stage.modules[place].edges if i in needed}
            dead += [f"{module}.branches.{i}." for i in branches - needed]
        dead += [f"body.transition{index + 1}.{i}." for i in branches - needed]
        before = net.spec.stages[index - 1].num_branches if index else 1
        needed = {min(branch, before - 1) for branch in needed}
    return tuple(dead)


@dataclass(frozen=True)
class Inherited:
    """What `inherit_weights` did with each entry: copied it whole, copied a slice, or left it."""

    whole: tuple[str, ...]
    sliced: tuple[str, ...]
    left: tuple[str, ...]


@torch.no_grad()
def inherit_weights(net: Network, source: Network) -> Inherited:
    """Give a network the weights of a larger one, as far as that has them.

    Entries of the same name correspond, so fewer modules or residual units are the first ones.
    Of every width the leading channels are taken; where a layer sees several branches side by
    side (a head's first layer, fuse="concat"), those of each branch. An entry that is absent
    from the source, or smaller there, is left as it is, and so is a head of another name. From
    an equal network everything is copied.

    Args:
        net: The smaller network.
        source: The larger one; unchanged.

    Raises:
        InputError: Their branches have residual units of different kinds.
    """
    if net.spec.unit != source.spec.unit:
        raise InputError(f"is {source.spec.unit} in the source", key="unit", value=net.spec.unit)
    theirs, groups, wider = source.state_dict(), _groups(net), _groups(source)
    done: tuple[list[str], ...] = ([], [], [])
    for name, entry in net.state_dict().items():
        alike = name in theirs and (name.startswith("body.") or net.head_name == source.head_name)
        part = _part(theirs[name], entry, wider.get(name), groups.get(name)) if alike else None
        if part is not None:
            entry.copy_(part)
        done[2 if part is None else int(part.shape != theirs[name].shape)].append(name)
    return Inherited(*map(tuple, done))


def _groups(net: Network) -> dict[str, Groups]:
    """Entry -> the branches that its inputs come from, and how many from each."""
    maps = {branch: net.spec.channels[branch] for branch in reads(net.spec, net.head_name)}
    if net.head_name == "cls_ii":  # its layer sees every map after it was brought to this width
        maps = dict.fromkeys(maps, CLS_II_WIDTH)
    joined = [*_JOINED, "classifier"] if net.head_name in ("cls_i", "cls_ii") else [*_JOINED]
    if net.head_name == "v1hp":  # it sees one map, after it was widened
        joined.remove("reduction_conv.0")
    groups: dict[str, Groups] = {f"head.{layer}.weight": maps for layer in joined}
    for name, module in net.named_modules():
        if isinstance(module, FusionRow) and module.fuse == "concat":
            width = len(net.get_parameter(f"{name}.mix.0.weight"))
            groups[f"{name}.mix.0.weight"] = dict.fromkeys(module.sources, width)
        elif isinstance(module, FusionRow) and module.fuse == "weighted":
            groups[f"{name}.weight"] = dict.fromkeys(module.sources, 1)
    return groups


def _part(full: Tensor, like: Tensor, wide: Groups | None, groups: Groups | None) -> Tensor | None:
    """The part of `full` that `like` has room for, or None if there is no such part."""
    if full.ndim != like.ndim or full.shape[2:] != like.shape[2:]:
        return None  # a kernel has no leading part
    inputs = min(1, like.ndim - 1)  # the dimension that is in groups: the second of a weight
    for dim in range(min(2, like.ndim)):
        mine = groups if groups and dim == inputs else {0: like.shape[dim]}
        theirs = wide if wide and dim == inputs else {0: full.shape[dim]}
        if any(theirs.get(branch, 0) < width for branch, width in mine.items()):
            return None
        starts = dict(zip(theirs, accumulate(theirs.values(), initial=0), strict=False))
        full = torch.cat([full.narrow(dim, starts[b], width) for b, width in mine.items()], dim)
    return full
