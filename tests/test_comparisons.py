"""Which arms are compared, and when they get more seeds."""

import math

import numpy as np
import pytest
import yaml

from hrnet_search.comparisons import (
    ALL_PAIRS,
    Family,
    compared,
    families,
    level,
    looked_at,
    looks,
    seeds_wanted,
    set_beside,
)
from hrnet_search.errors import InputError
from hrnet_search.stats import LEVEL, Pair, p_of_t, p_of_table
from hrnet_search.study import load_study

FUSION = {
    "final": {"across": False, "within": False},
    "+across": {"within": False},
    "+within": {},
}


def make(tmp_path, *, arms=FUSION, **study):
    settings = {
        "name": "made_up",
        "task": {"kind": "pose", "loss": "cross_entropy"},
        "data": {"kind": "synthetic_pose", "num_train": 64, "num_val": 8, "input_size": [64, 32]},
        "space": {
            "base": {"width": 8, "num_modules": [1, 2, 2], "num_blocks": 1, "stage1_blocks": 1},
            "vary": {"fusion": {"arms": arms}},
        },
        "train": {"steps": 20, "batch_size": 4, "lr": 0.001},
        "seeds": 5,
        **study,
    }
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(settings, sort_keys=False))
    return load_study(file)


def ended(values):
    return lambda arm, seed: seed in values.get(arm, {})


def by_seed(values):
    return {seed: float(value) for seed, value in enumerate(values)}


# --- families ------------------------------------------------------------------------------------


def test_few_arms_are_all_compared(tmp_path):
    pairs = (("final", "+across"), ("final", "+within"), ("+across", "+within"))
    assert families(make(tmp_path)) == [Family("", pairs)]


def test_many_arms_are_compared_with_the_reference(tmp_path):
    arms = {f"w{width}": {"width": width} for width in range(8, 9 + ALL_PAIRS)}
    study = make(tmp_path, arms=arms, reference="w9")
    others = [name for name in arms if name != "w9"]
    assert families(study) == [Family("", tuple((name, "w9") for name in others))]


def test_with_match_networks_of_equal_cost_are_a_table_of_their_own(tmp_path):
    study = make(tmp_path, match={"profile.macs": "reference"})
    one, two = families(study)
    assert one == Family("as removed", families(make(tmp_path))[0].pairs)
    assert (two.title, two.pairs) == (
        "at equal GMACs",
        (
            ("final, matched", "+across, matched"),
            ("final, matched", "+within"),
            ("+across, matched", "+within"),
        ),
    )


def test_the_papers_differences_come_in(tmp_path):
    study = make(tmp_path)
    values = {name: by_seed([k, k + 1, 1.01 * k]) for k, name in enumerate(FUSION)}
    found = compared(study, families(study)[0], values, paper={"final": 0.5, "+within": 0.25})
    assert [one.paper for one in found] == [None, 0.25, None]
    assert [one.verdict for one in found] == ["shown", "contradicted", "shown"]


def varied(tmp_path, widths=2, **study):
    arms = {f"w{width}": {"width": width} for width in range(8, 8 + widths)}
    variants = {"v1": {}, "v1h": {"task": {"head": "v1h"}}, "v2": {"task": {"head": "v2"}}}
    return make(tmp_path, arms=arms, variants=variants, **study)


def test_variants_of_a_network_and_networks_under_a_variant_are_tables_of_their_own(tmp_path):
    one, two = families(varied(tmp_path, reference="w8, v1h"))
    assert one == Family(
        "between networks", tuple((f"w9, {name}", f"w8, {name}") for name in ("v1", "v1h", "v2"))
    )
    pairs = (("v1", "v2"), ("v1", "v1h"), ("v2", "v1h"))  # the reference's variant is the last
    assert two == Family(
        "between variants",
        tuple((f"{w}, {a}", f"{w}, {b}") for w in ("w8", "w9") for a, b in pairs),
    )


def test_variants_of_the_only_network_are_one_table(tmp_path):
    (family,) = families(varied(tmp_path, widths=1))
    assert family == Family("between variants", (("v1", "v1h"), ("v1", "v2"), ("v1h", "v2")))


def test_many_networks_are_compared_with_the_references_under_each_variant(tmp_path):
    one, _ = families(varied(tmp_path, widths=1 + ALL_PAIRS, reference="w9, v2"))
    assert set(one.pairs) == {
        (f"w{width}, {name}", f"w9, {name}")
        for width in range(8, 9 + ALL_PAIRS)
        for name in ("v1", "v1h", "v2")
        if width != 9
    }


def test_each_family_of_variants_is_corrected_by_itself(tmp_path):
    study = varied(tmp_path)
    rng = np.random.default_rng(0)
    values = {study.arm(p): by_seed(rng.normal(size=5)) for p in study.arms()}
    for family in families(study):
        pairs = [Pair(values[a], values[b], None) for a, b in family.pairs]
        found = compared(study, family, values, {})
        assert [one.p_table for one in found] == p_of_table(pairs)


