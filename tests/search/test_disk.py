"""A disk that is full stops a study, and fails nothing."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import SMOKE, run

from hrnet_search.files import read_json_lines

pytestmark = pytest.mark.slow
SIZE = 16 * 2**20  # bytes


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(tmp_path)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


@pytest.mark.parametrize("free", [50_000, 400_000])
def test_a_full_disk_stops_the_study_which_then_goes_on(small_disk: Path, free: int) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(SIZE - free))
    stopped = run(SMOKE, small_disk)
    assert stopped.returncode == 1, stopped.stderr
    assert "the disk is full; free some space" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    ballast.unlink()
    done = run(SMOKE, small_disk)
    assert done.returncode == 0, done.stderr
    lines = read_json_lines(small_disk / "runs" / "smoke" / "results.jsonl")
    assert [line["state"] for line in lines] == ["complete"] * 4
    assert not list(small_disk.rglob("failure-*"))
