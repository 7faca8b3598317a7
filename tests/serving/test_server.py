"""What a request is answered with, and what is refused."""

import logging
import re
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

import pandas as pd
import pytest

from assets.features.serving import OnlineStore
from assets.home import Home
from assets.ingestion.inputs import model_inputs
from assets.ingestion.records import make_record
from assets.scoring.score import score_rows
from assets.settings import load_settings

SETTINGS = load_settings("quick")


def test_an_answer_names_the_version_and_the_entry_by_which_it_is_champion(client: Any) -> None:
    (answer,) = client.ask("mortgage is late")
    move = client.server.follower._registry.last_move()
    assert answer == {
        "record_id": "1",
        "predicted": "mortgage",
        "confidence": pytest.approx(0.6),
        "reason": None,
        "role": "champion",
        "features": "online",
        "features_as_of": "2024-06-01",
        "version": "1",
        "training_id": "first-1",
        "ledger_entry": move.seq,
    }


def test_answers_are_those_of_bulk_scoring_row_by_row(client: Any, home: Home) -> None:
    texts = ["mortgage x", "", "  ", "cards\nstolen", "other"]
    records = [make_record(home.domain, _fields(home, str(n + 1), text), 1) for n, text in enumerate(texts)]
    rows = pd.DataFrame([model_inputs(home.domain, record) for record in records], dtype=object)  # type: ignore[arg-type]
    champion = client.server.follower.standings.champion
    bulk = score_rows(champion.model, rows.assign(company_records_7d=1.0), "1", SETTINGS.scoring)
    answers = client.ask(*texts)
    for column in ("predicted", "reason"):
        assert [answer[column] for answer in answers] == bulk[column].tolist()
    assert [answer["confidence"] for answer in answers] == bulk["confidence"].astype(object).where(
        bulk["predicted"].notna(), None
    ).tolist()


def _fields(home: Home, record_id: str, text: str) -> list[str]:
    given = {home.domain.id: record_id, home.domain.text.fields[0]: text}
    return [given.get(name, "") for name in home.domain.source.fields]


BATCHES = "evergreen_serving_batch_records_count"


def test_requests_that_come_together_are_answered_together_and_each_gets_its_own(serving: Any, judged: Any) -> None:
    judged("first-1")
    with serving(wait_milliseconds=1000, batch_records=16) as client, ThreadPoolExecutor(16) as pool:
        client.until(lambda: client.server.follower.standings.champion)
        words, registry = ["cards", "mortgage", "other", "student_loan"] * 4, client.server.metrics.registry
        before = registry.get_sample_value(BATCHES)  # Feast makes a process's counters files, which outlive a server
        answers = list(pool.map(lambda n: client.ask(words[n], first=100 + n), range(16)))
        assert [(one["record_id"], one["predicted"]) for (one,) in answers] == [
            (str(100 + n), word) for n, word in enumerate(words)
        ]
        assert registry.get_sample_value(BATCHES) - before < 16


def test_a_request_that_fails_harms_no_other(serving: Any, judged: Any) -> None:
    judged("first-1")
    with serving(wait_milliseconds=500, batch_records=3) as client, ThreadPoolExecutor(3) as pool:
        client.until(lambda: client.server.follower.standings.champion)
        bodies = [{"records": [{"complaint_id": text, "narrative": text}]} for text in ("cards", "poison", "mortgage")]
        done = list(pool.map(lambda body: client.http.post("/v1/predict", json=body), bodies))
        assert [one.status_code for one in done] == [200, 500, 200]
        assert done[1].json()["problem"].startswith(f"request {done[1].headers['x-request-id']} failed")


def test_without_a_champion_it_is_alive_but_not_ready(serving: Any) -> None:
    with serving() as client:
        client.until(lambda: "no champion yet" in client.server.state()["problem"])
        assert client.http.get("/healthz").json() == {"status": "ok"}
        ready = client.http.get("/readyz")
        assert (ready.status_code, ready.headers["retry-after"]) == (503, "1")
        done = client.http.post("/v1/predict", json={"records": [{"complaint_id": "1"}]})
        assert (done.status_code, done.headers["retry-after"]) == (503, "1")
        assert "there is no champion yet" in done.json()["problem"]


