"""Who answers as the ledger moves: the champion, a canary, a shadow, or nobody."""

import json
import sqlite3
from contextlib import closing
from typing import Any

import duckdb
import pytest

from assets.evaluation.live import live_answers
from assets.home import Home
from assets.ingestion.served import served_events, spool
from assets.registry.registry import Registry
from assets.registry.succession import Succession
from assets.retention.prune import plan, prune
from assets.serving.answering import falls_within
from assets.settings import load_settings

SETTINGS = load_settings("quick")


def events(home: Home, what: str) -> list[tuple[Any, ...]]:
    return duckdb.sql(
        f'select {what} from read_parquet({served_events(home.lake)}) order by "at", record_id'
    ).fetchall()


def test_a_moved_alias_is_followed_and_every_answer_is_by_who_was_champion(
    client: Any, judged: Any, home: Home
) -> None:
    answers = client.ask("mortgage cards")
    judged("second-2")
    client.until(lambda: client.ask("other")[0]["training_id"] == "second-2")
    answers += client.ask("mortgage cards")
    Succession(Registry(home)).rollback("1", "to see it")
    client.until(lambda: client.ask("other")[0]["training_id"] == "first-1")
    answers += client.ask("mortgage cards")
    moves = [(entry.body["training_id"], entry.seq) for entry in Registry(home).ledger.entries("alias")]
    assert [(one["training_id"], one["ledger_entry"]) for one in answers] == moves
    assert [one["predicted"] for one in answers] == ["mortgage", "cards", "mortgage"]


def test_a_champion_that_does_not_answer_as_evaluated_never_answers(
    serving: Any, judged: Any, golden: dict[str, int]
) -> None:
    judged("first-1")
    golden["second-2"] = 1
    with serving(load_seconds=1000) as client:
        client.until(lambda: client.server.follower.standings.champion)
        judged("second-2")
        client.until(lambda: "10 golden rows" in str(client.server.follower.standings.problem))
        assert client.ask("cards")[0]["training_id"] == "first-1", "its successor is not ready yet"
        client.server.follower._settings = client.server.settings.model_copy(update={"load_seconds": 0.001})
        client.until(lambda: client.server.state()["problem"])
        done = client.http.post("/v1/predict", json={"records": [{"complaint_id": "1", "narrative": "cards"}]})
        assert (done.status_code, "golden rows" in done.text) == (503, True)


def test_with_a_ledger_that_was_altered_nobody_answers(client: Any, home: Home) -> None:
    with closing(sqlite3.connect(home.ledger)) as connection, connection:
        connection.execute("drop trigger entries_are_not_updated")
        connection.execute("update entries set as_of = '2020-01-01', hash = 'x' where kind = 'alias'")
    client.until(lambda: client.server.state()["problem"])
    assert "the ledger is not as it was written" in client.http.get("/readyz").json()["problem"]
    assert client.http.post("/v1/predict", json={"records": [{"complaint_id": "1"}]}).status_code == 503


def test_shares_are_of_the_records_and_the_same_ones_every_time() -> None:
    ids = [str(number) for number in range(4000)]
    chosen = {one for one in ids if falls_within(0.25, "a", one)}
    assert len(chosen) == pytest.approx(1000, abs=100)
    assert chosen == {one for one in ids if falls_within(0.25, "a", one)}
    assert chosen < {one for one in ids if falls_within(0.5, "a", one)}
    assert len(chosen & {one for one in ids if falls_within(0.25, "b", one)}) == pytest.approx(250, abs=60)
    assert not any(falls_within(0.0, "a", one) for one in ids)
    assert all(falls_within(1.0, "a", one) for one in ids)


def test_a_canary_answers_its_share_is_marked_and_is_compared_with_the_champion(
    serving: Any, judged: Any, home: Home
) -> None:
    judged("first-1")
    judged("second-2", approval="required")
    verdict = Registry(home).verdicts("second-2")[-1]
    assert verdict.body["decision"] == "awaiting-approval"
    with serving(canary_share=0.5) as client:
        client.until(lambda: client.server.follower.standings.candidate)
        answers = client.ask(*["mortgage cards"] * 60)
        for answer in answers:
            chosen = falls_within(0.5, "second-2", answer["record_id"])
            who = ("canary", "second-2", "cards", verdict.seq) if chosen else ("champion", "first-1", "mortgage", 2)
            assert (answer["role"], answer["training_id"], answer["predicted"], answer["ledger_entry"]) == who
    canaries = {answer["record_id"] for answer in answers if answer["role"] == "canary"}
    assert 10 < len(canaries) < 50
    shadows = events(home, "record_id, training_id, predicted, role, kind")
    assert {row[0] for row in shadows if row[4] == "shadow"} == canaries
    assert {row[1:4] for row in shadows if row[4] == "shadow"} == {("first-1", "mortgage", "shadow")}


