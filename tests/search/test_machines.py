"""The pure parts of what is said about machines; `test_cluster.py` has a real cluster."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from hrnet_search.errors import InputError
from hrnet_search.search import machines
from hrnet_search.search.machines import (
    _auth_mode,
    _check_address,
    _check_room,
    capacity,
    default_jobs,
    explain,
    resources,
)


@pytest.mark.parametrize(
    ("jobs", "processes", "gpus", "cpu", "gpu"),
    [
        (2, 1, 0, 1, 0),
        (2, 3, 0, 3, 0),
        (4, 1, 4, 1, 1),
        (2, 1, 4, 1, 1),
        (8, 1, 4, 1, 0.5),
        (5, 1, 4, 1, 0.5),
        (2, 4, 8, 4, 4),
    ],
)
def test_what_a_trial_reserves(
    jobs: int, processes: int, gpus: int, cpu: float, gpu: float
) -> None:
    assert resources(jobs, processes, gpus) == {"cpu": cpu, "gpu": gpu}


@pytest.mark.parametrize(
    ("gpus", "processes", "jobs"), [(8, 1, 8), (8, 4, 2), (8, 3, 2), (0, 1, 6), (0, 4, 1)]
)
def test_as_many_trials_at_a_time_as_this_machine_has_room_for(
    gpus: int, processes: int, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "_gpus", lambda: gpus)
    monkeypatch.setattr(machines.os, "sched_getaffinity", lambda _: range(6), raising=False)
    assert default_jobs(None, processes) == jobs


def cluster(monkeypatch: pytest.MonkeyPatch, *nodes: tuple[int, int], gpus: int = 0) -> None:
    """Machines with so many CPUs and GPUs; `gpus` are here."""
    found: list[dict[str, Any]] = [{"Resources": {"CPU": c, "GPU": g}} for c, g in nodes]
    monkeypatch.setattr(machines, "_nodes", lambda: found)
    monkeypatch.setattr(machines, "_gpus", lambda: gpus)


@pytest.mark.parametrize(
    ("nodes", "processes", "jobs"),
    [
        ([(8, 0), (4, 0)], 1, 12),
        ([(8, 0), (4, 0)], 3, 3),  # 2 and 1: no trial spans two machines
        ([(8, 0), (32, 8)], 1, 8),  # the first has no GPU
        ([(32, 8), (32, 4)], 8, 1),
        ([(2, 4)], 1, 2),  # each trial needs a CPU as well
    ],
)
def test_as_many_trials_at_a_time_as_a_cluster_has_room_for(
    nodes: list[tuple[int, int]], processes: int, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster(monkeypatch, *nodes)
    assert default_jobs("host:6379", processes) == jobs
    assert capacity() == (sum(cpus for cpus, _ in nodes), sum(gpus for _, gpus in nodes))


def test_a_trial_must_fit_into_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(monkeypatch, (8, 0), (4, 0))
    _check_room(8)
    with pytest.raises(InputError, match="no machine of the cluster has so many CPUs") as caught:
        _check_room(9)
    assert (caught.value.key, caught.value.value) == ("train.processes", 9)
    cluster(monkeypatch, (32, 2), (32, 2), gpus=2)
    with pytest.raises(InputError, match="so many GPUs"):
        _check_room(4)


def test_gpus_are_used_from_a_machine_that_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(monkeypatch, (8, 1))
    with pytest.raises(InputError, match="this machine has none") as caught:
        _check_room(1)
    assert caught.value.key == "--address"


@pytest.mark.parametrize(
    "address", ["auto", "local", "host", "host:", ":6379", "host:0", "host:x", "ray://host:10001"]
)
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    with pytest.raises(InputError, match="must be HOST:PORT") as caught:
        _check_address(address)
    assert (caught.value.key, caught.value.value) == ("--address", address)


def test_an_address_where_nothing_listens_is_refused_at_once() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # not listening
        address = f"127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(InputError, match="cannot be reached") as caught:
            _check_address(address)
    assert caught.value.key == "--address"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        # As Ray 2.60 says it.
        (
            "AuthenticationError: Token authentication is enabled but no authentication token was "
            "found. Ensure that the token",
            "RAY_AUTH_TOKEN is not set",
        ),
        (
            "Failed to get cluster ID from GCS server: Unauthenticated: RPC error: "
            "InvalidAuthToken: Authentication token is missing or incorrect",
            "set RAY_AUTH_MODE=token",
        ),
        (
            "The actor never ran - it was cancelled before it started running.",
            "set RAY_AUTH_MODE=disabled",
        ),
        ("Traceback\nRuntimeError: another version\n\n", "(RuntimeError: another version)"),
        ("", "(Ray said nothing)"),
    ],
)
def test_what_ray_says_is_explained(said: str, why: str) -> None:
    assert why in explain(said)


def test_a_token_is_used_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("RAY_AUTH")]:
        monkeypatch.delenv(name)
    assert _auth_mode() == "disabled"
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").touch()
    assert _auth_mode() == "token"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert _auth_mode() == "disabled"
