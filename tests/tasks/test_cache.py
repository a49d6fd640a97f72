"""Prepared data is made once, whole or not at all."""

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from hrnet_search.errors import InputError
from hrnet_search.tasks import cache as cache_module
from hrnet_search.tasks.cache import CACHE_VARIABLE, Writer, cache_folder, cached

ARRAYS = {"a": np.arange(6, dtype=np.uint8).reshape(2, 3), "b": np.array([0.5, 1.5])}
CHANGED = {"a": ARRAYS["a"] + 1, "b": ARRAYS["b"]}


class Make:
    """Writes arrays and counts how often it was asked."""

    def __init__(self, arrays: Mapping[str, np.ndarray] = ARRAYS) -> None:
        self.arrays, self.calls = arrays, 0

    def __call__(self, writer: Writer) -> None:
        self.calls += 1
        for name, array in self.arrays.items():
            writer.array(name, array)


def test_the_folder_is_the_variables_or_the_platforms(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache_folder() == cache
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.setattr(
        cache_module.platformdirs, "user_cache_dir", lambda name: f"/somewhere/{name}"
    )
    assert cache_folder() == Path("/somewhere/hrnet-search")


def test_arrays_are_made_once_and_come_back_equal(cache: Path) -> None:
    make = Make()
    first = cached({"x": 1}, make)
    second = cached({"x": 1}, make)
    assert make.calls == 1
    assert first == second
    assert first.folder.parent == cache
    for name, array in ARRAYS.items():
        mapped = second.array(name)
        assert isinstance(mapped, np.memmap)
        assert mapped.dtype == array.dtype
        assert np.array_equal(mapped, array)


def test_mapped_arrays_are_read_only(cache: Path) -> None:
    array = cached({"x": 1}, Make()).array("a")
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1


def test_another_identity_is_another_folder_and_key_order_does_not_matter(cache: Path) -> None:
    make = Make()
    folders = [cached(i, make).folder for i in ({"x": 1, "y": 2}, {"y": 2, "x": 1}, {"x": 2})]
    assert folders[0] == folders[1] != folders[2]
    assert make.calls == 2


def test_the_checksum_is_of_the_contents(cache: Path) -> None:
    one = cached({"x": 1}, Make()).checksum
    assert cached({"x": 2}, Make()).checksum == one
    assert cached({"x": 3}, Make(CHANGED)).checksum != one


def test_what_a_killed_process_left_is_ignored(cache: Path) -> None:
    # Of another machine, so that whether it is still at work cannot be told.
    partial = cache / ".partial-far-away-1-x"
    partial.mkdir(parents=True)
    (partial / "a.npy").write_bytes(b"half of an arr")
    make = Make()
    assert np.array_equal(cached({"x": 1}, make).array("a"), ARRAYS["a"])
    assert make.calls == 1
    assert np.array_equal(cached({"x": 1}, make).array("a"), ARRAYS["a"])
    assert make.calls == 1
    assert partial.exists()


KILLED = """
import os, signal
from hrnet_search.tasks.cache import cached

def make(writer):
    writer.append("x", __import__("numpy").zeros(9))
    os.kill(os.getpid(), signal.SIGKILL)

cached({"x": 1}, make)
"""


def test_what_a_killed_process_of_this_machine_left_is_removed_and_no_more(cache: Path) -> None:
    died = subprocess.run([sys.executable, "-c", KILLED], check=False)
    assert died.returncode == -9
    (left,) = cache.iterdir()
    assert left.name.startswith(f".partial-{socket.gethostname()}-")
    assert (left / "x.bin").exists()
    others = [
        cache / f".partial-{socket.gethostname()}-{os.getpid()}-abc",  # at work
        cache / f".partial-{socket.gethostname()}-1-abc",  # of another user perhaps
        cache / ".partial-elsewhere-999999999-abc",
        cache / ".partial-x",
    ]
    for other in others:
        other.mkdir()
    made = cached({"x": 2}, Make()).folder
    assert set(cache.iterdir()) == {made, *others}


def test_nothing_stays_when_making_fails(cache: Path) -> None:
    def fail(writer: Writer) -> None:
        writer.append("x", ARRAYS["a"])
        raise InputError("is broken", file="a.png")

    with pytest.raises(InputError, match=r"a\.png: is broken"):
        cached({"x": 1}, fail)
    assert not cache.exists() or list(cache.iterdir()) == []


def test_nothing_stays_when_the_disk_is_full(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(cache_module.np, "save", fail)
        with pytest.raises(InputError) as caught:
            cached({"x": 1}, Make())
    assert str(caught.value) == (
        f"{str(cache)!r}: the cache folder cannot be written to ([Errno 28] No space left on "
        f"device); set {CACHE_VARIABLE}, or data.cache_gib=0 to keep no decoded images"
    )
    assert list(cache.iterdir()) == []
    assert np.array_equal(cached({"x": 1}, Make()).array("a"), ARRAYS["a"])


def test_a_cache_folder_that_is_a_file_is_refused(cache: Path) -> None:
    cache.write_text("x")
    with pytest.raises(InputError, match=rf"cannot be written to .*; set {CACHE_VARIABLE}"):
        cached({"x": 1}, Make())


def test_of_two_makers_at_once_the_first_to_finish_wins(cache: Path) -> None:
    def make(writer: Writer) -> None:
        cached({"x": 1}, Make())  # another study, faster
        Make(CHANGED)(writer)

    assert np.array_equal(cached({"x": 1}, make).array("a"), ARRAYS["a"])
    assert len(list(cache.iterdir())) == 1


def test_appended_pixels_come_back_in_order(cache: Path) -> None:
    def make(writer: Writer) -> None:
        writer.append("x", ARRAYS["a"])
        writer.append("y", np.array([[9]], dtype=np.uint8))
        writer.append("x", ARRAYS["a"][:, ::-1])

    data = cached({"x": 1}, make)
    assert data.pixels("x").tolist() == [0, 1, 2, 3, 4, 5, 2, 1, 0, 5, 4, 3]
    assert data.pixels("y").tolist() == [9]
    assert (data.has("x"), data.has("z")) == (True, False)
    with pytest.raises(ValueError, match="read-only"):
        data.pixels("x")[0] = 1


def test_json_comes_back(cache: Path) -> None:
    data = cached({"x": 1}, lambda writer: writer.json("names", ["a", "b"]))
    assert data.json("names") == ["a", "b"]


def test_the_checksum_is_sha256_of_all_that_counts(cache: Path) -> None:
    """Where pixels lie does not count; the pixels do, kept or only noted."""

    def keep(writer: Writer) -> None:
        writer.append("x", ARRAYS["a"])
        writer.json("names", ["n"])

    def note(writer: Writer) -> None:
        writer.note(ARRAYS["a"].data)
        writer.json("names", ["n"])
        writer.json("places", ["/somewhere"], counts=False)

    wanted = hashlib.sha256(bytes(range(6)) + json.dumps(["n"]).encode()).hexdigest()[:16]
    data = [cached({"x": number}, make) for number, make in enumerate((keep, note))]
    assert [each.checksum for each in data] == [wanted, wanted]
    assert data[1].json("places") == ["/somewhere"]


def test_a_folder_that_something_has_cleaned_up_in_is_made_again(cache: Path) -> None:
    make = Make()
    first = cached({"x": 1}, make)
    (first.folder / "content.json").unlink()
    again = cached({"x": 1}, make)
    assert make.calls == 2
    assert again == first
    assert np.array_equal(again.array("b"), ARRAYS["b"])
