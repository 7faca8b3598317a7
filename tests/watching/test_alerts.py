"""Which entries of the ledger are told to people, and in which words."""

from typing import Any

import pytest

from assets.registry.ledger import Entry
from assets.settings import load_domain
from assets.watching.alerts import Alert, alerts

DOMAIN = load_domain()
EVERY = ("failure", "person", "drift", "budget")
SECRET = "they took my house"


def told(*entries: tuple[str, str, dict[str, Any]], kinds: tuple[str, ...] = EVERY) -> list[Alert]:
    """The alerts of entries, given by kind, as-of and body."""
    ledger = [Entry(n, kind, str(n), as_of, body, f"h{n}") for n, (kind, as_of, body) in enumerate(entries, 1)]
    return list(alerts(ledger, DOMAIN, kinds))


def night(day: str, decision: str = "skip", **numbers: Any) -> tuple[str, str, dict[str, Any]]:
    known = {"champion": "t1", "drifted": [False], "spent": 10.0, "cost": 5.0} | numbers
    body = {"decision": decision, "reason": "the month is over", "numbers": known, "policy": {"budget_per_month": 50.0}}
    return "retraining", day, body


def test_drift_is_told_when_it_begins_also_for_another_champion() -> None:
    days = [(False, "t1"), (True, "t1"), (True, "t1"), (None, "t1"), (True, "t1"), (True, "t2")]
    found = told(*(night(f"2024-07-0{n}", drifted=[drifted], champion=who) for n, (drifted, who) in enumerate(days, 1)))
    assert [alert.as_of[-1] for alert in found] == ["2", "5", "6"]
    assert {alert.kinds for alert in found} == {("drift",)}
    assert found[0].text.startswith(f"{DOMAIN.title}, as of 2024-07-02: The newest {DOMAIN.record.many} are not like")


def test_a_spent_budget_is_told_once_a_month_and_with_what_else_an_entry_says() -> None:
    spent = [
        night(f"2024-{month}-{day}", "alert-a-human", spent=48.0) for month in ("07", "08") for day in ("01", "02")
    ]
    found = told(*spent)
    assert [alert.kinds for alert in found] == [("person", "budget"), ("person",)] * 2
    assert "48.00 of the month's 50.00 for retrainings are spent, and another costs 5.00." in found[0].text
    assert "A person is needed: the month is over." in found[0].text
    assert told(*spent, kinds=("budget",))[0].kinds == ("budget",)
    assert told(night("2024-07-01"), night("2024-07-02", spent=0.0, cost=60.0)) == []


def test_a_version_that_awaits_approval_is_told_with_its_numbers() -> None:
    numbers = {"challenger_accuracy": 0.9123, "champion_accuracy": 0.88}
    body = {"version": "4", "decision": "awaiting-approval", "numbers": numbers, "reasons": [SECRET]}
    (alert,) = told(("verdict", "2024-07-01", body), ("verdict", "2024-07-01", body | {"decision": "reject"}))
    assert alert.text.endswith("Version 4 awaits a person's approval; its accuracy is 91.2%; the champion's is 88.0%.")
    assert SECRET not in alert.text


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (f"stopped at training_set: ValueError: {SECRET}", " at training_set"),
        ("stopped at the start: x", ""),
        (f"{SECRET}", ""),
        (f"stopped at {SECRET}: x", ""),
    ],
)
def test_a_failed_run_is_told_without_what_its_error_quotes(error: str, where: str) -> None:
    (alert,) = told(("failure", "2024-07-01", {"job": "observe", "run_id": "r1", "error": error}))
    assert alert.text.endswith(f": A run of observe failed{where}; `evergreen ledger` says why.")
    assert SECRET not in alert.body().decode()
    assert (alert.key, alert.run_id) == ("h1", "r1")


def test_nothing_else_in_the_ledger_is_told() -> None:
    others = ("alias", "approval", "withdrawal", "attempt", "lapse", "alias-edit", "prune")
    assert told(*((kind, "2024-07-01", {"key": SECRET}) for kind in others)) == []
