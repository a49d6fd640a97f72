"""All measurements of one network together, as data and as text."""

import json
from dataclasses import asdict
from typing import Any

import pytest
from small_networks import cost_of, network

from hrnet_search.profiling import counters, latency, measure, memory, render
from hrnet_search.profiling.base import MIB
from hrnet_search.profiling.counters import TOOLS, Count, count_closed_form
from hrnet_search.profiling.latency import EAGER, ONNX
from hrnet_search.profiling.memory import METHODS


def test_a_measurement_goes_to_json_and_to_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_process_peak", lambda *_: 3 * MIB)
    monkeypatch.setattr(latency, "SECONDS", 0.05)
    found = measure(network("v1"), (64, 64), cost=cost_of("v1", (64, 64)))
    data = json.loads(json.dumps(asdict(found)))
    assert data["num_params"] == cost_of("v1", (64, 64)).params
    assert [c["tool"].split(" ")[0] for c in data["counts"]][:2] == ["closed", "fvcore"]
    rows = [(row["step"], row["method"]) for row in data["memory"]]
    assert rows == [
        ("training", "closed form"),
        *((s, m) for s in ("training", "inference") for m in METHODS if m != "closed form"),
    ]
    text = render(found)
    assert f"{count_closed_form(cost_of('v1', (64, 64))).conv:,}" in text
    for words in ("add x", "meta device", "training   process", "eager, float32, channels-last"):
        assert words in text
    assert max(map(len, text.splitlines())) < 400


def test_each_step_is_told_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []

    def runs(name: str, result: Any) -> Any:
        def run(*_: object, **__: object) -> Any:
            heard.append(f"runs {name}")
            return result

        return run

    tools = {name: ("torch", runs(name, Count(name))) for name in TOOLS}
    monkeypatch.setattr(counters, "TOOLS", tools)
    monkeypatch.setattr(memory, "peak_memory", runs("meta device", MIB))
    monkeypatch.setattr(memory, "_tensor_peak", runs("tensors", MIB))
    monkeypatch.setattr(memory, "_process_peak", runs("process", MIB))
    monkeypatch.setattr(memory, "free_bytes", lambda: None)
    monkeypatch.setattr(latency, "EAGER", dict(list(EAGER.items())[:1]))
    monkeypatch.setattr(latency, "_eager_times", runs("eager", (1, [1.0])))
    monkeypatch.setattr(latency, "attempt", lambda run, *packages: run())
    monkeypatch.setattr(latency, "_onnx_session", runs("export", lambda: None))
    monkeypatch.setattr(latency, "_times", runs("ONNX", (1, [1.0])))
    measure(network("v1"), (64, 64), on_step=heard.append)
    expected = []
    for step in ("training", "inference"):
        for method in ("meta device", "tensors", "process"):
            expected += [f"memory of {step}: {method}", f"runs {method}"]
    for name in TOOLS:
        expected += [f"counting with {name}", f"runs {name}"]
    expected += [f"latency: {next(iter(EAGER))}", "runs eager"]
    expected += ["exporting to ONNX", "runs export", f"latency: {ONNX}", "runs ONNX"]
    assert heard == expected


def test_what_needs_a_pass_that_does_not_fit_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Any:
        raise AssertionError("a pass on real tensors")

    monkeypatch.setattr(memory, "free_bytes", lambda: 1000)
    for module in (counters, latency, memory):
        monkeypatch.setattr(module, "real_copy", fail)
    heard: list[str] = []
    found = measure(network("v1"), (64, 64), cost=cost_of("v1", (64, 64)), on_step=heard.append)
    assert not any(step.startswith(("latency", "exporting", "counting with fv")) for step in heard)
    (reason,) = {row.missing for row in found.memory if row.step == "inference" and row.missing}
    assert reason.startswith("needs more than ")
    assert [row.missing for row in found.latencies] == [reason] * (len(EAGER) + 1)
    counted = dict(zip(("closed form", *TOOLS), found.counts, strict=True))
    for name in ("fvcore", "ptflops, pytorch"):
        assert (counted[name].missing, counted[name].total) == (reason, 0)
    closed = counted["closed form"]
    assert counted["torch.utils.flop_counter"].conv == closed.conv > 0
    assert f"fvcore: {reason}" in render(found)
