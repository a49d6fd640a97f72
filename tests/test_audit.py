"""Scores against accuracy: planted correlations are found, and what orders nothing is refused."""

from pathlib import Path

import numpy as np
import pytest
from made_table import accuracy, made_results, made_study, write_run
from scipy.stats import spearmanr

from hrnet_search import benchmark
from hrnet_search.audit import Audit, Bands, Row, audit, ensembles, refusal
from hrnet_search.errors import InputError

STUDY = made_study()
Scores = dict[str, dict[str, float]]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> benchmark.Table:
    folder = tmp_path_factory.mktemp("table")
    run = write_run(folder / "run", STUDY, made_results(STUDY))
    return benchmark.pack(run, folder / "made")


@pytest.fixture(scope="module")
def scores(table: benchmark.Table) -> Scores:
    """Sizes, scores whose correlation is known, and two that order nothing."""
    rng = np.random.default_rng(0)
    found = {}
    for key, network in table.networks.items():
        true = accuracy(network.params)
        found[key] = {
            "params": network.mean("profile.params"),
            "macs": network.mean("profile.macs"),
            "like": true**3,
            "against": -true,
            "noisy": true + rng.normal(0, 0.1),
            "constant": 4.0,
            "broken": true,
        }
    found[key]["broken"] = float("nan")
    return found


@pytest.fixture(scope="module")
def found(table: benchmark.Table, scores: Scores) -> Audit:
    return audit(table, scores, fitted=10, repetitions=20)


def row(found: Audit, name: str) -> Row:
    return next(each for each in found.rows if each.score == name)


def test_planted_orders_are_found(found: Audit) -> None:
    assert found.networks == 32
    for name, rho in (("like", 1.0), ("against", -1.0)):
        overall, within = row(found, name).overall, row(found, name).within
        assert overall is not None
        assert within is not None
        for part in (overall, within):
            assert [part.value, part.low, part.high] == pytest.approx([rho] * 3, abs=1e-12)


def test_rho_is_scipys(found: Audit, table: benchmark.Table, scores: Scores) -> None:
    values = [scores[key]["noisy"] for key in table.networks]
    true = [network.mean("metrics.ap") for network in table.networks.values()]
    overall = row(found, "noisy").overall
    assert overall is not None
    assert overall.value == pytest.approx(spearmanr(values, true).statistic, rel=1e-12)
    assert overall.low < overall.value < overall.high < 1


def test_what_orders_nothing_has_no_number(found: Audit) -> None:
    assert row(found, "constant") == Row("constant", "is constant")
    assert row(found, "broken") == Row("broken", "1 of 32 values are not finite")


def test_what_is_missing_is_not_finite(table: benchmark.Table, scores: Scores) -> None:
    some = {key: dict(row) for key, row in scores.items()}
    for key in list(some)[5:8]:
        del some[key]["like"]
    assert row(audit(table, some), "like").refused == "3 of 32 values are not finite"
    assert refusal(np.array([1.0, np.inf, 2.0])) == "1 of 3 values are not finite"
    assert refusal(np.array([1.0, 2.0])) == ""


def test_an_error_is_turned_round(tmp_path: Path, scores: Scores) -> None:
    """Of NME less is better: what grows with it foretells the worse."""
    study = made_study(objectives=["metrics.ap", "profile.macs"])
    table = benchmark.pack(write_run(tmp_path / "run", study, made_results(study)), tmp_path / "t")
    for network in table.networks.values():
        for training in network.trainings:
            training.metrics["nme"] = training.metrics["ap"]
    object.__setattr__(table.study, "objectives", ["metrics.nme", "profile.macs"])
    assert table.study.accuracy == "metrics.nme"
    overall = row(audit(table, scores), "like").overall
    assert overall is not None
    assert overall.value == pytest.approx(-1, abs=1e-12)


def test_another_seed_is_the_ceiling(found: Audit) -> None:
    """Seed 1 has the same order as seed 0."""
    assert found.ceiling == pytest.approx(1, abs=1e-12)


def test_bands_by_hand() -> None:
    """From 100 to 122.2, from 123 to 150.3 with four networks, from 200 on."""
    macs = np.array([100, 205, 110, 122, 123, 200, 105, 101, 130, 140, 150, 210, 202, 240])
    bands = Bands(macs.astype(float))
    assert [sorted(macs[band]) for band in bands.members] == [
        [100, 101, 105, 110, 122],
        [200, 202, 205, 210, 240],
    ]
    assert bands.count == 10


def test_within_bands_the_size_itself_does_not_count() -> None:
    """One band of five in order, one of ten in reverse, one of five all equal: -5 / 20."""
    macs = np.repeat([1.0, 2.0, 3.0], [5, 10, 5])
    accuracy = np.arange(20.0)
    score = np.concatenate([np.arange(5.0), 100 - np.arange(10.0), np.full(5, 1000.0)])
    assert Bands(macs).correlation(score, accuracy) == pytest.approx(-0.25, rel=1e-12)
    assert Bands(macs[:4]).correlation(score[:4], accuracy[:4]) is None


# --- ensembles -----------------------------------------------------------------------------------


def columns(count: int) -> dict[str, np.ndarray]:
    """Independent of each other."""
    rng = np.random.default_rng(1)
    return {name: rng.normal(size=count) for name in ("params", "macs", "one", "two")}


def test_an_ensemble_is_recommended_where_scores_say_more_than_size() -> None:
    given = columns(160)
    accuracy = given["one"] + given["two"]
    found = {
        e.name: e for e in ensembles(given, accuracy, given["macs"] + 9, fitted=40, repetitions=30)
    }
    best = found["ridge of scores and sizes"]
    assert best.overall.value > 0.9
    assert best.gain.low > 0.5
    assert best.recommended
    assert found["mean rank of scores"].recommended
    assert not found["ridge of sizes"].recommended


def test_no_ensemble_is_recommended_where_size_says_all() -> None:
    given = columns(160)
    for each in ensembles(given, given["macs"], given["macs"] + 9, fitted=40, repetitions=30):
        assert not each.recommended
        assert each.gain.high <= 1e-12


def test_a_ridge_finds_out_that_less_of_a_score_is_better() -> None:
    given = columns(160)
    accuracy = -2 * given["one"]
    found = {
        e.name: e for e in ensembles(given, accuracy, given["macs"] + 9, fitted=40, repetitions=30)
    }
    assert found["ridge of scores and sizes"].overall.value > 0.9
    assert found["mean rank of scores"].overall.value < -0.5


def test_refused_scores_are_in_no_ensemble(found: Audit, table: benchmark.Table) -> None:
    assert {each.name for each in found.ensembles} == {
        *("mean rank of scores", "ridge of sizes", "ridge of scores and sizes"),
    }
    assert all(np.isfinite(each.overall.value) for each in found.ensembles)


def test_with_too_few_networks_none_is_tried(table: benchmark.Table, scores: Scores) -> None:
    assert audit(table, scores, fitted=17).ensembles == ()


def test_refusals(table: benchmark.Table, scores: Scores) -> None:
    few = dict(list(scores.items())[:2])
    with pytest.raises(InputError, match="scores: must be of at least three"):
        audit(table, few)
    without = {key: {"macs": row["macs"]} for key, row in scores.items()}
    with pytest.raises(InputError, match=r"scores\.params: is missing"):
        audit(table, without)
    equal = {key: {**row, "macs": 1.0} for key, row in scores.items()}
    with pytest.raises(InputError, match=r"scores\.macs: is constant"):
        audit(table, equal)
