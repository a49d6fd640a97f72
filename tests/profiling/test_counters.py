"""Multiply-adds against the official counts, other counters, and sums done by hand."""

import importlib.util
from typing import Any

import pytest
import torch
from small_networks import VARIED, W32_POSE_256X192, cost_of, network, tiny
from torch import Tensor, nn
from torch.nn import functional as F

from hrnet_search.arch import hrnet
from hrnet_search.cost import cost
from hrnet_search.model import build
from hrnet_search.profiling import counters as module
from hrnet_search.profiling.base import meta_copy
from hrnet_search.profiling.counters import (
    TOOLS,
    Count,
    count_closed_form,
    count_flop_counter,
    count_fvcore,
    count_ptflops_aten,
    count_ptflops_pytorch,
    counts,
)
from hrnet_search.profiling.memory import peak_memory

SMALL_V1_SEGMENTATION_1024X2048 = 33_390_854_144  # as W32_POSE_256X192
SMALL_V1 = hrnet(
    width=16, num_modules=1, num_blocks=2, stage1_blocks=1, stage1_width=32, upsample="bilinear"
)


def by_tool(net: nn.Module, size: tuple[int, int]) -> dict[str, Count]:
    return dict(zip(TOOLS, counts(net, size), strict=True))


def test_multiply_adds_of_w32_are_the_official_count() -> None:
    with torch.device("meta"):
        net = build(hrnet(), head="v1", num_outputs=17)
    assert count_flop_counter(net, (256, 192)).total == W32_POSE_256X192
    closed = cost(hrnet(), head="v1", num_outputs=17, input_size=(256, 192))
    assert closed.macs == W32_POSE_256X192


def test_multiply_adds_of_small_v1_segmentation_are_the_official_count() -> None:
    # A sixteenth of the area: every map of either input is a whole multiple of its stride.
    net = build(SMALL_V1, head="v2", num_outputs=19)
    assert count_fvcore(net, (256, 512)).conv * 16 == SMALL_V1_SEGMENTATION_1024X2048


@pytest.mark.parametrize("name", VARIED)
def test_closed_form_fvcore_and_torchs_own_counter_agree_to_the_unit(name: str) -> None:
    net, size = network(name), (67, 83)
    found = (
        count_closed_form(cost_of(name, size)),
        count_fvcore(net, size),
        count_flop_counter(net, size),
    )
    first, *others = ((count.conv, count.linear, count.matmul) for count in found)
    assert others == [first, first]
    assert found[2].total == sum(first)
    assert (first[2] > 0) == (name == "ocr")


@pytest.mark.parametrize("name", ["v2", "ocr", "v2p", "cls"])
def test_ptflops_counts_biases_too_and_its_pytorch_backend_more(name: str) -> None:
    pytest.importorskip("ptflops")
    net, size = network(name), (64, 64)
    closed = count_closed_form(cost_of(name, size))
    aten, modules = count_ptflops_aten(net, size), count_ptflops_pytorch(net, size)
    assert 1 <= aten.total / closed.total < 1.03  # the tiny networks' biases
    assert aten.conv == modules.conv
    assert aten.total < modules.total


def test_ptflops_agrees_to_two_per_cent_for_a_network_of_usual_width() -> None:
    pytest.importorskip("ptflops")
    spec = hrnet(width=32, num_modules=1, num_blocks=2, stage1_blocks=1, num_stages=2)
    found = by_tool(build(spec, head="v1", num_outputs=5), (64, 64))
    torch_count = found["torch.utils.flop_counter"].total
    assert found["ptflops, pytorch"].total == pytest.approx(torch_count, rel=0.02)
    assert found["ptflops, aten"].total == pytest.approx(torch_count, rel=1e-3)


class Corner(nn.Module):
    """Every tool skips some of it: two sums, a cumulated sum, three ReLUs of two kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.norm = nn.BatchNorm2d(2)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> dict[str, Any]:
        y = F.relu(F.relu(self.relu(self.norm(self.conv(x))), inplace=True))
        return {"sum": y + y, "rest": [torch.cumsum(y, dim=-1) + 1, torch.cat([y, y]).softmax(1)]}


def test_every_skipped_operator_is_named_with_how_often_it_ran() -> None:
    found = by_tool(Corner(), (8, 8))
    rest = {"add": 2, "cumsum": 1}
    rules = {"relu": 2, "relu_": 1, "cat": 1}
    assert found["fvcore"].skipped == rest | rules | {"softmax": 1}
    dispatched = rest | rules | {"_softmax": 1, "native_batch_norm": 1}
    assert found["torch.utils.flop_counter"].skipped == dispatched
    if importlib.util.find_spec("ptflops"):
        assert found["ptflops, aten"].skipped == dispatched
        left = rest | {"cat": 1, "_softmax": 1}  # functions that it patches count, methods do not
        assert found["ptflops, pytorch"].skipped == left


def test_shares_are_named_as_the_tool_names_them() -> None:
    places = 64
    found = by_tool(Corner(), (8, 8))
    assert found["fvcore"].by_operator == {"conv": 6 * places, "batch_norm": 4 * places}
    assert found["torch.utils.flop_counter"].by_operator == {"convolution": 6 * places}
    if importlib.util.find_spec("ptflops"):
        assert found["ptflops, aten"].by_operator == {"convolution": 8 * places}
        shares = found["ptflops, pytorch"].by_operator
        assert shares["Conv2d"] == 8 * places
        assert shares["relu"] == 3 * 2 * places  # the module's is counted as a function too:
        assert shares["ReLU"] == 2 * places


def test_a_tool_that_is_missing_or_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(net: nn.Module, size: tuple[int, int]) -> Count:
        raise RuntimeError("no such luck\nsecond line")

    tools = {"other": ("torch", fail), "absent": ("no_such_package", fail)}
    monkeypatch.setattr(module, "TOOLS", tools)
    failed, absent = counts(Corner(), (8, 8))
    assert failed.missing == "failed: RuntimeError: no such luck"
    assert absent.missing == "not installed: pip install no_such_package"
    assert (failed.total, absent.total) == (0, 0)


def test_counting_leaves_the_network_as_it_was() -> None:
    net = network("v1")
    before = {name: set(vars(module)) for name, module in net.named_modules()}
    counts(net, (64, 64))
    peak_memory(net, (64, 64))
    assert {name: set(vars(module)) for name, module in net.named_modules()} == before
    assert all(m.training and not m._forward_hooks for m in net.modules())
    assert all(p.device.type == "cpu" and p.grad is None for p in net.parameters())


def test_a_meta_copy_keeps_shared_parameters_shared() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    copied = meta_copy(net)
    assert copied[1].weight is copied[0].weight  # type: ignore[index]
    assert {p.device.type for p in copied.parameters()} == {"meta"}


def test_without_a_closed_form_torchs_counter_counts_what_is_done() -> None:
    spec = tiny(num_stages=2)
    closed = cost(spec, head="v1", num_outputs=5, input_size=(64, 48))
    net = build(spec, head="v1", num_outputs=5)
    assert count_flop_counter(net, (64, 48)).conv == closed.macs
    deconvolution = nn.ConvTranspose2d(3, 8, 4, stride=2, padding=1)
    assert count_flop_counter(deconvolution, (16, 16)).conv == 3 * 8 * 16 * 16 * 16
