"""What a driver heeds while trials run, without any that does."""

from pathlib import Path

import pytest
from searching import STEPS, history, opened, run_all, score, searching, write_result

from hrnet_search.files import read_json, write_json
from hrnet_search.search import session as module
from hrnet_search.search.ledger import Ledger
from hrnet_search.search.session import Halted, Session, front_of


def session(ledger: Ledger) -> Session:
    return Session(ledger, jobs=2, steps=STEPS)


def test_a_first_ctrl_c_lets_workers_save_and_a_second_ends(tmp_path: Path) -> None:
    with opened(tmp_path, searching(networks=2)) as ledger:
        job, made = ledger.next(), session(ledger)
        assert job is not None
        made.interrupt(2, None)
        made.tick()
        assert made.is_closing
        word = read_json(ledger.trial_folder(job.trial) / "stop.json")
        assert word == {"attempt": 1, "word": "pause"}
        with pytest.raises(KeyboardInterrupt):
            made.interrupt(2, None)


def test_workers_that_do_not_leave_are_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE_OF_CTRL_C", -1.0)
    with opened(tmp_path, searching(networks=2)) as ledger:
        job, made = ledger.next(), session(ledger)
        assert job is not None
        made.interrupt(2, None)
        with pytest.raises(KeyboardInterrupt):
            made.tick()
        assert ledger.finish(job.trial) == (None, True)
        made.tick()  # nobody is running any more


def test_a_budget_counts_all_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = searching(networks=2, budget="1h")
    with opened(tmp_path, study) as ledger:
        write_json(tmp_path / "status.json", {"seconds": 3599.0})
        assert not session(ledger).is_used_up()
        write_json(tmp_path / "status.json", {"seconds": 3600.0})
        made = session(ledger)
        assert made.is_used_up()
        assert ledger.next() is not None
        made.tick()
        assert made.is_closing
        monkeypatch.setattr(module, "GRACE", -1.0)
        with pytest.raises(Halted) as halted:
            made.tick()
    assert halted.value.ending == "paused"
    assert halted.value.reason.startswith("the budget of 1h is used up with 2 trials to go")


def test_failures_count_until_a_trial_does_not_fail(tmp_path: Path) -> None:
    def end(states: list[str], made: Session, ledger: Ledger) -> None:
        for state in states:
            job = ledger.next()
            assert job is not None
            write_result(ledger, job, state=state, ap=0.5, points=history(0.5))
            made.end(job.trial, ledger.finish(job.trial)[0], again=False)

    study = searching(networks=9, failure_budget=2)
    with opened(tmp_path / "a", study) as ledger:
        end(["failed", "complete", "failed", "failed"], session(ledger), ledger)
    with opened(tmp_path / "b", study) as ledger:
        end(["failed"], session(ledger), ledger)
    with opened(tmp_path / "b", study) as ledger, pytest.raises(Halted) as halted:
        end(["failed"], session(ledger), ledger)
    assert (halted.value.ending, halted.value.reason) == (
        "stopped",
        "the first 2 trials have all failed; the same command goes on",
    )


def test_what_is_reported_again_is_no_progress(tmp_path: Path) -> None:
    with opened(tmp_path, searching(networks=2)) as ledger:
        job, made = ledger.next(), session(ledger)
        assert job is not None
        points = history(0.5)
        lines = "".join(f'{{"step": {p["step"]}, "loss": 1.0}}\n' for p in points[:4])
        (ledger.trial_folder(job.trial) / "history.jsonl").write_text(lines)
        made.begin(job.trial)
        for point in points[:4]:
            made.hear(job.trial, point)
        assert made.status("running")["left"] is None
        made.hear(job.trial, points[4])
        status = made.status("running")
    assert status["left"] is not None
    (running,) = status["running"]
    assert (running["step"], running["value"]) == (10, points[4]["ap"])


def test_the_front_is_of_means_over_seeds(tmp_path: Path) -> None:
    study = searching(networks=3, seeds=2)
    with opened(tmp_path, study) as ledger:
        run_all(ledger)
        results = ledger.results()
    means: dict[str, tuple[float, float]] = {
        r.key: ((score(r.key, 0) + score(r.key, 1)) / 2, r.profile["macs"]) for r in results
    }
    points = list(means.values())
    best = [p for p in points if not any(q[0] >= p[0] and q[1] <= p[1] and q != p for q in points)]
    size, area = front_of(study, results)
    assert size == len(best)
    steps, most = sorted(best, key=lambda p: p[1]), max(p[1] for p in points)
    widths = [b[1] - a[1] for a, b in zip(steps, [*steps[1:], (0, most)], strict=True)]
    assert area == pytest.approx(sum(p[0] * w for p, w in zip(steps, widths, strict=True)))
    assert front_of(study, []) == (0, None)
