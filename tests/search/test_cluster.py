"""A cluster of two nodes on this machine, whose second one can be killed.

    HRNET_SEARCH_CHAOS=20 python -m pytest -m slow tests/search/test_cluster.py -k survives

kills a node in each of twenty runs, instead of two; the seed is in the test's name.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from running import RUNS

from hrnet_search.files import read_json_lines

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "studies" / "smoke.yaml"
# Two trials that take longer than Ray needs to notice that a node is dead.
STEPS = 300
LAST_MOMENT = 100  # step; the nodes are quicker than one core, and what is left must be long
LONG = ["--set", "seeds=1", "--set", f"train.steps={STEPS}", "--set", "train.evaluations=4"]
SAVED = ["--set", "train.checkpoint_minutes=0"]  # after every step

START = """
import sys
from ray.cluster_utils import Cluster
cpus = int(sys.argv[2])
head = {"num_cpus": cpus, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=head)
node = cluster.add_node(num_cpus=cpus, env_vars={"PYTHONPATH": sys.argv[1]})
print(cluster.address, node.all_processes["raylet"][0].process.pid, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
CHECK = """
import sys
from pathlib import Path
from hrnet_search.errors import InputError
from hrnet_search.search.machines import capacity, check_machines, connect, default_jobs
address, folder, *files = sys.argv[1:]
try:
    with connect(address, cpus=0):
        check_machines(Path(folder), files=[Path(file) for file in files])
        print(capacity(), default_jobs(address, 1))
except InputError as error:
    print(error)
"""


@dataclass
class Nodes:
    address: str
    raylet: int  # process of the second node
    environment: dict[str, str]


def start(second: Path, cpus: int = 1) -> Iterator[Nodes]:
    """Both nodes of so many CPUs; the second one looks for modules in the folder `second` first."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the loopback interface alone
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_health_check_period_ms": "500",  # notices after some 4 s instead of 14
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "of-the-cluster-of-a-test-0123456789",
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", START, f"{second}:{ROOT}", str(cpus)], env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        address, raylet = process.stdout.readline().split()
        yield Nodes(address, int(raylet), environment)
        process.communicate("", timeout=60)  # lets it shut down


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    yield from start(tmp_path_factory.mktemp("nothing"))


def check(nodes: Nodes, place: Path, *paths: Path, **environment: str) -> list[str]:
    """Lines that `CHECK` prints, in a process of its own that works in the folder `place`.

    The first of `paths` is the study's folder, the others are files.
    """
    given = [nodes.address, *map(str, paths)]
    done = subprocess.run(
        [sys.executable, "-c", CHECK, *given], env=nodes.environment | environment,
        cwd=place, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_machines_that_share_everything_are_taken(nodes: Nodes, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert check(nodes, tmp_path, tmp_path, tmp_path / "file", tmp_path) == ["(2, 0) 2"]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]  # the marker is gone


def test_a_folder_that_is_not_shared_is_refused(nodes: Nodes, tmp_path: Path) -> None:
    # One path for all, but each process has its own folder there.
    own = Path("/proc/self/cwd")
    if not own.exists():
        pytest.skip("needs Linux")
    (line,) = check(nodes, tmp_path, own)
    assert line.startswith(f"--out: '{own}': is not the same folder on machine ")
    assert "127.0.0.1" in line


def test_a_file_that_is_missing_is_refused(nodes: Nodes, tmp_path: Path) -> None:
    if not Path("/proc/self/cwd").exists():
        pytest.skip("needs Linux")
    (tmp_path / "file").touch()
    link = tmp_path / "link"
    link.symlink_to("/proc/self/cwd/file")
    (line,) = check(nodes, tmp_path, tmp_path, link)
    assert line.startswith(f"'{link}': is missing on machine ")


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"RAY_AUTH_TOKEN": "another-one-0123456789-0123456789"}, "set RAY_AUTH_MODE=token"),
        ({"RAY_AUTH_MODE": "disabled"}, "wants its token"),
        ({"RAY_AUTH_TOKEN": "", "HOME": "/nowhere"}, "RAY_AUTH_TOKEN is not set"),
    ],
)
def test_a_wrong_token_is_explained(
    nodes: Nodes, tmp_path: Path, environment: dict[str, str], why: str
) -> None:
    (line,) = check(nodes, tmp_path, tmp_path, **environment)
    assert line.startswith(f"--address: '{nodes.address}': ")
    assert why in line


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("", "has hrnet-search 0.0.9; install"),
        ("raise ImportError", "has no hrnet-search; install"),
    ],
)
def test_another_hrnet_search_is_refused(tmp_path: Path, code: str, why: str) -> None:
    package, about = tmp_path / "hrnet_search", tmp_path / "hrnet_search-0.0.9.dist-info"
    package.mkdir()
    about.mkdir()
    (package / "__init__.py").write_text(code)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: hrnet-search\nVersion: 0.0.9\n")
    out = tmp_path / "out"
    out.mkdir()
    for nodes in start(tmp_path):
        (line,) = check(nodes, out, out)
    assert line.startswith("--address: machine ")
    assert why in line


def run(folder: Path, environment: dict[str, str], *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hrnet_search.cli", "run", str(SMOKE), "--out", str(folder)]
    return subprocess.Popen(
        [*command, *options], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def results(folder: Path) -> dict[tuple[str, int], tuple[dict, list]]:
    lines = read_json_lines(folder / "runs" / "smoke" / "results.jsonl")
    assert [line["state"] for line in lines] == ["complete"] * 2
    assert Counter(line["arm"] for line in lines) == {"across=false": 1, "across=true": 1}
    return {(line["arm"], line["seed"]): (line["metrics"], line["history"]) for line in lines}


def steps_done(folder: Path) -> list[int]:
    """Of each trial that has been saved, as far as it has reported."""
    trials = (folder / "runs" / "smoke" / "trials").glob("*/checkpoint.pt")
    histories = [read_json_lines(file.with_name("history.jsonl")) for file in trials]
    return [points[-1]["step"] if points else 0 for points in histories]


def wait_for_both(folder: Path, process: subprocess.Popen[str], step: int) -> None:
    """Until two trials, one on each node, have been saved, and one of them has so many steps."""
    end = time.monotonic() + 300
    while len(done := steps_done(folder)) < 2 or max(done) < step:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "the study did not get that far in five minutes"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], tuple]:
    folder = tmp_path_factory.mktemp("undisturbed")
    with run(folder, os.environ | {"PYTHONPATH": str(ROOT)}, *LONG) as process:
        errors = process.communicate(timeout=600)[1]
        assert process.returncode == 0, errors
    return results(folder)


@pytest.mark.parametrize("seed", RUNS)
def test_a_study_survives_the_death_of_a_machine(
    undisturbed: dict[tuple[str, int], tuple], tmp_path: Path, seed: int
) -> None:
    moment = random.Random(3000 + seed).randrange(1, LAST_MOMENT)
    for nodes in start(tmp_path / "nothing"):
        options = [*LONG, *SAVED, "--address", nodes.address]
        with run(tmp_path, nodes.environment, *options) as process:
            wait_for_both(tmp_path, process, moment)
            os.kill(nodes.raylet, signal.SIGKILL)
            said, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
        assert "raylet" not in said + errors  # Ray's page about it
    assert results(tmp_path) == undisturbed
    attempts = read_json_lines(tmp_path / "runs" / "smoke" / "results.jsonl")
    assert max(line["attempt"] for line in attempts) == 2


def test_processes_of_a_trial_start_where_it_is_although_all_cpus_are_reserved(
    tmp_path: Path,
) -> None:
    few = ["--set", "seeds=1", "--set", "train.steps=4", "--set", "train.processes=2"]
    for nodes in start(tmp_path / "nothing", cpus=2):
        with run(tmp_path, nodes.environment, *few, "--address", nodes.address) as process:
            errors = process.communicate(timeout=600)[1]
    assert process.returncode == 0, errors
    assert "2 at a time" in errors
    assert len(results(tmp_path)) == 2