@pytest.mark.parametrize(
    ("header", "status"),
    [({"Authorization": ""}, 401), ({"Authorization": "Bearer nobody"}, 401), ({"Content-Type": "text/plain"}, 415)],
)
def test_who_is_unknown_or_sends_a_form_is_refused(client: Any, header: dict[str, str], status: int) -> None:
    done = client.http.post(
        "/v1/predict", content=b'{"records": []}', headers={"Content-Type": "application/json"} | header
    )
    assert done.status_code == status
    assert done.headers["x-request-id"]


def test_a_key_that_is_removed_ends_and_without_a_file_nobody_is_let_in(client: Any, home: Home) -> None:
    path = home.root / "serving" / "keys"
    own, found = path.read_text(), []
    for text in ("other:" + "0" * 64, own, "", own):
        path.write_text(text)
        client.server._keys_read = 0.0
        found.append(client.http.post("/v1/predict", json={"records": [{"complaint_id": "1"}]}).status_code)
    assert found == [401, 200, 401, 200]


@pytest.mark.parametrize(
    ("body", "field", "fault"),
    [
        (b"{", "body", "Invalid JSON"),
        (b'{"records": []}', "records", "at least 1 item"),
        (b'{"records": [{"narrative": "x"}]}', "records.0.complaint_id", "required"),
        (b'{"records": [{"complaint_id": " "}]}', "records.0.complaint_id", "is empty"),
        (b'{"records": [{"complaint_id": "1", "product": "Mortgage"}]}', "records.0.product", "not permitted"),
        (b'{"records": [{"complaint_id": "1", "narrative": "secret\\u0000"}]}', "records.0.narrative", "NUL"),
        (b'{"records": [{"complaint_id": "1", "date_received": "secret"}]}', "records.0.date_received", "is no day"),
        (b'{"records": [{"complaint_id": "1", "narrative": ["secret"]}]}', "records.0.narrative", "valid string"),
        (b'{"records": [{"complaint_id": "1", "narrative": "\\ud800"}]}', "body", "Invalid JSON"),
    ],
)
def test_a_request_that_is_wrong_names_the_field_and_not_the_value(
    client: Any, body: bytes, field: str, fault: str
) -> None:
    done = client.http.post("/v1/predict", content=body, headers={"Content-Type": "application/json"})
    assert done.status_code == 422
    (found,) = done.json()["faults"]
    assert found["field"] == field
    assert fault in found["fault"]
    assert "secret" not in done.text


def test_a_body_is_bounded_whether_it_says_its_length_or_not(client: Any) -> None:
    large = b" " * (client.server.settings.max_body_bytes + 1)
    headers = {"Content-Type": "application/json"}
    said = client.http.post("/v1/predict", content=large, headers=headers)
    unsaid = client.http.post("/v1/predict", content=iter([large[:1000], large]), headers=headers)
    assert [said.status_code, unsaid.status_code] == [413, 413]


def test_a_record_is_as_long_as_one_in_a_file_may_be(serving: Any, judged: Any) -> None:
    judged("first-1")
    with serving(max_body_bytes=4_000_000) as client:
        text = "cards " + "x" * SETTINGS.ingestion.max_record_bytes
        done = client.http.post("/v1/predict", json={"records": [{"complaint_id": "1", "narrative": text}]})
        assert done.json()["faults"] == [{"field": "records.0", "fault": "longer than the 1048576 bytes of a record"}]


def test_a_key_that_sends_too_much_is_told_when_to_come_back(serving: Any, judged: Any) -> None:
    judged("first-1")
    with serving(records_per_second=0.5, burst_records=2) as client:
        client.until(lambda: client.server.follower.standings.champion)
        client.ask("cards", "cards")
        done = client.http.post("/v1/predict", json={"records": [{"complaint_id": "3", "narrative": "cards"}]})
        assert (done.status_code, done.headers["retry-after"]) == (429, "2")


