"""Answers a batch: features, the champion's or a canary's label, and then what the other of the two would have said.

The labels are those of bulk scoring (`assets.scoring.score.score_rows`) on the same inputs. Nothing is returned before
it is on disk.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import pandas as pd

from assets.home import Home
from assets.ingestion.inputs import model_inputs
from assets.ingestion.records import Record
from assets.scoring.score import score_rows
from assets.serving.batches import Asked, Busy
from assets.serving.features import Features, Looked
from assets.serving.metrics import Metrics
from assets.serving.spool import Spool
from assets.serving.standing import Candidate, Follower, Standing, Standings
from assets.settings import ScoringSettings, ServingSettings

__all__ = ["Answering", "falls_within", "now"]

_log = logging.getLogger("evergreen.serving")

Answer = dict[str, Any]


def falls_within(share: float, training: str, record_id: str) -> bool:
    """Whether a record is in the share of a version's canary or shadow: always the same ones, others for another."""
    digest = hashlib.sha256(f"{training}\0{record_id}".encode()).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


@dataclass(frozen=True)
class Answering:
    """What a batch is answered with."""

    home: Home
    scoring: ScoringSettings
    settings: ServingSettings
    follower: Follower
    features: Features
    spool: Spool
    metrics: Metrics

    def answer(self, batch: list[Asked]) -> None:
        """Answer every request of a batch, each with its answers or an exception.

        If it fails, each request is tried alone: what one of them has sent harms no other.
        """
        try:
            self._answer(batch)
        except Busy as error:
            for asked in batch:
                asked.done(error)
        except Exception as error:
            if len(batch) > 1:
                for asked in batch:
                    self.answer([asked])
                return
            _log.error("request %s failed: %s", batch[0].request, type(error).__name__)
            batch[0].done(error)

    def _answer(self, batch: list[Asked]) -> None:
        started, standings = monotonic(), self.follower.standings
        champion = standings.champion
        if champion is None:
            raise Busy(standings.problem or "there is no champion")
        rows = self._inputs([record for asked in batch for record in asked.records])
        looked = self.features.look(rows, champion.model.features)
        if looked.state != "online" and self.settings.features == "required":
            raise Busy(f"the features are {looked.state}, and configs/serving.yaml requires them")
        canary = self._within(standings.candidate, rows, returned=True)
        answers = self._score(champion, looked, ~canary, "champion")
        if standings.candidate and canary.any():
            answers |= self._score(standings.candidate.standing, looked, canary, "canary")
        self._deliver(batch, [answers[place] for place in range(len(rows))])
        self.metrics.batches.observe(len(rows))
        self.metrics.model_seconds.observe(monotonic() - started)
        try:
            self._shadow(standings, looked, canary)
        except Exception as error:  # the answers are given; only evidence is lost
            _log.error("the shadow failed: %s", type(error).__name__)

    def _inputs(self, records: Sequence[Record]) -> pd.DataFrame:
        return pd.DataFrame([model_inputs(self.home.domain, record) for record in records], dtype=object)

    def _within(self, candidate: Candidate | None, rows: pd.DataFrame, *, returned: bool) -> "pd.Series[bool]":
        if candidate is None or (returned and not candidate.returned):
            return pd.Series(False, index=rows.index)
        share = self.settings.canary_share if returned else self.settings.shadow_share
        training = candidate.standing.version.training_id
        return rows["record_id"].map(lambda one: falls_within(share, training, one)).astype(bool)

    def _score(self, who: Standing, looked: Looked, chosen: "pd.Series[bool]", role: str) -> dict[int, Answer]:
        """The answers to the chosen rows, by place."""
        rows = looked.rows[chosen.to_numpy()]
        if rows.empty:
            return {}
        scored = score_rows(who.model, rows, who.version.version, self.scoring)
        self.metrics.answers.labels(who.version.version, role, looked.state).inc(len(rows))
        said = {"role": role, "features": looked.state, "features_as_of": looked.as_of, **who.about()}
        values = zip(
            rows.index, rows["record_id"], scored["predicted"], scored["confidence"], scored["reason"], strict=True
        )
        return {
            place: {
                "record_id": record_id,
                "predicted": predicted,
                "confidence": None if predicted is None else float(confidence),
                "reason": reason,
                **said,
            }
            for place, record_id, predicted, confidence, reason in values
        }

    def _deliver(self, batch: list[Asked], answers: list[Answer]) -> None:
        """Write down what was asked and answered, and then return it."""
        at, first = now(), 0
        events, parts = list[dict[str, Any]](), list[tuple[Asked, list[Answer]]]()
        for asked in batch:
            part = answers[first : first + len(asked.records)]
            first += len(part)
            parts.append((asked, part))
            about = {"kind": "answer", "at": at, "request": asked.request, "key": asked.key}
            for record, answer in zip(asked.records, part, strict=True):
                events.append(about | answer | {"record": {k: v for k, v in record.fields.items() if v is not None}})

        def durable(fault: OSError | None) -> None:
            for asked, part in parts:
                asked.done(part if fault is None else Busy(f"what is asked cannot be recorded: {fault.strerror}"))

        self.spool.append(events, durable)

    def _shadow(self, standings: Standings, looked: Looked, canary: "pd.Series[bool]") -> None:
        """The answers of the version that was not asked: of the champion to a canary's records, else of the shadow."""
        candidate, champion = standings.candidate, standings.champion
        if candidate is None or champion is None:
            return
        shadowed = self._within(candidate, looked.rows, returned=False) & ~canary
        others = self._score(champion, looked, canary, "shadow")
        others |= self._score(candidate.standing, looked, shadowed, "shadow")
        if others:
            at = now()
            self.spool.append({"kind": "shadow", "at": at, **answer} for answer in others.values())


def now() -> str:
    """This moment in UTC, ISO 8601, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
