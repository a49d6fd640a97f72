"""What is written down is true: commands parse, schemas are in step, links lead somewhere."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from hrnet_search.cli import _parser
from hrnet_search.paper.costs import COSTS
from hrnet_search.presets import PRESETS
from hrnet_search.rivals import RIVALS
from hrnet_search.study import json_schemas, load

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("reports/*.md")])
STUDIES = sorted(ROOT.glob("studies/**/*.yaml"))
SPACES = sorted(ROOT.glob("spaces/**/*.yaml"))


def commands() -> list[str]:
    """Every hrnet-search and make command in a fenced block of a document or a YAML header."""
    found = []
    for document in DOCUMENTS:
        for block in re.findall(r"```(?:bash|sh|console)\n(.*?)```", document.read_text(), re.S):
            found += [line.strip() for line in block.splitlines()]
    for file in [*STUDIES, *SPACES]:
        found += re.findall(r"^#.*?(hrnet-search .*)$", file.read_text(), re.MULTILINE)
    # A command ends at two spaces and a remark.
    found = [re.split(r"\s{2,}#|\s#\s", line)[0].strip() for line in found]
    return sorted({line for line in found if line.startswith(("hrnet-search ", "make "))})


def test_the_documents_hold_the_commands_they_should() -> None:
    assert {"make run", "make test"} <= set(commands())
    assert "hrnet-search run studies/smoke.yaml" in commands()


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("hrnet-search ")])
def test_every_documented_command_parses_and_its_files_are_valid(command: str) -> None:
    words = shlex.split(command)[1:]
    if words == ["--help"] or words == ["--version"]:
        return
    options = vars(_parser().parse_args(words))
    named = [options[name] for name in ("study", "target") if name in options]
    named += options.get("studies", [])
    for table in options.get("tables", []):
        assert table in COSTS
    for file in map(Path, options.get("files", named)):
        assert file.suffix or str(file) in {*PRESETS, *RIVALS} or words[0] != "profile", command
        if file.name == "mydata.yaml":  # the reader's own
            continue
        if file.suffix == ".yaml" and file.parts[0] in ("studies", "spaces"):
            load(ROOT / file, options.get("set", []))


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("make ")])
def test_every_documented_make_target_exists(command: str) -> None:
    done = subprocess.run(
        ["make", "--dry-run", *shlex.split(command)[1:]],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["study", "space"])
def test_the_schemas_in_docs_are_those_of_the_code(name: str) -> None:
    file = ROOT / "docs" / "schema" / f"{name}.schema.json"
    assert json.loads(file.read_text()) == json_schemas()[name], "run `make schema`"
    jsonschema.Draft202012Validator.check_schema(json_schemas()[name])


@pytest.mark.parametrize("file", [*STUDIES, *SPACES], ids=lambda file: file.name)
def test_every_shipped_file_meets_its_schema_and_opens_with_a_comment(file: Path) -> None:
    schema = json_schemas()["space" if file in SPACES else "study"]
    jsonschema.validate(yaml.safe_load(file.read_text()), schema)
    head = file.read_text().split("\n\n")[0]
    assert head.startswith("# ")
    assert "hrnet-search" in file.read_text().partition("\nname:")[0]


def test_a_schema_refuses_what_loading_refuses() -> None:
    raw = yaml.safe_load((ROOT / "studies" / "smoke.yaml").read_text())
    validator = jsonschema.Draft202012Validator(json_schemas()["study"])
    assert validator.is_valid(raw)
    for change in ({"extra": 1}, {"seeds": "3"}, {"seeds": 0}, {"task": {"kind": "poze"}}):
        assert not validator.is_valid({**raw, **change}), change


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: file.name)
def test_links_between_files_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", document.read_text())
    for link, place in links:
        if not link.startswith(("http://", "https://", "mailto:")):
            file = document.parent / link if link else document
            assert file.exists(), link
            assert not place or place in anchors(file), f"{link}#{place}"


def anchors(file: Path) -> set[str]:
    """What a document's headings are called in links, as GitHub makes it of them."""
    headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}