def test_a_full_queue_refuses_rather_than_collapses(serving: Any, judged: Any) -> None:
    judged("first-1")
    with serving(queue_records=2, batch_records=50, wait_milliseconds=1000) as client, ThreadPoolExecutor(3) as pool:
        client.until(lambda: client.server.follower.standings.champion)

        def ask(n: int) -> int:
            records = [{"complaint_id": f"{n}-{m}", "narrative": "cards"} for m in range(2)]
            done = client.http.post("/v1/predict", json={"records": records})
            assert done.status_code == 200 or done.headers["retry-after"] == "1"
            return done.status_code

        assert sorted(pool.map(ask, range(3))) == [200, 503, 503]


def test_request_ids_are_kept_if_they_are_sane(client: Any) -> None:
    assert client.http.get("/healthz", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    odd = client.http.get("/healthz", headers={"X-Request-ID": "a b<script>"}).headers["x-request-id"]
    assert len(odd) == 16


def test_logs_and_metrics_have_no_text_and_no_key(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        client.ask("mortgage SECRETWORD")
        client.http.post("/v1/predict", json={"records": [{"complaint_id": "1", "narrative": "SECRETWORD\0"}]})
    counted = re.compile(r'^evergreen_serving_requests_total\{path="/v1/predict",status="422"\} [1-9]', re.M)
    deadline = monotonic() + 30
    while not counted.search(metrics := client.http.get("/metrics").text):  # an answer is counted once it is sent
        assert monotonic() < deadline
    key = client.http.headers["authorization"].removeprefix("Bearer ")
    for written in (caplog.text, metrics):
        assert "SECRETWORD" not in written
        assert key not in written
    assert "/v1/predict 200" in caplog.text


def test_features_that_are_absent_or_old_are_refused_or_said(serving: Any, judged: Any, store: Any) -> None:
    judged("first-1")
    for features, statuses in (("required", [503, 503, 503]), ("optional", [200, 200, 200])):
        with serving(features=features, max_features_age_days=100_000) as client:
            client.until(lambda: client.server.follower.standings.champion)
            assert client.ask("cards")[0]["features"] == "online"
            found = []
            for change in (
                {"fault": OSError("the store is down")},
                {"content": OnlineStore("2024-06-01", "m1", "other definitions", {})},
                {"content": OnlineStore("1700-01-01", "m1", "d1", {})},
            ):
                store.content, store.fault = OnlineStore("2024-06-01", "m1", "d1", {}), None
                for name, value in change.items():
                    setattr(store, name, value)
                done = client.http.post("/v1/predict", json={"records": [{"complaint_id": "1", "narrative": "cards"}]})
                ready = client.http.get("/readyz")
                assert ready.status_code == done.status_code
                assert ready.json()["features"] != "online"
                found.append((done.status_code, done.json().get("answers", [{}])[0].get("features")))
            said = ["absent", "absent", "stale"] if features == "optional" else [None] * 3
            assert found == list(zip(statuses, said, strict=True))
            store.content, store.fault = OnlineStore("2024-06-02", "m1", "d1", {}), None
            assert client.ask("cards")[0]["features_as_of"] == "2024-06-02"


def test_the_interface_is_described_in_the_domain_s_own_words(client: Any, home: Home) -> None:
    described = client.http.get("/openapi.json").json()
    body = described["paths"]["/v1/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    record = body["properties"]["records"]["items"]
    known = {name for name, field in home.domain.source.fields.items() if not field.outcome}
    assert set(record["properties"]) == known
    assert record["required"] == [home.domain.id]
    done = client.http.post("/v1/predict", json={"records": record["examples"]})
    assert done.status_code == 200, "the example is one that is understood"
    said = described["paths"]["/v1/feedback"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(said["properties"]) == {"record_id", "label", *home.domain.outcomes}
