"""A space is counted, costed and sampled as it says."""

from collections.abc import Mapping
from typing import Any

import pytest

from hrnet_search.arch import hrnet
from hrnet_search.cost import cost
from hrnet_search.errors import InputError
from hrnet_search.space import Space
from hrnet_search.survey import Survey, combinations, histogram, render, survey

SETTING: dict[str, Any] = {"head": "v1", "num_outputs": 17, "input_size": (64, 48)}
SMALL = {"num_modules": 1, "num_blocks": 1, "stage1_blocks": 1, "stage1_width": 8}


def space(vary: Mapping[str, Any], limits: Mapping[str, float] | None = None) -> Space:
    return Space.model_validate({"base": SMALL, "vary": vary, "limits": limits or {}})


def macs(width: int, **arguments: Any) -> int:
    return cost(hrnet(**{**SMALL, "width": width, **arguments}), **SETTING).macs


WIDTHS = {"width": {"choices": [4, 8, 16]}, "within": {"choices": [True, False]}}


def test_every_network_is_costed_once() -> None:
    found = survey(space(WIDTHS), **SETTING)
    assert (found.size, found.examined, found.distinct) == (6, 6, 3)  # one module has no inside
    assert found.complete
    assert found.values["profile.macs"] == [macs(4), macs(8), macs(16)]
    assert found.range("profile.macs") == (macs(4), macs(8), macs(16))


def test_a_limit_tells_the_share_that_meets_it_and_the_smallest_value() -> None:
    limits = {"profile.macs": macs(8), "profile.params": 1}
    found = survey(space(WIDTHS, limits), **SETTING)
    by_key = {limit.key: limit for limit in found.limits}
    assert by_key["profile.macs"].share == pytest.approx(2 / 3)
    assert by_key["profile.params"].share == 0
    smallest = cost(hrnet(**{**SMALL, "width": 4}), **SETTING).params
    assert by_key["profile.params"].smallest == smallest
    assert found.feasible == 0
    text = render(found, **SETTING)
    assert "66.7 % of the networks" in text
    assert "this limit cannot be met" in text


def test_limits_that_cannot_be_met_together_are_said_to_be() -> None:
    # The widest network has the fewest parameters of all where it has the fewest stages.
    arms = {"wide": {"width": 32, "num_stages": 2}, "deep": {"width": 12, "num_stages": 4}}
    found = survey(space({"shape": {"arms": arms}}), **SETTING)
    (wide, deep) = (cost(hrnet(**SMALL | arguments), **SETTING) for arguments in arms.values())
    assert wide.macs > deep.macs
    assert wide.params < deep.params
    limits = {"profile.macs": deep.macs, "profile.params": wide.params}
    text = render(survey(space({"shape": {"arms": arms}}), **SETTING, limits=limits), **SETTING)
    assert text.count("50.0 % of the networks") == 2
    assert "all limits: cannot be met together" in text
    assert found.feasible == 1


def test_given_limits_overrule_those_of_the_space() -> None:
    tight = space(WIDTHS, {"profile.macs": 1})
    found = survey(tight, **SETTING, limits={"profile.macs": 1e12})
    assert found.feasible == 1


def test_combinations_that_do_not_go_together_are_counted_and_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hrnet_search.survey.MAX_NETWORKS", 50)
    units = {"choices": ["basic", "bottleneck"]}
    # More than a grid may hold, so that loading checks each value beside the others' first alone.
    vary = {"unit": units, "width": {"choices": [8, 6]}, "stem_width": {"low": 1, "high": 9999}}
    large = space(vary)
    drawn = list(combinations(large, count=50, seed=0))
    wrong = sum(p["unit"] == "bottleneck" and p["width"] == 6 for p in drawn)
    found = survey(large, **SETTING)
    reason = "width: 6: must be a multiple of 4 in branches of bottleneck units"
    assert wrong > 0
    assert found.refused == (wrong, reason)
    assert f"{wrong} combinations do not go together, e.g. width: 6" in render(found, **SETTING)


def test_an_image_too_small_for_every_network_is_refused() -> None:
    with pytest.raises(InputError, match="builds no network at all: input_size"):
        survey(space(WIDTHS), head="v1", num_outputs=17, input_size=(16, 16))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"profile.mac": 1.0}, "limits: 'profile.mac': must be one of .*did you mean 'profile.mac"),
        ({"profile.latency": 1.0}, "limits: 'profile.latency': must be one of"),
        ({"profile.macs": 0.0}, "limits.profile.macs: 0.0: must be above 0"),
    ],
)
def test_a_limit_must_be_on_a_closed_form_and_above_0(
    limits: dict[str, float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        survey(space(WIDTHS), **SETTING, limits=limits)


def test_a_large_space_is_sampled_from_a_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hrnet_search.survey.MAX_NETWORKS", 5)
    large = space({"width": {"low": 1, "high": 1000}})
    seen: list[tuple[int, int]] = []
    found = survey(large, **SETTING, progress=lambda done, total: seen.append((done, total)))
    assert (found.size, found.examined, found.complete) == (1000, 5, False)
    assert seen[-1] == (5, 5)
    drawn = list(combinations(large, count=5, seed=0))
    assert len(drawn) == 5
    assert found.values["profile.macs"] == sorted({macs(int(p["width"])) for p in drawn})  # type: ignore[arg-type]
    assert list(combinations(large, count=5, seed=0)) == drawn
    assert list(combinations(large, count=5, seed=1)) != drawn
    assert "a random 5 looked at" in render(found, **SETTING)


def test_the_histogram_counts_every_network() -> None:
    values = [1e9 * 1.1**place for place in range(30)]  # more than there are rows
    rows = histogram(values)[1:]
    counts = [int(row.split()[-1].replace(",", "")) for row in rows]
    assert sum(counts) == 30
    assert histogram([2e9, 2e9, 3e9]) == ["GMACs of each: 2  3"]


def test_a_survey_is_complete_only_if_all_was_looked_at() -> None:
    found = Survey(10, 9, (0, ""), 1, {}, (), 1.0)
    assert not found.complete