def test_a_shadow_is_recorded_and_never_returned(serving: Any, judged: Any, home: Home) -> None:
    judged("first-1")
    judged("second-2", approval="required")
    with serving(shadow_share=1.0) as client:
        client.until(lambda: client.server.follower.standings.candidate)
        answers = client.ask("mortgage cards", "other cards")
    assert [(one["role"], one["predicted"]) for one in answers] == [("champion", "mortgage"), ("champion", "other")]
    found = events(home, "record_id, role, training_id, predicted")
    assert {row for row in found if row[1] == "shadow"} == {(one, "shadow", "second-2", "cards") for one in ("1", "2")}


@pytest.mark.parametrize("approval", [None, "automatic"])
def test_what_no_verdict_allows_answers_nothing(serving: Any, judged: Any, home: Home, approval: str | None) -> None:
    """A version without a verdict, and one that was rejected."""
    judged("first-1")
    if approval:
        judged("second-2", decided_by=("accuracy",), min_gain=0.9)
        assert Registry(home).verdicts("second-2")[-1].body["decision"] == "reject"
    else:
        from tests.registry.conftest import make_bundle, make_evaluation

        evaluation = make_evaluation(home, "second-2", Registry(home).evaluated_champion())
        Registry(home).register(make_bundle(home, "second-2"), evaluation)
    with serving(canary_share=1.0, shadow_share=1.0) as client:
        client.until(lambda: client.server.follower.standings.champion)
        assert {one["role"] for one in client.ask("mortgage cards", "other cards")} == {"champion"}
        assert client.server.follower.standings.candidate is None


def test_a_canary_that_is_worse_beyond_chance_is_withdrawn_by_a_verdict(serving: Any, judged: Any, home: Home) -> None:
    judged("first-1")
    judged("second-2", approval="required")
    with serving(canary_share=1.0, segment_bytes=1024) as client:
        client.until(lambda: client.server.follower.standings.candidate)
        assert {one["role"] for one in client.ask(*["mortgage cards"] * 12)} == {"canary"}
        for number in range(1, 13):
            done = client.http.post("/v1/feedback", json={"record_id": str(number), "label": "mortgage"})
            assert done.json()["reaches"] == ["evidence"]
        client.until(lambda: client.server.follower.standings.candidate is None)
        assert _withdrawn(home)
        assert client.ask("mortgage cards")[0]["role"] == "champion"
    live = live_answers(home.lake, "second-2", "first-1")
    assert (live.rows, live.only_challenger, live.only_champion) == (12, 0, 12)  # type: ignore[union-attr]
    verdict = Registry(home).verdicts("second-2")[-1].body
    assert 5 <= verdict["numbers"]["live_rows"] <= 12
    assert verdict["numbers"]["live_chance"] < 0.05
    assert any("only by the champion" in reason for reason in verdict["reasons"])
    with pytest.raises(Exception, match="does not await approval"):
        Succession(Registry(home)).settle("2", "approve", "Ada", "I like it")
    assert Registry(home).ledger_problem() is None


def _withdrawn(home: Home) -> bool:
    return Registry(home).verdicts("second-2")[-1].body["decision"] == "reject"


def test_a_canary_that_is_as_good_goes_on(serving: Any, judged: Any, home: Home) -> None:
    judged("first-1")
    judged("second-2", approval="required")
    with serving(canary_share=1.0) as client:
        client.until(lambda: client.server.follower.standings.candidate)
        client.ask(*["mortgage cards", "cards mortgage"] * 6)
        for number in range(1, 13):
            client.http.post("/v1/feedback", json={"record_id": str(number), "label": "mortgage"})
    assert live_answers(home.lake, "second-2", "first-1").only_champion == 6  # type: ignore[union-attr]
    assert not _withdrawn(home)


def test_evidence_about_a_version_is_kept_until_it_is_settled(serving: Any, judged: Any, home: Home) -> None:
    judged("first-1")
    judged("second-2", approval="required")
    for segment in ("2020-01-01T00-00-00-000000-aa", "9999-01-01T00-00-00-000000-zz"):
        (spool(home)).mkdir(parents=True, exist_ok=True)
        event = {"kind": "answer", "at": "2020-01-01", "record_id": "9", "record": {}, "training_id": "first-1"}
        (spool(home) / f"{segment}.jsonl").write_text(json.dumps(event) + "\n")
    with serving(canary_share=1.0) as client:
        client.until(lambda: client.server.follower.standings.candidate)
        client.ask("mortgage cards")
    old, answered, _ = (f"lake/{table}" for table in home.lake.tables("served"))

    def unneeded(as_of: str) -> set[str]:
        found = plan(home, SETTINGS.retention, as_of)
        return {item.path for item in found if item.setting == "served_days"}

    assert unneeded("2020-01-02") == set()
    assert unneeded("9000-01-01") == {old}
    Succession(Registry(home)).settle("2", "reject", "Ada", "no better")
    assert unneeded("9000-01-01") == {old, answered}
    prune(home, SETTINGS.retention, "9000-01-01", now=True)
    assert len(home.lake.tables("served")) == 1
    (entry,) = Registry(home).ledger.entries("prune")
    assert entry.body["removed"]["served_days"] | {"bytes": 0} == {"count": 2, "bytes": 0, "names": []}
    assert live_answers(home.lake, "second-2", "first-1") is None
