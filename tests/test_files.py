"""Files are whole or absent."""

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hrnet_search import files
from hrnet_search.errors import InputError
from hrnet_search.files import (
    is_number,
    read_json,
    read_json_lines,
    read_user_json,
    require_writable,
    scratch_folder,
    write_atomic,
    write_json,
)


def test_write_atomic_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    write_atomic(path, "first")
    write_atomic(path, b"second")
    assert path.read_text() == "second"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
def test_a_failing_write_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "record.json"
    write_atomic(path, "old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


HOLDS_ONE = """
import sys, time
from pathlib import Path
from hrnet_search.files import scratch_folder
with scratch_folder(Path(sys.argv[1]), prefix=".new-") as place:
    (place / "half").write_text("")
    print(place.name, flush=True)
    time.sleep(600)
"""


def test_scratch_folders_of_killed_processes_go_and_those_in_use_stay(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    command = [sys.executable, "-c", HOLDS_ONE, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        theirs = tmp_path / process.stdout.readline().strip()
        for _ in range(2):
            with scratch_folder(tmp_path, prefix=".new-") as mine:
                assert {*tmp_path.iterdir()} == {mine, theirs, tmp_path / "other"}
        process.kill()
    assert (theirs / "half").exists()
    with scratch_folder(tmp_path, prefix=".new-") as mine:
        assert {*tmp_path.iterdir()} == {mine, tmp_path / "other"}
    assert [*tmp_path.iterdir()] == [tmp_path / "other"]


def test_a_scratch_folder_that_another_process_took_for_left_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, made = files.tempfile.mkdtemp, []

    def taken_at_first(**given: Any) -> str:
        made.append(real(**given))
        if len(made) == 1:
            os.rmdir(made[0])
        return str(made[-1])

    monkeypatch.setattr(files.tempfile, "mkdtemp", taken_at_first)
    with scratch_folder(tmp_path, prefix=".new-") as place:
        assert place == Path(made[1])
        assert place.is_dir()


def test_without_locks_scratch_folders_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".new-left").mkdir()

    def none(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", none)
    with scratch_folder(tmp_path, prefix=".new-") as place:
        assert place.is_dir()
    assert [*tmp_path.iterdir()] == [tmp_path / ".new-left"]


def test_an_interrupted_write_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "record.json", "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_written_files_have_the_users_usual_permissions(
    tmp_path: Path, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "a", "x")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode


def test_json_goes_out_and_comes_back(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, True], "b": {"ä": "\n"}}
    write_json(tmp_path / "a.json", value)
    write_json(tmp_path / "b.json", value, indent=None)
    assert read_json(tmp_path / "a.json") == read_json(tmp_path / "b.json") == value
    assert (tmp_path / "b.json").read_text().count("\n") == 1


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_json_refuses_numbers_it_cannot_say(tmp_path: Path, number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": number})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "records"),
    [
        ("", []),
        ('{"a": 1}\n', [{"a": 1}]),
        ('{"a": 1}\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
        ('{"a": 1}\n{"a": ', [{"a": 1}]),
        ('{"a": 1}\n{"a": 2}', [{"a": 1}]),  # its newline was to follow
        ('{"a": 1}\n\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
        ('{"a', []),
    ],
)
def test_json_lines_leave_out_a_last_line_cut_short(
    tmp_path: Path, text: str, records: list[object]
) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(text)
    assert read_json_lines(path) == records


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"{", "is not JSON ("),
        (b"", "is not JSON ("),
        (b"\xff", "is not JSON ("),
        pytest.param(b"[" * 100_000, "is not JSON (", id="deep"),
        (None, "cannot be read (No such file or directory)"),
        (..., "cannot be read (Is a directory)"),
    ],
)
def test_what_users_write_is_refused_in_one_line(tmp_path: Path, content: Any, part: str) -> None:
    path = tmp_path / "a.json"
    if content is ...:
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_user_json(path)
    assert str(caught.value).startswith(f"{path}: {part}")
    assert "\n" not in str(caught.value)


def test_what_users_write_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, 2.5, "\u00e4"]}', encoding="utf-8")
    assert read_user_json(path) == {"a": [1, 2.5, "\u00e4"]}


def test_numbers_are_those_that_a_float_holds() -> None:
    for number in (0, -3, 2.5, 10**308, 1e308):
        assert is_number(number)
    for other in (True, "1", None, [1], math.nan, math.inf, -math.inf, 10**400, -(10**400)):
        assert not is_number(other)


def test_json_lines_of_no_file_are_none(tmp_path: Path) -> None:
    assert read_json_lines(tmp_path / "none.jsonl") == []


def test_json_lines_broken_in_the_middle_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text('{"a": \n{"a": 2}\n')
    with pytest.raises(ValueError, match="line 1"):
        read_json_lines(path)


def test_require_writable_accepts_a_folder_to_be_and_makes_nothing(tmp_path: Path) -> None:
    require_writable(tmp_path, key="--runs")
    require_writable(tmp_path / "a" / "b", key="--runs")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "runs/x"])
def test_require_writable_refuses_a_file(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(InputError) as caught:
        require_writable(file / below, key="--runs")
    assert caught.value.key == "--runs"
    assert caught.value.value == str(file / below)
    assert f"cannot be written to ({file} is not a folder)" in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_require_writable_refuses_a_read_only_folder(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(InputError, match=r"--runs: .*: cannot be written to .*Permission denied"):
        require_writable(folder / "new", key="--runs")


def test_require_writable_reports_what_the_system_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
    with pytest.raises(InputError, match="Read-only file system"):
        require_writable(tmp_path, key="--runs")
