"""What is timed, how often, and what a backend that is not at hand says."""

import importlib.util

import pytest
import torch
from small_networks import network
from torch import Tensor, nn

from hrnet_search import training
from hrnet_search.profiling import latency as module
from hrnet_search.profiling.latency import (
    EAGER,
    ONNX,
    REPEATS,
    WARM_UP,
    latencies,
    median_latency,
)


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
    seconds = median_latency(Watch(), (32, 32))
    assert torch.get_num_threads() == 2
    assert seconds > 0
    assert threads == [(1, True)] * (WARM_UP + REPEATS)


def test_threads_are_restored_when_the_network_fails() -> None:
    torch.set_num_threads(2)
    with pytest.raises(NotImplementedError):
        median_latency(nn.Module(), (32, 32))
    assert torch.get_num_threads() == 2


def clock(monkeypatch: pytest.MonkeyPatch, durations: list[float]) -> None:
    ticks = iter([tick for seconds in durations for tick in (0.0, seconds)])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(ticks))


def test_latency_is_the_median_without_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ten = [0.05, 0.01, 0.02, 0.5, 0.03, 0.04, 0.02, 0.03, 0.035, 0.025]
    clock(monkeypatch, [0.11] * WARM_UP + ten * (REPEATS // 10))
    monkeypatch.setattr(module, "SECONDS", 1000.0)
    assert median_latency(nn.Identity(), (8, 8)) == 0.03


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
    monkeypatch.setattr(module, "SECONDS", 6.0 if len(durations) < 9 else 8.0)
    assert module._times(lambda: None) == expected


def test_latencies_name_backend_threads_repeats_and_what_is_not_available(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "has_bfloat16", lambda device: False)
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n == "onnxruntime" else real(n)
    )
    monkeypatch.setattr(module, "SECONDS", 0.2)
    rows = latencies(network("v1"), (32, 32))
    assert [row.backend for row in rows] == [*EAGER, ONNX]
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
    monkeypatch.setattr(training, "has_bfloat16", lambda device: True)
    seen = []

    class Watch(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            seen.append(y.dtype)
            return y

    monkeypatch.setattr(module, "_onnx_times", lambda *_: (0, [1.0]))
    monkeypatch.setattr(module, "SECONDS", 0.01)
    rows = latencies(Watch(3, 4, 1), (8, 8))
    assert rows[2].median is not None
    assert set(seen) == {torch.float32, torch.bfloat16}


@pytest.mark.parametrize("name", ["v2 corners", "ocr", "v2p"])
def test_onnx_runtime_computes_the_same(name: str) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    net = network(name).eval()
    theirs = module._onnx_session(net, (64, 64))()
    with torch.inference_mode():
        ours = torch.utils._pytree.tree_leaves(net(torch.zeros(1, 3, 64, 64)))
    assert isinstance(theirs, list)
    assert len(theirs) == len(ours)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(torch.from_numpy(other), mine, rtol=1e-3, atol=1e-4)
