"""Mutants of study and space files: said to be wrong in one line or rehearsed, nothing left behind.

A mutant is a shipped file, or `SEARCH` below, with one to three mistakes: in its keys, its values,
its YAML or its bytes. The generator is seeded, so that the mutants are the same each time.
"""

import copy
import json
import random
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hrnet_search.cli import main
from hrnet_search.strategy import Sampler, Search

ROOT = Path(__file__).parents[1]
SEARCH = """\
# Every key of the section `search`, and limits that are counted and measured.
name: mutant
task:
  kind: pose
  loss: cross_entropy
  augmentation: {scale: 0.0, rotation: 0.0, half_body: 0.0}
  test: {flip: false}
data: {kind: synthetic_pose, num_train: 48, num_val: 8, input_size: [32, 32]}
space:
  base: {num_stages: 2, num_modules: 1, stage1_blocks: 1, stage1_width: 4, stem_width: 8}
  vary:
    width: {low: 2, high: 16, step: 2}
    num_blocks: {choices: [1, 2, [1, 2]]}
    fusion:
      arms:
        none: {final: false}
        final: {final: true, edges: all}
  limits: {profile.params: 20000, profile.latency: 1.0}
train: {steps: 18, batch_size: 8, lr: 2.0e-3, evaluations: 9}
seeds: 2
objectives: [metrics.ap, profile.params]
search:
  sampler: tpe
  networks: 12
  seed: 1
  start: [{width: 4, num_blocks: [1, 2], fusion: none}, {width: 6}]
  scheduler: asha
  reduction: 2
  first_rung: 2
  cost_bin: 1.5
  budget: 2h
  trial_limit: 30m
  max_failures: 1
  failure_budget: 4
"""
SHIPPED = sorted([*ROOT.glob("studies/**/*.yaml"), *ROOT.glob("spaces/*.yaml")])
SEEDS = {file: file.read_text() for file in SHIPPED} | {
    ROOT / "studies" / f"search_{sampler}.yaml": SEARCH.replace("tpe", sampler)
    for sampler in typing.get_args(Sampler)
    if sampler != "grid"
}
HUGE = 10**400
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7, 100, 10**4, 10**9, 10**12, 2**63, HUGE, -HUGE),
    *(0.0, -0.5, 0.5, 1.0, 1e-320, 1e308, float("nan"), float("inf"), -float("inf")),
    *("", " ", "x", "x" * 3000, "größe", "日本語", "\u202e\u2028", "\x07\x1b[2J\n\0", "1e3", "~"),
    *("none", "all", "grid", "random", "tpe", "asha", "2h", "9" * 400 + "d", "/dev/null", "."),
    *([], {}, [[]], [None], [[[[1]]]], [1, 2], [0.5, 2.0], [32, 64], {"a": {"b": [{}]}}),
    *({"low": 0, "high": 10**9}, {"low": 1, "high": 3}, {"choices": [1, 2]}, {"choices": [[]]}),
    *({"arms": {"a": {}, "\x1b\n": {}}}, {"kind": "pose"}, [{"width": True}], ["metrics.ap"]),
]
# In the place of a scalar, as text: what YAML has beside plain values.
WORDS = [
    *(
        '!!int ""',
        '!!float ""',
        "!!bool x",
        "!!null",
        "!!binary YQ==",
        "!!timestamp x",
        "!!set {a}",
    ),
    *("!!omap [a: 1]", "!!python/object:os.system ls", "!x y", "!!str 1", "!!int 1", "!!map [a]"),
    *("*nowhere", "&a [*a]", "&a {b: *a}", "{<<: {a: 1}}", "? [a]", "{[a]: 1}", "{1: 2}", "{a, a}"),
    *("[&b 1, *b]", "2001-01-01", "2001-99-99", "1:30", "1:59" * 60 + ".5", "0x" + "f" * 5000),
    *("1" * 5000, "1_000", "0o17", "0b1", '"\\ud800"', '"\\e[31m"', "'", '"', "|", ">-", "@", "`"),
    *("[" * 200 + "]" * 200, "{a: " * 60 + "1" + "}" * 60, "%", "- 1", "=", "<<", "\t", "# x"),
]
BYTES = [
    *(b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xc2\x85", b"\x1b", b"\x7f"),
    *(b"\t", b"\r", b"\n", b": ", b"- ", b"[", b"}", b"&a ", b"*a ", b"!!x ", b"---\n", b"...\n"),
    *(b"%YAML 9.9\n", b"'", b"#", b",", b"\n\n  ", b"9" * 30, b"\xf0\x9f\x98\x80", b"<<: *a\n"),
]


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of nested lists and mappings."""
    for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
        yield node, key
        if isinstance(value, dict | list):
            yield from places(value)


def misspelt(key: str, rng: random.Random) -> str:
    """Two letters changed places, one left out, one too many, another case, or another word."""
    place = rng.randrange(max(1, len(key)))
    return rng.choice(
        [
            key[:place] + key[place : place + 2][::-1] + key[place + 2 :],
            key[:place] + key[place + 1 :],
            key[:place] + rng.choice("aé\x1b\n.") + key[place:],
            key.upper(),
            rng.choice(["kind", "base", "width", "search", "", "x" * 500, "largeur", "<<"]),
        ]
    )


def in_its_values(text: str, rng: random.Random) -> bytes:
    """Keys left out, misspelt or copied, values replaced, changed by a little, or moved."""
    raw = yaml.safe_load(text)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        node, key = rng.choice(list(places(raw)) or [(raw, "x")])
        value = node.get(key) if isinstance(node, dict) else node[key]
        other, other_key = rng.choice(list(places(raw)) or [(raw, "x")])
        action = rng.choice(["delete", "misspell", "copy", "value", "value", "nudge", "nudge"])
        if action == "delete":
            del node[key]
        elif action == "misspell" and isinstance(node, dict):
            node[misspelt(key, rng)] = node.pop(key)
        elif action == "copy" and not isinstance(value, dict | list):
            other[other_key] = value
        elif action == "nudge" and type(value) in (int, float):
            node[key] = rng.choice([value + 1, value - 1, value * 2, -value, value / 2])
        elif action == "nudge" and type(value) is bool:
            node[key] = not value
        else:
            node[key] = copy.deepcopy(rng.choice(VALUES))  # it may be changed in its turn
    return yaml.safe_dump(raw, sort_keys=False, allow_unicode=rng.random() < 0.5).encode()


def in_its_yaml(text: str, rng: random.Random) -> bytes:
    """Values and lines replaced, repeated, indented or joined by anchors and aliases."""
    lines = text.splitlines(keepends=True)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        place = rng.choice([n for n, line in enumerate(lines) if ":" in line] or [0])
        key, _, value = lines[place].partition(":")
        new = rng.choice(
            [
                f"{key}: {rng.choice(WORDS)}\n",
                f"{key}: {rng.choice(WORDS)}\n",
                re.sub(r"[\w.]+(?=\W*$)", lambda _: rng.choice(WORDS), lines[place], count=1),
                lines[place] * 2,  # a key given twice
                f"{key}: &a{value or chr(10)}",
                f"{key}: *a\n",
                f"{key}:\n  <<: *a\n",
                f" {lines[place]}",
                lines[place].strip(),
                "",
            ]
        )
        lines[place] = new
    return "".join(lines).encode()


def in_its_bytes(text: str, rng: random.Random) -> bytes:
    """Cut off, bytes put in or replaced, or the end of another file in the place of its own."""
    content = text.encode()
    place = rng.randrange(len(content))
    action = rng.choice(["cut", "insert", "insert", "replace", "splice"])
    if action == "cut":
        return content[:place]
    if action == "splice":
        other = SEEDS[rng.choice(list(SEEDS))].encode()
        return content[:place] + other[rng.randrange(len(other)) :]
    skipped = rng.randint(1, 4) if action == "replace" else 0
    return content[:place] + rng.choice(BYTES) + content[place + skipped :]


MUTATIONS: tuple[Callable[[str, random.Random], bytes], ...] = (
    in_its_values,
    in_its_values,  # most of what people get wrong
    in_its_yaml,
    in_its_bytes,
)


def mutants(number: int, seed: str) -> Iterator[tuple[Path, bytes]]:
    """A shipped file and what became of it, each kind of mistake of each file in turn."""
    rng = random.Random(seed)
    files = list(SEEDS)
    for count in range(number):
        if count % len(files) == 0:
            rng.shuffle(files)
        file = files[count % len(files)]
        yield file, rng.choice(MUTATIONS)(SEEDS[file], rng)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the shipped spaces beside the studies, for relative paths."""
    (tmp_path / "spaces").symlink_to(ROOT / "spaces")
    for name in ("studies/paper", "spaces_", "out"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def commands(file: Path, capsys: pytest.CaptureFixture[str]) -> bool:
    """Whether the file is valid; it is checked and, if it is a valid study, rehearsed.

    Asserts what holds for every file: exit status 0, or 2 with one line that says why; the folder
    of the output empty, and nothing new beside the file.
    """
    out = next(p / "out" for p in file.parents if (p / "out").is_dir())
    before = sorted(out.parent.rglob("*"))
    for arguments in (["validate"], ["run", "--dry-run", "--out", str(out)]):
        status = main([*arguments, str(file)])
        said, err = capsys.readouterr()
        assert sorted(out.parent.rglob("*")) == before
        if status == 0:
            assert not err
            assert said.startswith(f"{file}: ok, ") or said.endswith("\nNothing was run.\n")
            continue
        assert status == 2
        assert not said
        assert err.startswith("hrnet-search: ")
        assert err.endswith("\n")
        assert err[:-1].isprintable()  # one line, nothing that a terminal would obey
        assert "Traceback" not in err
        return arguments[0] != "validate"  # spaces are valid, but no studies
    return True


def check(number: int, seed: str, place: Path, capsys: pytest.CaptureFixture[str]) -> int:
    """How many mutants were valid."""
    valid = 0
    for count, (origin, content) in enumerate(mutants(number, seed)):
        victim = place / origin.relative_to(ROOT)
        if origin.parent.name == "spaces":
            victim = place / "spaces_" / origin.name
        victim.write_bytes(content)
        try:
            valid += commands(victim, capsys)
        except BaseException as error:
            shown = f"mutant {count} of {seed!r}, {origin.name}:\n{content[:4000]!r}"
            raise AssertionError(f"{type(error).__name__}: {error}\n{shown}") from error
        victim.unlink()
    return valid


def test_mutants_are_refused_in_one_line_or_rehearsed(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 10 <= check(120, "few", place, capsys) <= 80


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["many", "more", "yet more"])
def test_many_mutants(seed: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 40 <= check(400, seed, place, capsys) <= 250


def test_the_files_themselves_are_valid(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(yaml.safe_load(SEARCH)["search"]) == set(Search.model_fields)
    victim = place / "studies" / "mutant.yaml"
    victim.write_text(SEARCH)
    assert commands(victim, capsys)


def test_the_mutants_are_the_same_each_time_and_differ() -> None:
    first = [content for _, content in mutants(100, "few")]
    assert first == [content for _, content in mutants(100, "few")]
    assert len(set(first)) > 95


# --- what would fill the memory, or the day ------------------------------------------------------

LAUGHS = "a0: &a0 [x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


def knobs(number: int) -> str:
    """Lines of a space with so many more knobs."""
    return "".join(f"    k{n}: {{arms: {{a: {{}}, b: {{}}}}}}\n" for n in range(number))


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("name: mutant", LAUGHS + "name: mutant", "a6: is longer than 1048576 characters with"),
        ("seeds: 2", f"seeds: {'[' * 10**4}", "is not valid YAML: maximum recursion depth"),
        ("seeds: 2", f"seeds: {'[' * 51 + ']' * 51}", "seeds: is nested in more than 50 lists"),
        ("seeds: 2", f"seeds: {'1' * 2**18}", "must be a text of at most 262144 bytes"),
        ("space:\n", "space: /dev/zero\nx:\n", "'/dev/zero': must be a text of at most 262144"),
        ("seeds: 2", f"seeds: {HUGE}", f"seeds: must be a number between -{2**63} and {2**63}"),
        ("[32, 32]", f"[{HUGE}, {HUGE}]", "data.input_size.0: must be a number between"),
        ("low: 2, high: 16", "low: 0, high: 1000000000", "width.high: 1000000000: makes more than"),
        ("num_modules: 1", "num_modules: 10000", "base.num_modules: 10000: must be at most 100"),
        ("stage1_blocks: 1", "stage1_blocks: 9999", "stage1_blocks: 9999: must be at most 100"),
        ("    fusion:\n", knobs(98) + "    fusion:\n", "must have at most 100 items"),
        ("budget: 2h", f"budget: {'9' * 400}d", "must be at most 10000d"),
        ("width: 6", "width: 6.0", "search.start.1.width: 6.0: must be one of 2, 4, 6, 8, 10"),
        ("width: 6", "num_blocks: true", "search.start.1.num_blocks: True: must be one of 1, 2, "),
        ("seeds: 2", 'seeds: !!int ""', "is not valid YAML: a value does not fit its tag"),
        ("seeds: 2", f"seeds: 1{':1' * 300}.5", "is not valid YAML: a value does not fit its tag"),
        ("seeds: 2", '"\\e[2J": 2', "\\x1b[2J: unknown key"),
        ("seeds: 2", 'title: "\\ud800"', "title: must be Unicode text, without surrogates"),
        ("seeds: 2", f"? {'[' * 20 + ']' * 20}\n: 1", "key must be a word; put it in quotes"),
    ],
)
def test_bombs_are_refused(
    old: str, new: str, rule: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = place / "studies" / "bomb.yaml"
    assert old in SEARCH
    victim.write_text(SEARCH.replace(old, new, 1))
    assert main(["validate", str(victim)]) == 2
    assert rule in capsys.readouterr().err
    assert not commands(victim, capsys)


def test_a_grid_of_too_many_modules_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = place / "spaces_" / "space.yaml"
    base = {"num_stages": 3, "num_modules": 100}
    victim.write_text(json.dumps({"base": base, "vary": {"width": {"low": 1, "high": 1001}}}))
    assert main(["validate", str(victim)]) == 2
    assert "vary: makes networks of more than 200000 modules in all" in capsys.readouterr().err
    victim.write_text(json.dumps({"base": base, "vary": {"width": {"low": 1, "high": 1000}}}))
    assert main(["validate", str(victim)]) == 0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "networks: 12",
            "networks: 1000000000000",
            "up to 1000000000000 of 1000000000000 networks",
        ),
        ("params: 20000", "params: 5.0e-324", "Then no more: all 0 networks of the space that"),
        ("[32, 32]", f"[{2**63 - 1}, {2**63 - 1}]", "tpe would propose up to 12 of 12 networks"),
        ("    fusion:\n", knobs(30) + "    fusion:\n", "tpe would propose up to 12 of 12 networks"),
        ("width: 6", f"{'}, {'.join(['width: 6'] * 200)}", "tpe would propose up to 12 of 12"),
    ],
)
def test_large_numbers_that_are_allowed_are_rehearsed(
    old: str, new: str, said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = place / "studies" / "large.yaml"
    assert old in SEARCH
    victim.write_text(SEARCH.replace(old, new, 1))
    assert main(["run", str(victim), "--dry-run", "--out", str(place / "out")]) == 0
    assert said in capsys.readouterr().out
    assert not list((place / "out").iterdir())


def test_a_million_trials_are_counted_not_listed(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "studies" / "smoke.yaml").read_text().replace("seeds: 2", "seeds: 1000")
    victim = place / "studies" / "smoke.yaml"
    victim.write_text(
        text.replace("across: {choices: [false, true]}", "width: {low: 1, high: 1000}")
    )
    assert main(["run", str(victim), "--dry-run", "--out", str(place / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "smoke: 1000000 of 1000000 trials would be run"
    assert lines[1].startswith("  width=1, seed 0: ")
    assert lines[-2:] == ["  ... and 999900 trials more", "Nothing was run."]
    assert len(lines) == 103
