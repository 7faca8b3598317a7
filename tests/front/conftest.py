"""Homes whose ledger and lake are made by hand, day by day, as nights leave them."""

import json
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.lake import Home, hash_json
from assets.registry.ledger import Ledger

FIRST = date(2024, 1, 1)
_OBJECT = {"error": None, "withdrawn": None}
POLICY = {"min_mature_rows": 100, "price_per_retraining": 5.0}


@dataclass
class Story:
    """What happens in a home, from FIRST on: each call is dated as the day that `night` has come to."""

    home: Home
    day: str = FIRST.isoformat()
    champion: str | None = None
    version: str | None = None
    judged: dict[str, str] = field(default_factory=dict)
    """The keys of verdicts, by version."""

    def night(self, nth: int) -> "Story":
        self.day = (FIRST + timedelta(nth)).isoformat()
        return self

    def tell(self, kind: str, key: str, /, **body: Any) -> None:
        Ledger.of(self.home).append(kind, key, self.day, body)

    def judge(
        self, version: str, decision: str, accuracy: float = 0.9, reasons: tuple[str, ...] = ("so it is",)
    ) -> None:
        training = f"training-{version}"
        self.judged[version] = f"{training}-1"
        numbers = {"challenger_accuracy": accuracy, "test_rows": 500.0, "policy_approval_days": 30}
        numbers |= {"champion_accuracy": accuracy - 0.05} if self.champion else {}
        body = {"version": version, "training_id": training, "decision": decision, "reasons": list(reasons)}
        rest = {"champion": self.champion, "numbers": numbers, "evaluation": "e", "trained_to": self.day}
        self.tell("verdict", self.judged[version], **body, **rest)

    def approve(self, version: str, by: str = "Ada", reason: str = "looks right") -> None:
        self._settle(version, "approve", by, reason)
        self.crown(version, "approve", reason=f"approved by {by}: {reason}")

    def reject(self, version: str, by: str = "Ada", reason: str = "looks wrong") -> None:
        self._settle(version, "reject", by, reason)

    def _settle(self, version: str, decision: str, by: str, reason: str) -> None:
        about = {"version": version, "training_id": f"training-{version}"}
        self.tell("approval", self.judged[version], **about, decision=decision, by=by, reason=reason)

    def crown(self, version: str, action: str = "promote", reason: str = "better") -> None:
        previous = {"version": self.version, "training_id": self.champion} if self.champion else None
        key = f"rollback-{self.day}" if action == "rollback" else self.judged[version]
        about = {"version": version, "training_id": f"training-{version}", "alias": "champion"}
        self.tell("alias", key, **about, action=action, reason=reason, previous=previous)
        self.champion, self.version = f"training-{version}", version

    def promote(self, version: str, accuracy: float = 0.9) -> None:
        self.judge(version, "promote", accuracy)
        self.crown(version)

    def decide(
        self,
        decision: str = "skip",
        realised: float | None = 0.88,
        rows: int = 800,
        estimated: float | None = 0.89,
        drifted: bool | None = False,
        reason: str = "nothing calls for it",
    ) -> None:
        numbers = {"champion": self.champion, "accuracy": realised, "mature_rows": rows, "drifted": [drifted]}
        numbers |= {"estimated_accuracy": estimated, "evaluated_accuracy": 0.9, "evaluated_rows": 500}
        body = {"decision": decision, "reason": reason, "ground": None, "numbers": numbers, "policy": POLICY}
        self.tell("retraining", f"{self.day}/{self.champion}/{decision}", **body)

    def publish(self, table: str, file: str, content: dict[str, Any]) -> None:
        name = f"{table}/{self.day}"
        with self.home.lake.staging(name) as staged:
            (staged / file).write_text(json.dumps(content))
            self.home.lake.publish(name, hash_json(content)[:16], staged)

    def land(self, objects: list[dict[str, Any]], quarantined: list[dict[str, Any]]) -> None:
        """Publish objects of the raw table, and the marts' counts and quarantined rows of them."""
        counts = [
            {"object_id": one["object_id"], "landed": one["landed"], "valid": one["landed"] - one["rejects"]}
            | {"quarantined": one["rejects"], "duplicate": 0}
            for one in objects
        ]
        self._table("raw_records", "objects.parquet", [_OBJECT | one for one in objects])
        with self.home.lake.staging("marts") as staged:
            for name, rows in {"record_counts": counts, "quarantined_records": quarantined}.items():
                (staged / name).mkdir()
                pq.write_table(pa.Table.from_pylist(rows), staged / name / "all.parquet")
            self.home.lake.publish("marts", "m" + hash_json(objects)[:8], staged)

    def _table(self, table: str, file: str, rows: list[dict[str, Any]]) -> None:
        with self.home.lake.staging(table) as staged:
            pq.write_table(pa.Table.from_pylist(rows), staged / file)
            self.home.lake.publish(table, "r" + hash_json(rows)[:8], staged)

    def measure(self, estimated: float | None = 0.89, by_threshold: float | None = 0.86) -> None:
        found = {"window_rows": 1000, "window_labels": 700, "sentence": "right", "realised": {"macro_f1": 0.8}}
        estimates = {"estimated_accuracy": estimated, "estimated_by_threshold": by_threshold}
        self.publish("performance", "performance.json", found | estimates)


@pytest.fixture
def story(home: Home) -> Story:
    home.claim()
    return Story(home)


@pytest.fixture
def told(story: Story) -> Story:
    """Five weeks: two champions, one drift, a rejection, an approval, a rollback and a withdrawal."""
    story.promote("1")
    story.decide(realised=None, rows=0)
    for nth in range(1, 9):
        story.night(nth).decide(realised=0.9 if nth > 3 else None, rows=200 if nth > 3 else 10)
    story.night(9).decide("retrain", realised=0.8, drifted=True, reason="it is worth it")
    story.judge("2", "reject", 0.79, ("accuracy is no better", "macro-F1 is no better"))
    story.night(10).decide(realised=0.8, drifted=True)
    story.night(11).judge("3", "awaiting-approval", 0.91)
    story.night(12).approve("3")
    story.night(13).decide(realised=None, rows=0)
    story.night(14).crown("1", "rollback", "version 3 misroutes")
    story.tell("withdrawal", "object", key="bad.csv", reason="cut short")
    story.decide("alert-a-human", realised=0.85, reason="the budget is spent")
    story.night(15).judge("4", "awaiting-approval", 0.92, ("it gains", "it harms a part"))
    story.measure()
    story.decide(estimated=0.89)
    return story
