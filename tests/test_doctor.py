"""What is checked of an installation, and what is said where something is wrong."""

import os
import resource
import signal
import socket
import subprocess
from collections import namedtuple
from pathlib import Path

import pytest
from test_cli import said

from hrnet_search import doctor
from hrnet_search.doctor import Finding, line, ok, problem, warning

Usage = namedtuple("Usage", "total used free")


def test_a_line_says_level_name_finding_and_advice() -> None:
    assert line("cores", ok("2")) == "ok       cores: 2"
    assert line("disk", warning("1\n GiB", "make room")) == "warning  disk: 1 GiB; make room"
    assert line("ray", problem("gone", "install it")) == "problem  ray: gone; install it"


@pytest.mark.parametrize(
    ("findings", "status"),
    [([ok("a"), warning("b", "c")], 0), ([ok("a"), problem("b", "c"), ok("d")], 1)],
)
def test_a_problem_alone_makes_the_exit_status_1(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    findings: list[Finding],
    status: int,
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: (("x", finding) for finding in findings))
    found, out, err = said(capsys, "doctor")
    assert found == status
    assert out.splitlines() == [line("x", finding) for finding in findings]
    assert err == ""


def test_a_check_that_fails_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Finding:
        raise ImportError("libcudart.so.12: cannot open\nmore")

    monkeypatch.setattr(doctor, "CHECKS", {"one": broken, "two": lambda: ok("2")})
    monkeypatch.setattr(doctor, "IMPORTS", {})
    monkeypatch.setattr(doctor, "OPTIONAL", {})
    (_, first), second = doctor.examine()
    assert first.level == "problem"
    assert first.text == "failed (ImportError: libcudart.so.12: cannot open)"
    assert second == ("two", ok("2"))


def finished(returncode: int, out: str = "", err: str = "") -> object:
    return lambda *_, **__: subprocess.CompletedProcess([], returncode, out, err)


@pytest.mark.parametrize(
    ("run", "text"),
    [
        (finished(-signal.SIGILL), "failed (crashed: Illegal instruction)"),
        (finished(1, err="Traceback\nOSError: bad"), "failed (OSError: bad)"),
        (finished(3), "failed (exit status 3)"),
        (finished(0, out="chatter"), "failed (exit status 0)"),
    ],
)
def test_a_process_that_crashes_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, run: object, text: str
) -> None:
    monkeypatch.setattr(subprocess, "run", run)
    found = doctor._in_a_process("torch")
    assert (found.level, found.text) == ("problem", text)


def test_a_process_tells_its_finding_below_the_chatter_of_packages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = 'hello\n{"level": "warning", "text": "a", "advice": "b"}\n'
    monkeypatch.setattr(subprocess, "run", finished(0, out=said))
    assert doctor._in_a_process("torch") == warning("a", "b")


def test_optuna_is_imported_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = doctor._in_a_process("optuna")
    assert found.level == "ok", found
    assert ", SQLite 3." in found.text


def test_torch_and_torchvision_of_the_tests_fit_each_other() -> None:
    assert doctor.torch_works().level in ("ok", "warning")
    assert doctor.torchvision_works().level == "ok"


def test_torchvision_beside_another_torch_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    def nms(*_: object) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(torchvision.ops, "nms", nms)
    found = doctor.torchvision_works()
    assert found.level == "problem"
    assert "(operator torchvision::nms does not exist)" in found.text
    assert "pip install --force-reinstall torch torchvision" in found.advice


def test_dependencies_are_compared_with_their_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["torch>=2.6", "ray[tune]>=2.60", "onnx>=1.17; extra == 'onnx'", "lacking>=1"]
    there = {"torch": "2.6.0+cu124", "ray": "2.9.3"}
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: wanted)
    monkeypatch.setattr(doctor, "_version", there.get)
    found = doctor.dependencies()
    assert found.level == "problem"
    assert found.text == "ray 2.9.3, needs >=2.60; lacking is missing, needs >=1"
    assert found.advice == "pip install 'ray[tune]>=2.60' 'lacking>=1'"
    there |= {"ray": "2.60.0", "lacking": "1.0rc1"}  # a prerelease comes before its release
    assert doctor.dependencies().text == "lacking 1.0rc1, needs >=1"
    there["lacking"] = "1.0.post1"
    assert doctor.dependencies() == ok("torch 2.6.0+cu124, ray 2.60.0, lacking 1.0.post1")


def test_an_old_python_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.9.18")
    assert doctor.python().text == "3.9.18, but >=3.10 is needed"
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.10.0")
    assert doctor.python().level == "ok"


def test_a_containers_share_of_the_cores_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    monkeypatch.setattr(doctor, "CPU_QUOTA", tmp_path / "cpu.max")
    assert doctor.cores() == ok("4 of 8 usable")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert doctor.cores() == ok("4 of 8 usable")
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    found = doctor.cores()
    assert found.text == "4 of 8 usable, but this container may use the time of 2.5"
    assert found.advice == "run studies with --jobs 2"


@pytest.mark.parametrize(
    ("free", "level"),
    [(20 * 2**30, "ok"), (2**30, "warning"), (2**20, "problem")],
)
def test_disk_space_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, level: str
) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage(2**40, 0, free))
    monkeypatch.chdir(tmp_path)
    found = doctor.current_folder()
    assert found.level == level
    assert found.text == f"{free / 2**30:.1f} GiB free in {tmp_path}"
    assert bool(found.advice) == (level != "ok")


def test_a_cache_folder_that_cannot_be_made_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HRNET_SEARCH_CACHE", str(tmp_path / "file" / "cache"))
    found = doctor.cache_works()
    assert found.level == "problem"
    assert found.advice == "set HRNET_SEARCH_CACHE to another folder"
    monkeypatch.setenv("HRNET_SEARCH_CACHE", str(tmp_path / "new"))
    assert doctor.cache_works().level in ("ok", "warning")
    assert not (tmp_path / "new").exists()


def test_shared_memory_as_small_as_dockers_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "SHM", tmp_path)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: Usage(2**26, 0, 2**26))
    found = doctor.shared_memory()
    assert found.level == "warning"
    assert "--shm-size" in found.advice
    monkeypatch.setattr(doctor, "SHM", tmp_path / "none")
    assert doctor.shared_memory().level == "ok"


@pytest.mark.parametrize(
    ("limits", "level"),
    [
        ((256, 1024), "warning"),
        ((1024, 8192), "ok"),
        ((256, resource.RLIM_INFINITY), "ok"),
    ],
)
def test_the_limit_of_open_files_counts_as_far_as_it_can_be_raised(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], level: str
) -> None:
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda _: limits)
    assert doctor.open_files().level == level


def test_the_loopback_interface_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.loopback() == ok("127.0.0.1 takes connections")

    def refuse(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)
    found = doctor.loopback()
    assert found.level == "problem"
    assert found.text == "127.0.0.1 cannot be used (Network is unreachable)"


def test_optional_packages_are_never_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", {"onnx": "1.17.0"}.get)
    assert doctor.optional("onnx", "latency") == ok("1.17.0, for latency")
    assert doctor.optional("tensorboard", "curves") == ok(
        "absent; pip install tensorboard for curves"
    )


def test_what_is_missing_can_be_installed_as_it_is_advised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: ["ray[tune]>=2.60"])
    monkeypatch.setattr(doctor, "_version", lambda _: None)
    assert doctor.dependencies().advice == "pip install 'ray[tune]>=2.60'"
