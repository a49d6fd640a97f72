"""Costs against the official counts, other counters, and sums done by hand."""

import importlib.util
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hrnet_search import profiling
from hrnet_search.arch import ArchSpec, hrnet
from hrnet_search.cost import Cost, cost
from hrnet_search.errors import InputError
from hrnet_search.model import build
from hrnet_search.profiling import (
    Count,
    closed_form,
    count_flop_counter,
    count_fvcore,
    count_ptflops_aten,
    count_ptflops_pytorch,
    counters,
    latency,
    measure,
    memory,
    meta_copy,
    peak_memory,
    profile,
    profile_network,
    render,
)
from hrnet_search.result import METRICS
from hrnet_search.rivals import RIVALS

# Multiply-adds of convolutions and linear layers by the official code's `get_model_summary`.
W32_POSE_256X192 = 7_645_003_776
SMALL_V1_SEGMENTATION_1024X2048 = 33_390_854_144
SMALL_V1 = hrnet(
    width=16, num_modules=1, num_blocks=2, stage1_blocks=1, stage1_width=32, upsample="bilinear"
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(**arguments: Any) -> ArchSpec:
    small = {"width": 4, "num_modules": 1, "num_blocks": 1}
    return hrnet(**{**small, "stage1_blocks": 1, "stage1_width": 4, "stem_width": 8, **arguments})


VARIED = {  # head, spec
    "v1": ("v1", tiny(width=5, num_stages=3)),
    "v2": ("v2", tiny(width=[4, 6, 8], num_stages=3, upsample="bilinear", within=False)),
    "v2 corners": ("v2", tiny(width=7, num_stages=2, upsample="bilinear", align_corners=True)),
    "ocr": ("ocr", tiny(num_stages=2, upsample="bilinear")),
    "v2p": ("v2p", tiny(num_stages=3, fuse="concat")),
    "cls": ("cls", tiny(num_stages=2)),
    "cls_i": ("cls_i", tiny(num_stages=3, output_bias=False, fuse="weighted")),
}


def network(name: str, num_outputs: int = 5) -> nn.Module:
    head, spec = VARIED[name]
    return build(spec, head=head, num_outputs=num_outputs)


def cost_of(name: str, size: tuple[int, int], num_outputs: int = 5) -> Cost:
    head, spec = VARIED[name]
    return cost(spec, head=head, num_outputs=num_outputs, input_size=size)


def by_tool(net: nn.Module, size: tuple[int, int]) -> dict[str, Count]:
    return dict(zip(profiling.TOOLS, counters(net, size), strict=True))


# --- multiply-adds -------------------------------------------------------------------------------


def test_multiply_adds_of_w32_are_the_official_count() -> None:
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
    counts = (
        closed_form(cost_of(name, size)),
        count_fvcore(net, size),
        count_flop_counter(net, size),
    )
    first, *others = ((count.conv, count.linear, count.matmul) for count in counts)
    assert others == [first, first]
    assert counts[2].total == sum(first)
    assert (first[2] > 0) == (name == "ocr")


@pytest.mark.parametrize("name", ["v2", "ocr", "v2p", "cls"])
def test_ptflops_counts_biases_too_and_its_pytorch_backend_more(name: str) -> None:
    pytest.importorskip("ptflops")
    net, size = network(name), (64, 64)
    closed = closed_form(cost_of(name, size))
    aten, modules = count_ptflops_aten(net, size), count_ptflops_pytorch(net, size)
    assert 1 <= aten.total / closed.total < 1.03  # the tiny networks' biases
    assert aten.conv == modules.conv
    assert aten.total < modules.total


def test_ptflops_agrees_to_two_per_cent_for_a_network_of_usual_width() -> None:
    pytest.importorskip("ptflops")
    spec = hrnet(width=32, num_modules=1, num_blocks=2, stage1_blocks=1, num_stages=2)
    counts = by_tool(build(spec, head="v1", num_outputs=5), (64, 64))
    torch_count = counts["torch.utils.flop_counter"].total
    assert counts["ptflops, pytorch"].total == pytest.approx(torch_count, rel=0.02)
    assert counts["ptflops, aten"].total == pytest.approx(torch_count, rel=1e-3)


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
    counts = by_tool(Corner(), (8, 8))
    rest = {"add": 2, "cumsum": 1}
    rules = {"relu": 2, "relu_": 1, "cat": 1}
    assert counts["fvcore"].skipped == rest | rules | {"softmax": 1}
    dispatched = rest | rules | {"_softmax": 1, "native_batch_norm": 1}
    assert counts["torch.utils.flop_counter"].skipped == dispatched
    if importlib.util.find_spec("ptflops"):
        assert counts["ptflops, aten"].skipped == dispatched
        left = rest | {"cat": 1, "_softmax": 1}  # functions that it patches count, methods do not
        assert counts["ptflops, pytorch"].skipped == left


def test_shares_are_named_as_the_tool_names_them() -> None:
    places = 64
    counts = by_tool(Corner(), (8, 8))
    assert counts["fvcore"].by_operator == {"conv": 6 * places, "batch_norm": 4 * places}
    assert counts["torch.utils.flop_counter"].by_operator == {"convolution": 6 * places}
    if importlib.util.find_spec("ptflops"):
        assert counts["ptflops, aten"].by_operator == {"convolution": 8 * places}
        shares = counts["ptflops, pytorch"].by_operator
        assert shares["Conv2d"] == 8 * places
        assert shares["relu"] == 3 * 2 * places  # the module's is counted as a function too:
        assert shares["ReLU"] == 2 * places


def test_a_tool_that_is_missing_or_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(net: nn.Module, size: tuple[int, int]) -> Count:
        raise RuntimeError("no such luck\nsecond line")

    tools = {"other": ("torch", fail), "absent": ("no_such_package", fail)}
    monkeypatch.setattr(profiling, "TOOLS", tools)
    failed, absent = counters(Corner(), (8, 8))
    assert failed.missing == "failed: RuntimeError: no such luck"
    assert absent.missing == "not installed: pip install no_such_package"
    assert (failed.total, absent.total) == (0, 0)


def test_counting_leaves_the_network_as_it_was() -> None:
    net = network("v1")
    before = {name: set(vars(module)) for name, module in net.named_modules()}
    counters(net, (64, 64))
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


# --- what a study records ------------------------------------------------------------------------


def test_profile_has_every_cost_in_base_units() -> None:
    spec = tiny(num_stages=2)
    costs = profile(spec, head="v1", num_outputs=5, input_size=(64, 48))
    assert {f"profile.{name}" for name in costs} == {k for k in METRICS if k.startswith("profile")}
    net = build(spec, head="v1", num_outputs=5)
    assert costs["params"] == sum(p.numel() for p in net.parameters())
    assert costs["macs"] == count_fvcore(net, (64, 48)).conv
    assert costs["paper_gflops"] == costs["macs"] / 2**30
    assert costs["memory"] == peak_memory(net, (64, 48))
    assert 0 < costs["latency"] < 10


def test_a_network_without_a_closed_form_is_profiled_by_counting() -> None:
    spec = tiny(num_stages=2)
    closed = profile(spec, head="v1", num_outputs=5, input_size=(64, 48))
    counted = profile_network(build(spec, head="v1", num_outputs=5), (64, 48))
    for key in ("params", "macs", "paper_gflops", "memory"):
        assert counted[key] == closed[key]
    assert set(closed) - set(counted) == {"activations", "kernels", "depth"}
    deconvolution = nn.ConvTranspose2d(3, 8, 4, stride=2, padding=1)
    assert profile_network(deconvolution, (16, 16))["macs"] == 3 * 8 * 16 * 16 * 16


def test_a_rival_is_profiled_with_its_own_head(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision")
    monkeypatch.setattr(profiling, "latency", lambda net, image: 0.5)
    rival = RIVALS["simple_baseline_resnet50"]
    costs = profile(rival, head="v1", num_outputs=17, input_size=(256, 192))
    assert round(costs["paper_gflops"], 3) == 5.054  # what is done, see docs/counting.md
    assert costs["params"] == 33_999_697  # the official code's


def test_the_papers_gflops_of_w32_are_the_printed_figure() -> None:
    # Table 1 prints 7.1; the official code measures 7.120.
    assert round(W32_POSE_256X192 / profiling.PAPER_GFLOP, 2) == 7.12
    assert METRICS["profile.paper_gflops"].show(W32_POSE_256X192 / profiling.PAPER_GFLOP) == "7.12"


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


# --- memory --------------------------------------------------------------------------------------


def peak(spec: ArchSpec, *, size: int = 64, batch: int = 1, head: str = "v1") -> int:
    net = build(spec, head=head, num_outputs=5)
    return peak_memory(net, (size, size), batch=batch)


def test_peak_memory_of_one_convolution_is_the_sum_done_by_hand() -> None:
    net = nn.Conv2d(3, 8, 1, bias=False)
    # All are alive when the sum is taken; then the output goes before any gradient is made.
    weights, image, output, total = 8 * 3, 3 * 16 * 16, 8 * 16 * 16, 1
    assert peak_memory(net, (16, 16)) == 4 * (weights + image + output + total)
    assert peak_memory(net, (16, 16), training=False) == 4 * (weights + image + output)


@pytest.mark.parametrize("head", ["v1", "v2"])
def test_peak_memory_agrees_with_torchs_tracker(head: str) -> None:
    from torch.distributed._tools.mem_tracker import MemTracker

    spec = tiny(num_stages=3)
    net = build(spec, head=head, num_outputs=5)
    tracker = MemTracker()
    tracker.track_external(net)
    with tracker:
        net(torch.randn(1, 3, 64, 64)).sum().backward()
    (found,) = tracker.get_tracker_snapshot("peak").values()
    assert peak(spec, head=head) == pytest.approx(found["Total"], rel=0.01)


def test_peak_memory_holds_parameters_and_gradients_and_grows_with_what_is_processed() -> None:
    spec = tiny(num_stages=3)
    params = sum(p.numel() for p in build(spec, head="v1", num_outputs=5).parameters())
    assert peak(spec) > 2 * 4 * params
    small, middle, large = (peak(spec, size=size) for size in (128, 256, 512))
    assert large - middle == pytest.approx(4 * (middle - small), rel=0.05)  # as the area grows
    pair, triple = peak(spec, size=128, batch=2), peak(spec, size=128, batch=3)
    assert triple - pair == pytest.approx(pair - small, rel=0.05)
    assert peak(tiny(num_stages=3, num_blocks=2), size=128) > small
    assert peak(tiny(num_stages=3, within=False, across=False, final=False), size=128) < small


def test_peak_memory_takes_no_memory() -> None:
    import resource

    net = build(tiny(width=32), head="v1", num_outputs=5)
    peak_memory(net, (64, 64))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    counted = peak_memory(net, (2048, 2048))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < counted / 4


@pytest.mark.parametrize("name", ["v1", "ocr", "v2p", "cls"])
def test_the_estimate_is_what_a_real_pass_holds(name: str) -> None:
    # BatchNorm in training keeps its statistics and OCR's dropout a map beside those.
    rows = memory(network(name), (128, 128), process=False)
    found = {(row.step, row.method): row.nbytes or 0 for row in rows}
    assert found["training", "meta device"] == pytest.approx(found["training", "tensors"], rel=0.03)
    assert found["inference", "meta device"] == found["inference", "tensors"]
    assert found["inference", "tensors"] < found["training", "tensors"]


def test_a_pass_in_a_new_process_takes_what_its_tensors_take_and_more() -> None:
    net = build(tiny(num_stages=2, width=16, stem_width=32), head="v1", num_outputs=5)
    estimate = peak_memory(net, (512, 512))
    found = profiling._process_peak(net, (512, 512), True)
    if os.path.exists("/proc/self/status"):
        assert 0.9 * estimate < found < 3 * estimate + 128 * profiling.MIB


def test_what_does_not_fit_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "_free_bytes", lambda: 1000)
    rows = [row for row in memory(network("v1"), (64, 64)) if row.method != "meta device"]
    assert [row.nbytes for row in rows] == [None] * 4
    assert all(row.missing.startswith("needs more than ") for row in rows)


# --- latency -------------------------------------------------------------------------------------


def test_latency_is_measured_on_one_thread_and_the_threads_are_restored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = []

    class Watch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            threads.append((torch.get_num_threads(), torch.is_inference_mode_enabled()))
            assert x.is_contiguous(memory_format=torch.channels_last)
            return x

    torch.set_num_threads(2)
    seconds = latency(Watch(), torch.zeros(1, 3, 32, 32))
    assert torch.get_num_threads() == 2
    assert seconds > 0
    assert threads == [(1, True)] * (profiling.WARM_UP + profiling.REPEATS)


def test_threads_are_restored_when_the_network_fails() -> None:
    torch.set_num_threads(2)
    with pytest.raises(NotImplementedError):
        latency(nn.Module(), torch.zeros(1, 3, 32, 32))
    assert torch.get_num_threads() == 2


def clock(monkeypatch: pytest.MonkeyPatch, durations: list[float]) -> None:
    ticks = iter([tick for seconds in durations for tick in (0.0, seconds)])
    monkeypatch.setattr(profiling.time, "perf_counter", lambda: next(ticks))


def test_latency_is_the_median_without_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ten = [0.05, 0.01, 0.02, 0.5, 0.03, 0.04, 0.02, 0.03, 0.035, 0.025]
    repeats = profiling.REPEATS
    clock(monkeypatch, [0.11] * profiling.WARM_UP + ten * (repeats // 10))
    monkeypatch.setattr(profiling, "SECONDS", 1000.0)
    assert latency(nn.Identity(), torch.zeros(1, 3, 8, 8)) == 0.03


@pytest.mark.parametrize(
    ("durations", "expected"),
    [
        ([9.0], (0, [9.0])),  # longer than all may take: it is the measurement
        ([2.0, 2.0, 3.0], (1, [2.0, 3.0])),
        ([0.5] * 16, (4, [0.5] * 12)),  # a quarter of the time to warm up
    ],
)
def test_repeats_are_bounded_by_time(
    monkeypatch: pytest.MonkeyPatch, durations: list[float], expected: tuple[int, list[float]]
) -> None:
    clock(monkeypatch, durations)
    assert profiling._times(lambda: None, 6.0 if len(durations) < 9 else 8.0) == expected


def test_latencies_name_backend_threads_repeats_and_what_is_not_available(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(profiling, "_multiplies_bfloat16", lambda device: False)
    real = importlib.util.find_spec
    monkeypatch.setattr(
        profiling.importlib.util, "find_spec", lambda n: None if n == "onnxruntime" else real(n)
    )
    rows = profiling.latencies(network("v1"), (32, 32), threads=2, seconds=0.2)
    assert [row.backend for row in rows] == [*profiling.EAGER, profiling.ONNX]
    assert {(row.device, row.threads) for row in rows} == {("cpu", 2)}
    contiguous, channels_last, half, onnx = rows
    for row in (contiguous, channels_last):
        assert row.median is not None
        assert row.quartiles is not None
        assert 0 < row.quartiles[0] <= row.median <= row.quartiles[1]
        assert row.repeats >= 1
    assert half.missing == "not available: the hardware has no bfloat16 arithmetic"
    assert onnx.missing.startswith("not installed: pip install ")
    assert half.median is onnx.median is None


def test_bfloat16_runs_where_the_hardware_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "_multiplies_bfloat16", lambda device: True)
    seen = []

    class Watch(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            seen.append(y.dtype)
            return y

    monkeypatch.setattr(profiling, "_onnx_latency", lambda *_: profiling.Latency("", "cpu", 1))
    rows = profiling.latencies(Watch(3, 4, 1), (8, 8), seconds=0.01)
    assert rows[2].median is not None
    assert set(seen) == {torch.float32, torch.bfloat16}


@pytest.mark.parametrize("name", ["v2 corners", "ocr", "v2p"])
def test_onnx_runtime_computes_the_same(name: str) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    net = network(name).eval()
    with profiling._onnx_session(net, (64, 64), 1) as run, torch.inference_mode():
        theirs = run()
        ours = torch.utils._pytree.tree_leaves(net(torch.zeros(1, 3, 64, 64)))
    assert isinstance(theirs, list)
    assert len(theirs) == len(ours)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(torch.from_numpy(other), mine, rtol=1e-3, atol=1e-4)


# --- all together --------------------------------------------------------------------------------


def test_a_measurement_goes_to_json_and_to_text(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    monkeypatch.setattr(profiling, "_process_peak", lambda *_: 3 * profiling.MIB)
    found = measure(
        network("v1"), (64, 64), cost=cost_of("v1", (64, 64)), seconds=0.05, on_step=steps.append
    )
    data = json.loads(json.dumps(found.to_dict()))
    assert data["num_params"] == cost_of("v1", (64, 64)).params
    assert [c["tool"].split(" ")[0] for c in data["counts"]][:2] == ["closed", "fvcore"]
    assert {row["method"] for row in data["memory"]} <= set(profiling.METHODS)
    assert len(steps) == len(profiling.TOOLS) + 6 + len(profiling.EAGER) + 1
    text = render(found)
    assert f"{closed_form(cost_of('v1', (64, 64))).conv:,}" in text
    for words in ("add x", "meta device", "training   process", "eager, float32, channels-last"):
        assert words in text
    assert max(map(len, text.splitlines())) < 400
