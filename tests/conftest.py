"""Fixtures that several test modules share; no test touches the user's own cache."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, which reads it once

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from tiny import TINY_POSE_STUDY

from hrnet_search import tasks
from hrnet_search.settings import SyntheticPose
from hrnet_search.study import Study
from hrnet_search.tasks.cache import CACHE_VARIABLE, Prepared

# Always the same examples, and no failure because a machine is busy.
settings.register_profile("tests", deadline=None, derandomize=True, database=None)
settings.load_profile("tests")


# Files that take longest, first: a worker takes a file at a time, and none should be left alone.
LONGEST = (
    *("test_readme.py", "test_engine.py", "test_search_run.py", "test_export.py"),
    *("test_fidelity_run.py", "test_replay.py", "test_match_run.py"),
    *("test_search_ledger.py", "test_proposals.py", "test_mutations.py", "test_costtables.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="session", autouse=True)
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache folder of the whole test session."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv(CACHE_VARIABLE, str(folder))
        yield folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of one test's own; it does not exist yet."""
    folder = tmp_path / "cache"
    monkeypatch.setenv(CACHE_VARIABLE, str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_study() -> Study:
    """A pose study of two arms and two seeds that trains in a second."""
    return Study.model_validate(TINY_POSE_STUDY)


@pytest.fixture(scope="session")
def tiny_pose(tiny_study: Study) -> Prepared:
    """Its data, prepared once per session."""
    assert isinstance(tiny_study.data, SyntheticPose)
    return tasks.prepare(tiny_study, lambda done, total: None)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums over several threads are in no fixed order, and take other times."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Folder of real data by name (`coco_mini`, `camvid`); a test without it is skipped.

    They lie in `$HRNET_SEARCH_DATA`, or in `data/` beside the package.
    """
    root = Path(os.environ.get("HRNET_SEARCH_DATA", Path(__file__).parents[1] / "data"))

    def find(name: str) -> Path:
        if not (root / name).is_dir():
            pytest.skip(f"needs real data: no {name} in {root}; set HRNET_SEARCH_DATA")
        return root / name

    return find
