"""The closed form of a network's cost against official counts, other counters and built networks.

    COST_SPECS=500 python -m pytest tests/test_cost.py

compares all random networks with fvcore too, which takes some minutes; by default 30 of them.
"""

import json
import os
import random
import subprocess
import sys
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis
from random_networks import Drawn, draw_network
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from hrnet_search.arch import ArchSpec, hrnet
from hrnet_search.cost import Cost, Tally, cost
from hrnet_search.errors import InputError
from hrnet_search.model import build
from hrnet_search.presets import preset

COUNTS = json.loads((Path(__file__).parent / "golden" / "counts" / "complexity.json").read_text())
SPECS = 500
CHUNK = 25
FVCORE_SPECS = int(os.environ.get("COST_SPECS", 30))
FVCORE_LAYERS = ("conv", "linear")
aten = torch.ops.aten


# --- outside figures ---------------------------------------------------------------------------


def official(row: dict[str, Any]) -> Cost:
    """Our cost of the network that a row of the official counts is about."""
    name: str = row["model"].replace("timm_hrnet", "cls").replace("_master", "")
    name = name.replace("w18_small", "w18_small_v1").replace("small_v1_v", "small_v")
    words = name.split("_")
    head = {"pose": "v1", "cls": "cls", "seg": "v2", "det": "v2p"}[words[0]]
    task = {"pose": "pose", "cls": "classification", "seg": "segmentation", "det": "detection"}
    head = "ocr" if "ocr" in words else head
    outputs = {"v1": 17, "cls": 1000, "v2p": 256}
    classes = int(words[-1][1:]) if words[0] == "seg" else outputs[head]
    width = next(word for word in words if word.startswith("w"))
    small = [word for word in words if word in ("small", "v1", "v2")]
    return cost(
        preset("-".join([width, *small]), task=task[words[0]]),
        head=head,
        num_outputs=classes,
        input_size=tuple(row["input"]),
    )


HRNETS = {
    f"{row['model']} {row['input']}": row for row in COUNTS if "pose_resnet" not in row["model"]
}


@pytest.mark.parametrize("name", HRNETS)
def test_costs_are_the_official_counts(name: str) -> None:
    row = HRNETS[name]
    ours, theirs = official(row), row["fvcore_by_operator"]
    assert ours.params == row["params"]
    assert ours.conv_macs == theirs["conv"]
    assert ours.linear_macs == theirs.get("linear", 0)
    assert ours.matmul_macs == theirs.get("matmul", 0)
    assert ours.macs + ours.matmul_macs == row["torch_flop_counter_macs"]
    counted = ("conv", "linear", "matmul")
    elementwise = sum(macs for operator, macs in theirs.items() if operator not in counted)
    assert ours.elementwise_macs == elementwise + not_counted_by_fvcore(row)


