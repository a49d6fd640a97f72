"""What a study records of a network's cost."""

import importlib
import sys
from typing import Any
from unittest import mock

import pytest
from small_networks import W32_POSE_256X192, tiny

from hrnet_search import profiling
from hrnet_search.cost import PAPER_GFLOP, cost
from hrnet_search.errors import InputError
from hrnet_search.model import build
from hrnet_search.profiling import profile
from hrnet_search.profiling.counters import count_fvcore
from hrnet_search.profiling.memory import peak_memory
from hrnet_search.result import METRICS
from hrnet_search.rivals import RIVALS


def test_profile_has_every_cost_in_base_units() -> None:
    spec = tiny(num_stages=2)
    costs = profile(spec, head="v1", num_outputs=5, input_size=(64, 48))
    assert {f"profile.{name}" for name in costs} == {k for k in METRICS if k.startswith("profile")}
    net = build(spec, head="v1", num_outputs=5)
    assert costs["params"] == sum(p.numel() for p in net.parameters())
    assert costs["macs"] == count_fvcore(net, (64, 48)).conv
    assert costs["paper_gflops"] == costs["macs"] / 2**30
    closed = cost(spec, head="v1", num_outputs=5, input_size=(64, 48))
    for name in ("params", "macs", "activations", "kernels", "depth", "memory"):
        assert costs[name] == getattr(closed, name)
    assert costs["memory"] == pytest.approx(peak_memory(net, (64, 48)), rel=0.04)
    assert 0 < costs["latency"] < 10


def test_a_rival_is_profiled_with_its_own_head(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision")
    monkeypatch.setattr(profiling, "median_latency", lambda net, size: 0.5)
    rival = RIVALS["simple_baseline_resnet50"]
    costs = profile(rival, head="v1", num_outputs=17, input_size=(256, 192))
    assert round(costs["paper_gflops"], 3) == 5.054  # what is done, see docs/counting.md
    assert costs["params"] == 33_999_697  # the official code's
    keys = {"params", "macs", "paper_gflops", "memory", "latency"}
    assert set(costs) == keys
    closed = profile(tiny(num_stages=2), head="v1", num_outputs=5, input_size=(64, 48))
    assert set(closed) - keys == {"activations", "kernels", "depth"}


def test_the_papers_gflops_of_w32_are_the_printed_figure() -> None:
    # Table 1 prints 7.1; the official code measures 7.120.
    assert round(W32_POSE_256X192 / PAPER_GFLOP, 2) == 7.12
    assert METRICS["profile.paper_gflops"].show(W32_POSE_256X192 / PAPER_GFLOP) == "7.12"


def test_a_lowest_map_of_one_pixel_can_be_profiled() -> None:
    costs = profile(tiny(), head="v1", num_outputs=17, input_size=(32, 32))
    assert costs["memory"] > 2 * 4 * costs["params"]  # parameters and gradients, four bytes each


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_size": (31, 64)}, "input_size: (31, 64): must be at least 32 x 32 pixels"),
        ({"head": "v3"}, "head: 'v3': must be one of v1, "),
        ({"num_outputs": 0}, "num_outputs: 0: must be a whole number of at least 1"),
    ],
)
def test_bad_input_is_refused_before_anything_is_measured(
    changes: dict[str, Any], message: str
) -> None:
    arguments = {"head": "v1", "num_outputs": 5, "input_size": (64, 64), **changes}
    with pytest.raises(InputError) as caught:
        profile(tiny(), **arguments)
    assert str(caught.value).startswith(message)


def test_importing_it_imports_no_tool() -> None:
    tools = ("fvcore", "ptflops", "onnx", "onnxruntime", "torchvision", "timm", "pydantic")
    with mock.patch.dict(sys.modules):
        for name in [name for name in sys.modules if name.split(".")[0] == "hrnet_search"]:
            del sys.modules[name]
        sys.modules.update(dict.fromkeys(tools))  # importing them fails
        assert importlib.import_module("hrnet_search.profiling") is not profiling
