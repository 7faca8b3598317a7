"""Homes whose ledger and lake are made by hand, day by day, as nights leave them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assets.evaluation.gate import Verdict, decide
from assets.evaluation.metrics import Metrics, Slice, confusion, slices
from assets.evaluation.paired import pair_up
from assets.evaluation.report import (
    Evaluation,
    Golden,
    Rival,
    SliceScores,
    SnapshotFacts,
    evaluation_hash,
    write_evaluation,
)
from assets.hashing import hash_json
from assets.home import Home
from assets.monitoring.performance import Performance, Scores
from assets.registry.shared_ledger import ledger_of
from assets.settings import Domain, GatePolicy, load_domain, load_settings

FIRST = date(2024, 1, 1)
_OBJECT = {"error": None, "withdrawn": None}
DOMAIN = load_domain()
GATE = load_settings("quick").gate.model_copy(update={"approval": "automatic", "max_part_loss": 0.05})
POLICY = {"min_mature_rows": 100, "price_per_retraining": 5.0}


@dataclass
class Story:
    """What happens in a home, from FIRST on: each call is dated as the day that `night` has come to."""

    home: Home
    day: str = FIRST.isoformat()
    champion: str | None = None
    version: str | None = None
    domain: Domain = DOMAIN
    judged: dict[str, str] = field(default_factory=dict)
    """The keys of verdicts, by version."""
    channels: tuple[str, str] = ("Web", "Phone")

    def night(self, nth: int) -> "Story":
        self.day = (FIRST + timedelta(nth)).isoformat()
        return self

    def tell(self, kind: str, key: str, /, **body: Any) -> None:
        ledger_of(self.home).append(kind, key, self.day, body)

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

    def evaluate(self, training: str, wrong: Sequence[int] = (), champion_wrong: Sequence[int] = ()) -> Evaluation:
        """Publish an evaluation on `rows_to_test`, against the champion, with these rows wrong."""
        labels = tuple(self.domain.labels)
        rows = rows_to_test(labels, self.channels)
        parts = [part for part in slices(rows, self.domain) if part.rows]
        truth = np.array([labels.index(label) for label in rows["label"]])
        ours, theirs = (truth + np.isin(np.arange(len(rows)), places) for places in (wrong, champion_wrong))
        probabilities = np.full((len(rows), len(labels)), 0.01)
        probabilities[np.arange(len(rows)), ours] = 0.6 + np.arange(len(rows)) / 1000
        facts = SnapshotFacts(id="s1", train_rows=1000, test_rows=len(rows), period={"train": ("2023-01-01", self.day)})
        accuracy = float((ours == truth).mean())
        evaluation = Evaluation(
            **{"id": hash_json([training, self.day, *wrong])[:16], "basis": "b", "as_of": self.day},
            **{"training_id": training, "labels": labels, "snapshot": facts, "milliseconds": 5.0, "settings": {}},
            challenger=Metrics(len(rows), accuracy, accuracy, 0.4, 0.05),
            baseline=Metrics(len(rows), 0.5, 0.5, 0.6, 0.05),
            champion=self._rival(truth, ours, theirs),
            reference=None,
            slices=tuple(scores(part, ours == truth, theirs == truth, self.champion) for part in parts),
            reliability={},
            confusion=tuple(tuple(row) for row in confusion(truth, probabilities).tolist()),
            golden=Golden(rows=8, max_difference=0.0),
        )
        predicted = [labels[place] for place in ours]
        answers = rows[["record_id", "known_at", "label"]].assign(
            predicted=predicted, probabilities=list(probabilities)
        )
        with self.home.lake.staging(f"evaluation/{self.day}") as staged:
            answers.assign(confidence=probabilities.max(axis=1)).to_parquet(staged / "predictions.parquet", index=False)
            write_evaluation(evaluation, staged)
            self.home.lake.publish(f"evaluation/{self.day}", evaluation.id, staged)
        manifest = {
            "snapshot_id": "s1",
            "features": [],
            "train_rows": 1000,
            "test_rows": len(rows),
            "reference_rows": 0,
        }
        with self.home.lake.staging(f"training_set/{self.day}") as staged:
            rows.to_parquet(staged / "test.parquet", index=False)
            (staged / "manifest.json").write_text(
                json.dumps(manifest | {"domain": self.domain.model_dump(mode="json")})
            )
            self.home.lake.publish(f"training_set/{self.day}", "s1", staged)
        return evaluation

    def _rival(self, truth: Any, ours: Any, theirs: Any) -> Rival | None:
        if self.champion is None:
            return None
        metrics = Metrics(len(truth), float((theirs == truth).mean()), 0.7, 0.5, 0.05)
        pairs = pair_up(truth, ours, theirs)
        return Rival(version=str(self.version), training_id=self.champion, metrics=metrics, pairs=pairs)

    def gate(self, version: str, evaluation: Evaluation, policy: GatePolicy = GATE, **context: Any) -> Verdict:
        """Write the gate's verdict on an evaluation to the ledger."""
        verdict = decide(evaluation, policy, self.domain, self.champion, **context)
        digest = evaluation_hash(self.home.lake, self.day, evaluation.id)
        self.judged[version] = f"{evaluation.training_id}-{self.day}"
        self.tell("verdict", self.judged[version], version=version, evaluation_sha256=digest, **verdict.body())
        return verdict

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

    def publish(self, table: str, file: str, content: dict[str, Any], **others: dict[str, Any]) -> None:
        """`others` are further files of JSON, by name without ending."""
        name = f"{table}/{self.day}"
        with self.home.lake.staging(name) as staged:
            for path, held in {file: content, **{f"{other}.json": held for other, held in others.items()}}.items():
                (staged / path).write_text(json.dumps(held))
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
        none, realised = Scores(0, None, None), Scores(700, 0.8, 0.8)
        scores = {"realised": realised, "before_label": none, "evaluated": none}
        rows = {"window_rows": 1000, "window_labels": 700, "new_labels": 700}
        estimates = {"estimated_accuracy": estimated, "estimated_by_threshold": by_threshold}
        measured = Performance(self.day, "1", **scores, **rows, **estimates, sentence="right", recall={})
        self.publish("performance", "performance.json", asdict(measured))


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


