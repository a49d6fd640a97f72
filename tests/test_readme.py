"""The README's commands and code are run as they stand, only with fewer steps and images."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
# Appended to `run`: the last value of a key counts. The smoke study is small as it is.
SMALLER = ["train.steps=2", "train.evaluations=1", "train.batch_size=2", "seeds=1"]
SMALLER_SEARCH = ["train.steps=4", "train.evaluations=4", "search.networks=3"]
SMALLER_DRAWN = ["data.num_train=8", "data.num_val=4"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    """The README's hrnet-search commands in order."""
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("hrnet-search")]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the shipped files, and data in the CamVid layout where the README has it."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("studies", "spaces"):
        (folder / name).symlink_to(ROOT / name)
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name, shape in ((split, (180, 240, 3)), (f"{split}annot", (180, 240))):
            (folder / "data" / "camvid" / name).mkdir(parents=True)
            for number in range(2):
                pixels = rng.integers(0, 12, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "data" / "camvid" / name / f"{number}.png")
    return folder


def test_the_readme_shows_every_command() -> None:
    shown = {"validate", "plan", "run", "report", "export", "profile", "tables", "predict", "draw"}
    shown |= {"status", "list", "curves", "doctor", "replay", "baselines"}
    assert {words[1] for words in commands()} == shown


# All in one process, which imports torch once instead of twenty times.
RUN_ALL = """
import json, sys
from hrnet_search.cli import main
for words in json.load(sys.stdin):
    if status := main(words):
        sys.exit(f"{words}: exit status {status}")
print("all of them")
"""


def test_the_readmes_commands_run_in_order_and_leave_what_it_promises(checkout: Path) -> None:
    given = [words[1:] for words in commands()]
    for arguments in given:
        if arguments[0] in ("run", "plan", "baselines") and "smoke" not in arguments[1]:
            smaller = [*SMALLER, *(SMALLER_DRAWN if "camvid" not in arguments[1] else [])]
            is_search = any(name in arguments[1] for name in ("search", "pareto"))
            smaller += SMALLER_SEARCH if is_search else []
            arguments += [part for value in smaller for part in ("--set", value)]
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL], input=json.dumps(given),
        cwd=checkout, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("all of them\n")
    promised = re.findall(r"^\| `([^`]+/[^`]*)`", README, re.MULTILINE)
    assert len(promised) >= 4
    for path in promised:
        assert (checkout / path).exists(), path
    example = subprocess.run(
        [sys.executable, "example.py"], cwd=checkout / "reports" / "fusion_ablation" / "winner",
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert example.returncode == 0, example.stderr


@pytest.mark.parametrize("document", ["README.md", "docs/networks.md"])
def test_the_python_of_documents_prints_what_it_says(document: str, tmp_path: Path) -> None:
    text = (ROOT / document).read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    said = re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)
    assert said
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == said, done.stderr
