"""The record of versions, machine and code."""

import json
import os
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from hrnet_search.search import provenance
from hrnet_search.search.provenance import changes, environment

WHO = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *WHO, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with studies/a.yaml and other.txt committed, whatever git is set to here."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    folder = tmp_path / "repository"
    (folder / "studies").mkdir(parents=True)
    (folder / "studies" / "a.yaml").write_text("seeds: 1\n")
    (folder / "other.txt").write_text("one\n")
    (folder / ".gitignore").write_text("ignored.yaml\n")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "first")
    return folder


def test_a_clean_folder_has_no_changes(repository: Path) -> None:
    assert changes(repository / "studies") == ""


def test_changes_are_those_below_the_folder_with_yaml_files_that_git_does_not_know(
    repository: Path,
) -> None:
    (repository / "other.txt").write_text("two\n")
    studies = repository / "studies"
    (studies / "a.yaml").write_text("seeds: 2\n")
    (studies / "sub").mkdir()
    for name in ("new.yaml", "sub/deep.yml", "ignored.yaml", "notes.txt"):
        (studies / name).write_text("x\n")
    lines = changes(studies).splitlines()
    assert [line for line in lines if line[:2] in ("-s", "+s")] == ["-seeds: 1", "+seeds: 2"]
    assert lines[-2:] == ["untracked: new.yaml", "untracked: sub/deep.yml"]
    assert not [line for line in lines if "other.txt" in line or "notes" in line]


def test_a_staged_change_counts(repository: Path) -> None:
    (repository / "studies" / "a.yaml").write_text("seeds: 2\n")
    git(repository, "add", ".")
    assert "+seeds: 2" in changes(repository / "studies")


def test_the_users_own_diff_program_is_not_run(repository: Path) -> None:
    git(repository, "config", "diff.external", "false")
    git(repository, "config", "color.ui", "always")
    (repository / "studies" / "a.yaml").write_text("seeds: 2\n")
    text = changes(repository / "studies")
    assert "\n+seeds: 2\n" in text


def test_large_changes_are_cut_off(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "MOST_CHANGES", 1000)
    (repository / "studies" / "a.yaml").write_text("".join(f"k{i}: {i}\n" for i in range(50000)))
    text = changes(repository / "studies")
    assert text.endswith("\n(cut off after 1000 bytes)\n")
    assert len(text) == 1000 + len("\n(cut off after 1000 bytes)\n")


def test_outside_git_and_without_it_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert changes(tmp_path) == ""
    assert changes(tmp_path / "none") == ""
    monkeypatch.setenv("PATH", "")
    assert changes(tmp_path) == ""


def test_the_environment_says_what_trials_run_on_and_nothing_of_the_user(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    for name in ("USER", "LOGNAME", "API_TOKEN"):
        monkeypatch.setenv(name, "secret-of-somebody")
    found = environment(jobs=2, command="hrnet-search run a.yaml")
    assert (found["jobs"], found["command"]) == (2, "hrnet-search run a.yaml")
    assert found["versions"]["torch"] == metadata.version("torch")
    assert found["cores"] == os.cpu_count()
    assert found["git"] == git(repository, "rev-parse", "--short=12", "HEAD").strip()
    assert "secret-of-somebody" not in json.dumps(found)
    (repository / "other.txt").write_text("two\n")
    assert environment(jobs=2, command="")["git"] == f"{found['git']}-dirty"


def test_outside_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert environment(jobs=1, command="")["git"] is None