def test_an_arm_is_set_beside_the_same_network_under_the_references_variant(tmp_path):
    assert set_beside(varied(tmp_path, reference="w8, v1h")) == {
        "w8, v1": "w8, v1h", "w8, v1h": "w8, v1h", "w8, v2": "w8, v1h",
        "w9, v1": "w9, v1h", "w9, v1h": "w8, v1h", "w9, v2": "w9, v1h",
    }  # fmt: skip
    assert set(set_beside(make(tmp_path)).values()) == {"+within"}


def test_a_network_without_an_arm_under_the_references_variant_is_compared_all_the_same(tmp_path):
    """With a limit that leaves out the wide one under V2, where the reference is."""
    free = varied(tmp_path)
    macs = {free.arm(p): free.costs(p)["profile.macs"] for p in free.arms()}
    most = (macs["w9, v1h"] + macs["w9, v2"]) / 2
    assert most > macs["w8, v2"]
    space = {
        "base": {"num_modules": [1, 2, 2], "num_blocks": 1, "stage1_blocks": 1},
        "vary": {"size": {"arms": {"w8": {"width": 8}, "w9": {"width": 9}}}},
        "limits": {"profile.macs": most},
    }
    study = varied(tmp_path, space=space, reference="w8, v2")
    assert {study.arm(p) for p in study.arms()} == macs.keys() - {"w9, v2"}
    one, two = families(study)
    assert one.pairs == (("w9, v1", "w8, v1"), ("w9, v1h", "w8, v1h"))
    assert ("w9, v1", "w9, v1h") in two.pairs
    assert set_beside(study)["w9, v1"] == "w9, v1h"
    assert set_beside(study)["w9, v1h"] == "w9, v1h"


# --- adaptive seeds ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seeds", "most", "step", "at"),
    [(5, 20, 5, [5, 10, 15, 20]), (5, 12, 5, [5, 10, 12]), (3, 4, 5, [3, 4]), (2, 8, 6, [2, 8])],
)
def test_looks_are_fixed_beforehand(tmp_path, seeds, most, step, at):
    study = make(tmp_path, seeds=seeds, adaptive={"most": most, "step": step})
    assert looks(study) == at
    assert level(study) == pytest.approx(LEVEL / len(at))


def test_without_it_there_is_one_look(tmp_path):
    study = make(tmp_path)
    assert (looks(study), level(study)) == ([5], LEVEL)
    assert seeds_wanted(study, {}, ended({})) == dict.fromkeys(FUSION, 5)


CLEAR = [0.50, 0.51, 0.49, 0.50, 0.52]
ABOUT = [0.61, 0.58, 0.62, 0.59, 0.60]
REFERENCE = [0.60, 0.60, 0.61, 0.60, 0.60]


def test_what_is_undecided_gets_more_and_the_reference_with_it(tmp_path):
    study = make(tmp_path, adaptive={"most": 15})
    values = dict(zip(FUSION, map(by_seed, (CLEAR, ABOUT, REFERENCE)), strict=True))
    wanted = {"final": 5, "+across": 10, "+within": 10}
    assert seeds_wanted(study, values, ended(values)) == wanted
    # Until these have ended, nothing more.
    values["+across"] = by_seed(ABOUT * 2)
    assert seeds_wanted(study, values, ended(values)) == wanted
    values["+within"] = by_seed(REFERENCE * 2)
    wanted = {"final": 5, "+across": 15, "+within": 15}
    assert seeds_wanted(study, values, ended(values)) == wanted
    # And not more than that, though it is undecided still.
    values |= {"+across": by_seed(ABOUT * 3), "+within": by_seed(REFERENCE * 3)}
    assert seeds_wanted(study, values, ended(values)) == wanted


def test_a_trial_that_failed_has_ended(tmp_path):
    study = make(tmp_path, adaptive={"most": 10})
    values = dict(zip(FUSION, map(by_seed, (CLEAR, ABOUT, REFERENCE)), strict=True))
    done = ended({name: dict(value) for name, value in values.items()})
    del values["final"][3]
    assert seeds_wanted(study, values, done)["+across"] == 10
    del values["final"][0], values["final"][1], values["final"][2]
    assert seeds_wanted(study, values, done) == dict.fromkeys(FUSION, 10)  # one pair tells nothing


@pytest.mark.parametrize("failed", [["final"], ["+within"], ["final", "+across"]])
def test_what_has_failed_with_every_seed_gets_no_more(tmp_path, failed):
    """Nor do the others, if it is the reference."""
    study = make(tmp_path, adaptive={"most": 10})
    values = {name: {} if name in failed else by_seed([0.4, 0.5, 0.3, 0.5, 0.4]) for name in FUSION}
    values["+within"] = values["+within"] and by_seed([0.5, 0.4, 0.4, 0.3, 0.5])
    wanted = seeds_wanted(study, values, lambda arm, seed: seed < 5)
    expected = {"final": 5, "+across": 10, "+within": 10} if failed == ["final"] else {}
    assert wanted == dict.fromkeys(FUSION, 5) | expected


def test_all_decided(tmp_path):
    study = make(tmp_path, adaptive={"most": 10})
    values = dict(zip(FUSION, map(by_seed, (CLEAR, CLEAR, REFERENCE)), strict=True))
    assert seeds_wanted(study, values, ended(values)) == dict.fromkeys(FUSION, 5)


