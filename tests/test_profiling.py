"""Costs against the official counts, other counters, and sums done by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hrnet_search import profiling
from hrnet_search.arch import ArchSpec, hrnet
from hrnet_search.model import build
from hrnet_search.profiling import CONV_AND_LINEAR, count_macs, latency, peak_memory, profile
from hrnet_search.result import METRICS

# Multiply-adds of convolutions and linear layers by the official code's `get_model_summary`.
W32_POSE_256X192 = 7_645_003_776
SMALL_V1_SEGMENTATION_1024X2048 = 33_390_854_144
SMALL_V1 = hrnet(
    width=16, num_modules=1, num_blocks=2, stage1_blocks=1, stage1_width=32, upsample="bilinear"
)


def tiny(**arguments: Any) -> ArchSpec:
    small = {"width": 4, "num_modules": 1, "num_blocks": 1}
    return hrnet(**{**small, "stage1_blocks": 1, "stage1_width": 4, "stem_width": 8, **arguments})


VARIED = {  # head, spec
    "v1": ("v1", tiny(width=5, num_stages=3, num_modules=2)),
    "v2": ("v2", tiny(width=[4, 6, 8], num_blocks=2, upsample="bilinear", within=False)),
    "v2 corners": ("v2", tiny(width=7, stem_width=9, upsample="bilinear", align_corners=True)),
}


def macs(net: nn.Module, image: Tensor) -> int:
    counts = count_macs(net, image)
    return sum(counts[name] for name in CONV_AND_LINEAR)


def macs_of(spec: ArchSpec, head: str, num_outputs: int, size: tuple[int, int]) -> int:
    net = build(spec, head=head, num_outputs=num_outputs).eval()
    return macs(net, torch.zeros(1, 3, *size))


def test_multiply_adds_of_w32_are_the_official_count() -> None:
    assert macs_of(hrnet(), "v1", 17, (256, 192)) == W32_POSE_256X192


def test_multiply_adds_of_small_v1_segmentation_are_the_official_count() -> None:
    # A sixteenth of the area: every map of either input is a whole multiple of its stride.
    assert macs_of(SMALL_V1, "v2", 19, (256, 512)) * 16 == SMALL_V1_SEGMENTATION_1024X2048


@pytest.mark.parametrize("size", [(64, 96), (61, 83)], ids=str)
@pytest.mark.parametrize("name", VARIED)
def test_profile_agrees_with_torchs_own_counter(name: str, size: tuple[int, int]) -> None:
    head, spec = VARIED[name]
    net = build(spec, head=head, num_outputs=5).eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 3, *size))
    assert macs_of(spec, head, 5, size) * 2 == counter.get_total_flops()


@pytest.mark.parametrize("name", VARIED)
def test_multiply_adds_agree_with_ptflops_within_two_per_cent(name: str) -> None:
    from ptflops import get_model_complexity_info

    # ptflops also counts BatchNorm, ReLU and resizing, which matter less the wider the network.
    arguments = {"v1": {"num_stages": 3}, "v2": {"upsample": "bilinear"}}.get(name, {})
    spec = hrnet(width=32, num_modules=1, num_blocks=2, stage1_blocks=1, **arguments)
    head = name.partition(" ")[0]
    net = build(spec, head=head, num_outputs=5).eval()
    theirs, params = get_model_complexity_info(
        net, (3, 64, 64), as_strings=False, print_per_layer_stat=False, backend="pytorch"
    )
    assert params == sum(p.numel() for p in net.parameters())
    assert macs(net, torch.zeros(1, 3, 64, 64)) == pytest.approx(theirs, rel=0.02)


def test_multiply_adds_do_not_depend_on_the_batch_of_other_images() -> None:
    net = build(tiny(), head="v1", num_outputs=3).eval()
    assert macs(net, torch.zeros(3, 3, 64, 64)) == 3 * macs(net, torch.zeros(1, 3, 64, 64))


class Powers(nn.Module):
    """A network with an operator whose work fvcore does not know."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cumsum(x, dim=-1)


def test_an_operator_without_a_count_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"operators without a count: aten::cumsum$"):
        count_macs(Powers(), torch.zeros(1, 3, 8, 8))


def test_profile_has_every_cost_in_base_units() -> None:
    spec = tiny(num_stages=2)
    torch.manual_seed(3)
    costs = profile(spec, head="v1", num_outputs=5, input_size=(64, 48))
    assert {f"profile.{name}" for name in costs} == {k for k in METRICS if k.startswith("profile")}
    net = build(spec, head="v1", num_outputs=5)
    assert costs["params"] == sum(p.numel() for p in net.parameters())
    assert costs["macs"] == macs_of(spec, "v1", 5, (64, 48))
    assert costs["paper_gflops"] == costs["macs"] / 2**30
    assert costs["memory"] == peak_memory(spec, head="v1", num_outputs=5, input_size=(64, 48))
    assert 0 < costs["latency"] < 10