def not_counted_by_fvcore(row: dict[str, Any]) -> int:
    """Poolings of the official code, and the scale of OCR's scores."""
    height, width = (-(-side // 4) for side in row["input"])
    name = row["model"]
    if name.startswith("cls_"):  # 2048 features at stride 32; timm's pooling fvcore counts
        return 2048 * (row["input"][0] // 32) * (row["input"][1] // 32)
    if name.startswith("det_"):  # the map of 256 channels is pooled for each of four levels
        return 4 * 256 * height * width
    if "ocr" in name:
        return height * width * int(name.rpartition("_c")[2])
    return 0


def test_all_kinds_of_networks_are_among_the_official_counts() -> None:
    assert len(HRNETS) == 50
    kinds = {name.partition("_")[0] for name in HRNETS} | {n for n in HRNETS if "ocr" in n}
    assert {"pose", "cls", "timm", "seg", "det", "seg_ocr_w48_c19 [1024, 2048]"} <= kinds


def test_ocr_of_a_cityscapes_image_multiplies_activations_as_often_as_counted() -> None:
    ours = official(HRNETS["seg_ocr_w48_c19 [1024, 2048]"])
    assert ours.matmul_macs == 2_550_136_832  # 256 * 512 places, 19 classes, 512 + 256 + 256


@pytest.mark.parametrize(
    ("width", "flags", "millions", "gmacs"),
    [  # Table 12; counted with fvcore on the official code with fuse layers removed
        (32, {"within": False, "across": False}, 26.332, 7.264),
        (32, {"within": False}, 26.506, 7.326),
        (32, {}, 28.536, 7.645),
        (48, {"within": False, "across": False}, 58.645, 14.835),
        (48, {"within": False}, 59.036, 14.974),
        (48, {}, 63.596, 15.692),
    ],
)
def test_the_arms_of_table_12_cost_what_is_measured(
    width: int, flags: dict[str, bool], millions: float, gmacs: float
) -> None:
    spec = hrnet(width=width, **flags)
    ours = cost(spec, head="v1", num_outputs=17, input_size=(256, 192))
    assert round(ours.params / 1e6, 3) == millions
    assert round(ours.macs / 1e9, 3) == gmacs


# --- random networks ---------------------------------------------------------------------------


class Watch(TorchDispatchMode):
    """Operators of a forward pass: multiply-adds, how many, and the longest way through layers.

    Multiply-adds are those of `torch.utils.flop_counter`. Views (`view`, `transpose`, `t`,
    `unsqueeze`: whatever puts out its input's memory unchanged) and `empty` are not counted.
    """

    LAYERS = (aten.convolution, aten.addmm, aten.mm)

    def __init__(self) -> None:
        super().__init__()
        self.macs: dict[Any, int] = {}
        self.kernels = 0
        self.depths: dict[int, tuple[Tensor, int]] = {}  # holds tensors, so that no id returns

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        operator = func.overloadpacket
        if operator in flop_registry:
            flops = flop_registry[operator](*args, **(kwargs or {}), out_val=out)
            self.macs[operator] = self.macs.get(operator, 0) + flops // 2
        self.kernels += not func.is_view and operator is not aten.empty
        depth = max((self.depth(x) for x in tree_leaves((args, kwargs))), default=0)
        for x in tree_leaves(out):
            self.depths[id(x)] = (x, depth + (operator in self.LAYERS))
        return out

    def depth(self, x: object) -> int:
        return self.depths[id(x)][1] if id(x) in self.depths else 0


def watched(net: nn.Module, x: Tensor) -> tuple[Watch, int]:
    watch = Watch()
    with torch.no_grad(), watch:
        out = net(x)
    return watch, max(watch.depth(y) for y in tree_leaves(out))


def built(spec: ArchSpec, head: str, num_outputs: int) -> nn.Module:
    """The network with arbitrary weights, as initial ones are not worth their time here."""
    with ExitStack() as stack:
        for kind in (nn.modules.conv._ConvNd, nn.BatchNorm2d, nn.Linear):
            stack.enter_context(mock.patch.object(kind, "reset_parameters"))
        return build(spec, head=head, num_outputs=num_outputs).eval()


def drawn(number: int) -> Drawn:
    return draw_network(random.Random(number))


def cost_of(network: Drawn) -> Cost:
    return cost(
        network.spec,
        head=network.head,
        num_outputs=network.num_outputs,
        input_size=network.input_size,
    )


@pytest.mark.parametrize("first", range(0, SPECS, CHUNK))
def test_costs_of_random_networks_are_those_of_what_is_built(first: int) -> None:
    for number in range(first, first + CHUNK):
        network = drawn(number)
        ours = cost_of(network)
        net = built(network.spec, network.head, network.num_outputs)
        watch, depth = watched(net, torch.zeros(1, 3, *network.input_size))
        linear = watch.macs.get(aten.addmm, 0) + watch.macs.get(aten.mm, 0)
        assert ours.params == sum(p.numel() for p in net.parameters()), network
        assert ours.conv_macs == watch.macs[aten.convolution], network
        assert ours.linear_macs == linear, network
        assert ours.matmul_macs == watch.macs.get(aten.bmm, 0), network
        assert ours.kernels == watch.kernels, network
        assert ours.depth == depth, network


@pytest.mark.parametrize("first", range(0, SPECS, SPECS // 10))
def test_costs_of_random_networks_are_those_that_fvcore_counts(first: int) -> None:
    for number in range(first, first + FVCORE_SPECS // 10):
        network = drawn(number)
        ours = cost_of(network)
        net = built(network.spec, network.head, network.num_outputs)
        image = torch.zeros(1, 3, *network.input_size)
        macs, activations = by_fvcore(net, image)
        assert ours.conv_macs == macs["conv"], network
        assert ours.linear_macs == macs.get("linear", 0), network
        assert ours.matmul_macs == macs.get("matmul", 0) + macs.get("bmm", 0), network
        assert ours.activations == sum(activations.get(name, 0) for name in FVCORE_LAYERS), network
        if counts_alike(network):
            counted = ("conv", "linear", "matmul", "bmm")
            rest = sum(number for name, number in macs.items() if name not in counted)
            assert ours.elementwise_macs == rest, network
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            net(image)
        assert 2 * (ours.macs + ours.matmul_macs) == counter.get_total_flops(), network


def counts_alike(network: Drawn) -> bool:
    """Without products of maps and fixed-size pooling, which fvcore leaves out."""
    return (
        network.spec.fuse in ("sum", "concat")
        and network.spec.downsample != "avg_pool"
        and network.head not in ("ocr", "v1p", "v1hp", "v2p", "v2p_s2")
    )


def by_fvcore(net: nn.Module, image: Tensor) -> tuple[dict[str, int], dict[str, int]]:
    """Operator -> multiply-adds and activations."""
    results = []
    for kind in (FlopCountAnalysis, ActivationCountAnalysis):
        analysis = kind(net, image)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.tracer_warnings("none")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results.append(dict(analysis.by_operator()))
    return results[0], results[1]


@pytest.mark.parametrize("branch", [1, 2])
@pytest.mark.parametrize("head", ["v1p", "v1hp"])
def test_a_pyramid_of_a_lower_map_costs_what_torch_counts(head: str, branch: int) -> None:
    """Random networks have theirs of the highest resolution alone."""
    spec = hrnet(width=8, num_modules=1, num_blocks=1, output_branch=branch)
    net = build(spec, head=head, num_outputs=16).eval()
    found = cost(spec, head=head, num_outputs=16, input_size=(256, 320))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        net(torch.zeros(1, 3, 256, 320))
    assert 2 * found.macs == counter.get_total_flops()
    assert found.params == sum(p.numel() for p in net.parameters())


def test_the_random_networks_cover_every_option() -> None:
    networks = [drawn(number) for number in range(SPECS)]
    assert {network.head for network in networks} == {
        *("v1", "v1h", "v2", "ocr", "v1p", "v1hp", "v2p", "v2p_s2", "v2r"),
        *("cls", "cls_i", "cls_ii"),
    }
    specs = [network.spec for network in networks]
    assert {spec.fuse for spec in specs} == {"sum", "multiply", "concat", "weighted"}
    assert {spec.upsample for spec in specs} == {"nearest", "bilinear"}
    assert {spec.projection for spec in specs} == {"before", "after"}
    assert {spec.downsample for spec in specs} == {"strided_conv", "bilinear", "avg_pool"}
    assert {spec.unit for spec in specs} == {"basic", "bottleneck"}
    assert {len(spec.stages) for spec in specs} == {1, 2, 3, 4}
    assert {len(spec.channels) for spec in specs} == {1, 2, 3, 4, 5, 6}
    assert len({spec.key for spec in specs}) > 0.99 * SPECS


# --- where costs arise -------------------------------------------------------------------------


def total(tallies: Any) -> Tally:
    return Tally(*map(sum, zip(*tallies, strict=True)))


@pytest.mark.parametrize("number", range(20))
def test_parts_sum_to_the_whole(number: int) -> None:
    ours = cost_of(drawn(number))
    assert total(part.tally for part in ours.parts) == ours.total
    assert total(ours.by_stage().values()) == ours.total


def test_shares_of_w32_are_the_sums_done_by_hand() -> None:
    ours = cost(hrnet(), head="v1", num_outputs=17, input_size=(256, 192))
    stages = ours.by_stage()
    assert list(stages) == [
        *("stem", "stage1", "transition1", "stage2", "transition2", "stage3", "transition3"),
        *("stage4", "head"),
    ]
    assert stages["stem"].params == 27 * 64 + 128 + 9 * 64 * 64 + 128
    assert stages["stem"].conv_macs == 27 * 64 * 128 * 96 + 9 * 64 * 64 * 64 * 48
    assert stages["head"].params == 33 * 17
    assert stages["head"].conv_macs == 32 * 17 * 64 * 48
    assert stages["transition1"].params == 9 * 256 * (32 + 64) + 2 * (32 + 64)
    edges = ours.by_edge()
    assert len(edges) == 12
    # Eight modules lead from branch 1 to 0; of branch 1's own maps the last one is not read.
    assert edges[1, 0].params == 8 * (64 * 32 + 64)
    assert edges[0, 1].params == 7 * (9 * 32 * 64 + 128)
    assert edges[0, 1].conv_macs == 7 * 9 * 32 * 64 * 32 * 24
    assert edges[3, 0].params == 3 * (256 * 32 + 64)
    assert edges[0, 3].params == 2 * (9 * 32 * (32 + 32 + 256) + 64 + 64 + 512)
    branches = ours.by_branch()
    units = 3 * 4 * (2 * 9 * 256 * 256 + 4 * 256)  # three modules of four units
    down = 9 * 128 * 256 + 512  # the transition
    leading = sum(edges[source, 3].params for source in range(3))
    assert branches[3].params == units + down + leading
    assert total(part.tally for part in ours.parts if part.branch is not None) == total(
        branches.values()
    )


# --- refusals ----------------------------------------------------------------------------------

PAIR = "must be (height, width) in pixels"
COUNT = "must be a whole number of at least 1"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"head": "v2pp"},
            "head: 'v2pp': must be one of v1, v1h, v2, ocr, v1p, v1hp, v2p, v2p_s2, v2r, cls, "
            "cls_i, cls_ii; did you mean 'v2p'?",
        ),
        ({"num_outputs": 0}, f"num_outputs: 0: {COUNT}"),
        ({"num_outputs": True}, f"num_outputs: True: {COUNT}"),
        ({"num_outputs": 17.0}, f"num_outputs: 17.0: {COUNT}"),
        (
            {"input_size": (256.0, 192)},
            f"input_size: (256.0, 192): {PAIR}",
        ),
        (
            {"input_size": (256, 192, 3)},
            f"input_size: (256, 192, 3): {PAIR}",
        ),
        ({"input_size": 256}, f"input_size: 256: {PAIR}"),
        (
            {"input_size": (256, 0)},
            "input_size: (256, 0): must be at least 32 x 32 pixels for this network and head v1",
        ),
        (
            {"input_size": (256, 31)},
            "input_size: (256, 31): must be at least 32 x 32 pixels for this network and head v1",
        ),
        (
            {"input_size": (63, 64), "head": "v2p"},
            "input_size: (63, 64): must be at least 64 x 64 pixels for this network and head v2p",
        ),
    ],
)
def test_bad_input_gets_one_line(given: dict[str, Any], text: str) -> None:
    arguments = {"head": "v1", "num_outputs": 17, "input_size": (256, 192), **given}
    with pytest.raises(InputError) as caught:
        cost(hrnet(), **arguments)
    assert str(caught.value) == text


def test_the_cost_needs_no_torch() -> None:
    code = (
        "import sys; from hrnet_search.arch import hrnet; from hrnet_search.cost import cost; "
        "print(cost(hrnet(), head='v1', num_outputs=17, input_size=(256, 192)).macs, "
        "'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["7645003776", "False"]