def rows_to_test(labels: Sequence[str], channels: tuple[str, str]) -> pd.DataFrame:
    """240 test rows: three labels in turn, every eighth by the second channel, and a secret in every text."""
    places = np.arange(240)
    return pd.DataFrame(
        {
            "record_id": [f"r{place:03}" for place in places],
            "known_at": pd.Timestamp("2024-01-01") + pd.to_timedelta(places % 50, unit="D"),
            "label": [labels[place % 3] for place in places],
            "text": [f"SECRET {place} in 94110" for place in places],
            "company": [f"Acme {place % 5}" for place in places],
            "state": np.where(places % 2, "CA", "TX"),
            "zip_code": "94110",
            "tags": np.where(places % 7, None, "Older American"),
            "channel": np.where(places % 8, *channels),
        }
    )


def scores(part: Slice, ours: Any, theirs: Any, champion: str | None) -> SliceScores:
    right, other = ours[part.mask], theirs[part.mask]
    shares = {"challenger": float(right.mean()), "baseline": 0.5, "champion": float(other.mean()) if champion else None}
    differing = {"only_challenger": int((right & ~other).sum()), "only_champion": int((other & ~right).sum())}
    decides = part.by != "label" and part.rows >= 20
    return SliceScores(by=part.by, value=part.value, rows=part.rows, decides=decides, **shares, **differing)


@pytest.fixture
def harmed(story: Story) -> Story:
    """Version 1 is champion; version 2 is better but for twelve of thirty rows by phone, and awaits approval."""
    story.gate("1", story.evaluate("training-1", wrong=(3, 5)))
    story.crown("1")
    story.night(1)
    elsewhere = [place for place in range(240) if place % 4 == 1]
    verdict = story.gate("2", story.evaluate("training-2", wrong=range(0, 96, 8), champion_wrong=elsewhere))
    assert verdict.decision == "awaiting-approval", verdict.reasons
    story.decide()
    return story


@pytest.fixture
def gate() -> GatePolicy:
    """The policy of `Story.gate`."""
    return GATE


@pytest.fixture
def hostile() -> str:
    """A name that is markup everywhere."""
    return "<script>alert(1)</script> $x$ {{ 7 * 7 }} [a](javascript:b) \"'><img src=x onerror=b>"


class _Read(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self._texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._texts).split())

    @property
    def links(self) -> list[str]:
        return [str(given["href"]) for tag, given in self.tags if tag == "a"]


@pytest.fixture
def read() -> type[_Read]:
    """A page as a browser reads it."""
    return _Read