def test_the_papers_gflops_of_w32_are_the_printed_figure() -> None:
    # Table 1 prints 7.1; the official code measures 7.120.
    assert round(W32_POSE_256X192 / profiling.PAPER_GFLOP, 2) == 7.12
    assert METRICS["profile.paper_gflops"].show(W32_POSE_256X192 / profiling.PAPER_GFLOP) == "7.12"


# --- memory ------------------------------------------------------------------------------------


def memory(spec: ArchSpec, *, size: int = 64, batch: int = 1, head: str = "v1") -> int:
    return peak_memory(spec, head=head, num_outputs=5, input_size=(size, size), batch=batch)


class OneConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def test_peak_memory_of_one_convolution_is_the_sum_done_by_hand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(profiling, "build", lambda *_, **__: OneConvolution())
    # All are alive when the sum is taken; then the output goes before any gradient is made.
    weights, image, output, total = 8 * 3, 3 * 16 * 16, 8 * 16 * 16, 1
    peak = peak_memory(tiny(), head="v1", num_outputs=8, input_size=(16, 16))
    assert peak == 4 * (weights + image + output + total)


@pytest.mark.parametrize("head", ["v1", "v2"])
def test_peak_memory_agrees_with_torchs_tracker(head: str) -> None:
    from torch.distributed._tools.mem_tracker import MemTracker

    spec = tiny(num_stages=3, num_modules=[1, 2])
    net = build(spec, head=head, num_outputs=5)
    tracker = MemTracker()
    tracker.track_external(net)
    with tracker:
        net(torch.randn(1, 3, 64, 64)).sum().backward()
    (peak,) = tracker.get_tracker_snapshot("peak").values()
    assert memory(spec, head=head) == pytest.approx(peak["Total"], rel=0.01)


def test_peak_memory_holds_parameters_and_gradients_and_grows_with_what_is_processed() -> None:
    spec = tiny()
    params = sum(p.numel() for p in build(spec, head="v1", num_outputs=5).parameters())
    assert memory(spec) > 2 * 4 * params
    small, middle, large = (memory(spec, size=size) for size in (128, 256, 512))
    assert large - middle == pytest.approx(4 * (middle - small), rel=0.05)  # as the area grows
    pair, triple = memory(spec, size=128, batch=2), memory(spec, size=128, batch=3)
    assert triple - pair == pytest.approx(pair - small, rel=0.05)
    assert memory(tiny(num_blocks=2), size=128) > small
    assert memory(tiny(within=False, across=False, final=False), size=128) < small


def test_peak_memory_takes_no_memory_for_the_network_itself() -> None:
    import resource

    huge = hrnet(width=200, num_modules=1, num_blocks=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    counted = memory(huge, size=512)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < counted / 4


# --- latency -----------------------------------------------------------------------------------


def test_latency_is_measured_on_one_thread_and_the_threads_are_restored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads = []

    class Watch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            threads.append((torch.get_num_threads(), torch.is_inference_mode_enabled()))
            assert x.is_contiguous(memory_format=torch.channels_last)
            return x

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        seconds = latency(Watch(), torch.zeros(1, 3, 32, 32))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seconds > 0
    assert threads == [(1, True)] * (profiling.WARM_UP + profiling.REPEATS)


def test_threads_are_restored_when_the_network_fails() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(NotImplementedError):
            latency(nn.Module(), torch.zeros(1, 3, 32, 32))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_latency_is_the_median_without_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ten = [5.0, 1.0, 2.0, 50.0, 3.0, 4.0, 2.0, 3.0, 3.5, 2.5]
    durations = [100.0] * profiling.WARM_UP + ten * (profiling.REPEATS // 10)
    assert len(durations) == profiling.WARM_UP + profiling.REPEATS
    ticks = iter([tick for seconds in durations for tick in (0.0, seconds)])
    monkeypatch.setattr(profiling.time, "perf_counter", lambda: next(ticks))
    assert latency(nn.Identity(), torch.zeros(1, 3, 8, 8)) == 3.0


def test_a_lowest_map_of_one_pixel_can_be_profiled() -> None:
    spec = hrnet(width=4, num_modules=1, num_blocks=1, stage1_blocks=1, stage1_width=4)
    costs = profile(spec, head="v1", num_outputs=17, input_size=(32, 32))
    assert costs["memory"] > 2 * 4 * costs["params"]  # parameters and gradients, four bytes each
