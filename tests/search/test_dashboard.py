"""A study's ledger is an Optuna storage like any other: optuna-dashboard shows it."""

import io
import json
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

from optuna_dashboard import wsgi
from searching import opened, run_all, searching


def get(application: Any, path: str) -> Any:
    """What the dashboard answers its own page."""
    asked: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": "GET"}
    setup_testing_defaults(asked)
    asked["wsgi.input"] = io.BytesIO()
    said: list[str] = []
    body = b"".join(application(asked, lambda status, headers, *_: said.append(status)))
    assert said == ["200 OK"], (path, said, body)
    return json.loads(body)


def fate(trial: dict[str, Any]) -> Any:
    return {each["key"]: each["value"] for each in trial["user_attrs"]}["fate"]


def test_optuna_dashboard_shows_trainings_and_proposals(tmp_path: Path) -> None:
    ledger = opened(tmp_path, searching(networks=3))
    jobs = run_all(ledger)
    application = wsgi(f"sqlite:///{tmp_path / 'study.db'}")
    found = {
        study["study_name"]: study for study in get(application, "/api/studies")["study_summaries"]
    }
    assert set(found) == {"tiny", "tiny/networks"}
    for name in found:
        shown = get(application, f"/api/studies/{found[name]['study_id']}")
        assert shown["objective_names"] == ["metrics.ap", "profile.macs"]
        # A repeated proposal, which is answered and not trained, is shown among the proposals.
        new = [t for t in shown["trials"] if name == "tiny" or fate(t) == "new"]
        assert [trial["state"] for trial in new] == ["Complete"] * 3
        params = [{p["name"]: p["param_external_value"] for p in t["params"]} for t in new]
        assert params == [{key: str(value) for key, value in job.params.items()} for job in jobs]