def test_a_decision_stays_whatever_the_others_do(tmp_path):
    """Holm's correction is of the whole table, but better company makes nothing undecided."""
    study = make(tmp_path, adaptive={"most": 10})
    rng = np.random.default_rng(0)
    for _ in range(100):
        values = {name: by_seed(rng.normal(0, 1, 10)) for name in FUSION}
        for name in ("final", "+across"):
            shift = rng.normal(0, 3)
            values[name] = {seed: value + shift for seed, value in values[name].items()}
        first = {name: by_seed(list(value.values())[:5]) for name, value in values.items()}
        wanted = seeds_wanted(study, first, ended(first))
        last = {n: by_seed(list(values[n].values())[: wanted[n]]) for n in FUSION}
        before, after = shown(study, first), shown(study, last)
        decided = [name for name in ("final", "+across") if wanted[name] == 5]
        assert [v for v, n in zip(before, ("final", "+across"), strict=True) if n in decided] == [
            v for v, n in zip(after, ("final", "+across"), strict=True) if n in decided
        ]


def shown(study, values):
    """Whether each comparison is, as verdicts have it."""
    (family,) = families(study)
    p = p_of_table([Pair(values[arm], values[other]) for arm, other in family.pairs])
    return [value <= level(study) for value in p]


def sequential(study, draw, rng):
    """A whole study's verdicts; `draw` gives the values of an arm's next seeds."""
    values = {name: {} for name in FUSION}
    while True:
        wanted = seeds_wanted(study, values, ended(values))
        missing = {n: [s for s in range(wanted[n]) if s not in values[n]] for n in FUSION}
        if not any(missing.values()):
            return shown(study, values), wanted
        for name, seeds in missing.items():
            values[name] |= {seed: float(draw(name, rng)) for seed in seeds}


STUDIES = 500


def test_looking_often_does_not_raise_the_error(tmp_path):
    """No effect, four looks: false verdicts stay as rare as with one; without care they do not."""
    study = make(tmp_path, adaptive={"most": 20})
    rng = np.random.default_rng(0)
    found = [sequential(study, lambda _, r: r.normal(), rng)[0] for _ in range(STUDIES)]
    false = sum(any(verdicts) for verdicts in found)
    assert false <= 0.05 * STUDIES + 3 * math.sqrt(STUDIES * 0.05 * 0.95)

    careless = 0
    for _ in range(STUDIES):  # the same looks, each at 5 %
        arms = rng.normal(size=(3, 20))
        careless += any(
            p_of_t(arms[k, :n] - arms[2, :n]) <= LEVEL for n in looks(study) for k in range(2)
        )
    assert careless > 0.10 * STUDIES


def test_effects_are_found_with_fewer_seeds(tmp_path):
    """A large effect and none: the one is decided early, the other gets all seeds."""
    study = make(tmp_path, adaptive={"most": 20})
    effects = {"final": -4.0, "+across": 0.0, "+within": 0.0}
    rng, found, seeds, full = np.random.default_rng(1), 0, [], 0
    for _ in range(100):
        verdicts, wanted = sequential(study, lambda name, r: effects[name] + r.normal(), rng)
        found += verdicts[0]
        seeds.append(wanted["final"])
        full += wanted["+across"] == 20
    assert found >= 99
    assert np.mean(seeds) < 9
    assert full >= 90


def test_between_looks_verdicts_rest_on_the_last_one(tmp_path):
    study = make(tmp_path, adaptive={"most": 15})
    values = dict(zip(FUSION, map(by_seed, (CLEAR, ABOUT, REFERENCE)), strict=True))
    first = {name: dict(value) for name, value in values.items()}
    assert looked_at(study, values, ended(values)) == first
    values["+across"] = by_seed([*ABOUT, 0.1, 0.1])  # two of five more have ended
    assert looked_at(study, values, ended(values)) == first
    values |= {"+across": by_seed(ABOUT * 2), "+within": by_seed(REFERENCE * 2)}
    assert looked_at(study, values, ended(values)) == values
    # Before the first look, and without looks, all that there are.
    few = {"final": by_seed(CLEAR[:2])}
    assert looked_at(study, few, ended(few)) == few
    assert looked_at(make(tmp_path), values, ended(values)) == values


# --- bad settings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adaptive": {"most": 5}}, "adaptive.most: 5: must be above seeds"),
        ({"adaptive": {"most": 10}, "seeds": 1}, "seeds: 1: must be at least 2 with adaptive"),
        ({"adaptive": {"steps": 10}}, "adaptive.steps"),
        (
            {"adaptive": {"most": 26, "step": 1}},
            "adaptive.step: 1: must be larger: with so many steps there are more than 20 looks",
        ),
        (
            {"adaptive": {"most": 10}, "search": {"sampler": "random", "networks": 2}},
            "adaptive: ",
        ),
    ],
)
def test_bad_settings(tmp_path, changes, message):
    with pytest.raises(InputError) as caught:
        make(tmp_path, **changes)
    assert message in str(caught.value)
