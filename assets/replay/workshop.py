"""Computes once what several policies of a replay need: models, answers, evaluations, and measurements of drift."""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd

from assets.as_of import instant
from assets.evaluation.baseline import baseline_probabilities
from assets.evaluation.evaluate import Champion, facts, in_order, on_reference, scores
from assets.evaluation.report import Evaluation, Golden
from assets.features.kept_out import KeptOut
from assets.features.snapshot import Snapshot
from assets.hashing import hash_json
from assets.monitoring.answers import measure_answers
from assets.monitoring.columns import sample_positions
from assets.monitoring.comparison import Column, judge, measure_columns
from assets.monitoring.estimation import Answers, estimate_quality
from assets.monitoring.sides import TrainingSide, reference_of, window_of
from assets.monitoring.twins import Twins, ask, learn
from assets.monitoring.wording import hash_words, measure_wording
from assets.replay.history import History
from assets.settings import DriftSettings, RetrainingPolicy
from assets.training.task import Predictor

__all__ = ["Trained", "Workshop"]

T = TypeVar("T")


@dataclass(frozen=True)
class Trained:
    """A model, the snapshot that it learned from, and the device seconds that it took."""

    snapshot: Snapshot
    model: Predictor
    seconds: float
    evaluated: "Trained | None" = None
    """The model that the gate promoted, when this is a refit of it."""

    @property
    def id(self) -> str:
        """The snapshot's id: a replay trains each snapshot once."""
        return self.snapshot.id

    @property
    def judged(self) -> "Trained":
        """The model that has not learned from its test rows: the gate compares with it, and it gave the promises."""
        return self.evaluated or self

    @property
    def as_of(self) -> str:
        return self.snapshot.as_of


class Workshop:
    """A history, the trainer of its snapshots, and all results so far."""

    def __init__(
        self, history: History, train: Callable[[Snapshot], tuple[Predictor, float]], say: Callable[[str], None]
    ) -> None:
        self.history, self._train, self._say = history, train, say
        self._made: dict[Hashable, Any] = {}

    def trained(self, as_of: str) -> Trained:
        """The model of the snapshot as of a day."""
        snapshot = self._once(("snapshot", as_of), lambda: self.history.snapshot(as_of))
        return self._once(("model", snapshot.id), lambda: self._learn(snapshot))

    def refit(self, evaluated: Trained) -> Trained | None:
        """A model trained again with its test rows; None with too few reference rows to judge that by."""
        snapshot = self._once(("refit", evaluated.id), lambda: self.history.refit_set(evaluated.snapshot))
        if snapshot.reference_rows < self.history.settings.gate.min_reference_rows:
            return None
        return replace(self._once(("model", snapshot.id), lambda: self._learn(snapshot)), evaluated=evaluated)

    def answers(self, trained: Trained, step: int) -> pd.DataFrame:
        """The records that arrived from one step to the next, `step`, with a model's answers.

        Columns: those of the history, and `predicted`, `confidence` and `probabilities`, by the domain's labels.
        """
        return self._once(("answers", trained.id, step), lambda: self._answer(trained, step))

    def evaluation(self, challenger: Trained, champion: Trained | None) -> Evaluation:
        """A challenger against a champion, on the challenger's test and reference rows; a refit only on the latter."""
        return self._once(
            ("evaluation", challenger.id, champion and champion.id), lambda: self._evaluate(challenger, champion)
        )

    def drift(self, champion: Trained, step: int, window: pd.DataFrame, matured: pd.DataFrame) -> bool | None:
        """Whether the window that ends with a step has drifted from what a champion was trained on.

        `matured`: its answers since its promotion whose label is known by then, and the `night` of that.
        """
        settings = self.history.settings.drift
        columns = self._once(("drift", champion.id, step), lambda: self._compare(champion, step, window))
        if columns is None:
            return None
        arrived = matured.assign(letter=matured["text"].str[:120])
        return judge((*columns, *measure_answers(self.tested(champion), arrived, settings)), settings).detected

    def estimate(self, champion: Trained, window: pd.DataFrame) -> float | None:
        """The expected accuracy of a champion in a window, by its confidence; None for an empty window."""
        if window.empty:
            return None
        tested = self.tested(champion)
        evaluated, answered = (
            Answers(rows["predicted"].to_numpy(), rows["confidence"].to_numpy()) for rows in (tested, window)
        )
        return estimate_quality(tested["label"].to_numpy(), evaluated, answered).accuracy

    def twins(self, champion: Trained, as_of: str, policy: RetrainingPolicy) -> Twins | None:
        """The results of the twins of a challenger as of a day and a champion; None without rows for a challenger."""
        training, rows, learned = self.history.settings.training, policy.twin_rows, champion.snapshot
        candidate = self._once(("candidate", as_of, rows), lambda: self.history.candidate(as_of, policy))
        if candidate is None:
            return None
        ours = self._once(("twin", as_of, rows), lambda: learn(candidate.train, learned.domain, training, policy))
        theirs = self._once(
            ("twin", champion.id, rows), lambda: learn(learned.train(), learned.domain, training, policy)
        )
        return ask(ours, theirs, candidate.test, champion.as_of)

    def _once(self, key: Hashable, make: Callable[[], T]) -> T:
        if key not in self._made:
            self._made[key] = make()
        return cast(T, self._made[key])

    def _learn(self, snapshot: Snapshot) -> Trained:
        model, seconds = self._train(snapshot)
        self._say(f"  {snapshot.as_of}  trained on {snapshot.train_rows:,} rows in {seconds:.1f} s")
        return Trained(snapshot, model, seconds)

    def _answer(self, trained: Trained, step: int) -> pd.DataFrame:
        days, window = self.history.days, timedelta(days=self.history.settings.drift.window_days)
        until = instant(days[step])
        return self._answered(
            trained.model, self.history.arrived(instant(days[step - 1]) if step else until - window, until)
        )

    def tested(self, trained: Trained) -> pd.DataFrame:
        """A model's own test rows with its answers, like `answers`; for a refit, those of the evaluated model."""
        one = trained.judged
        return self._once(("tested", one.id), lambda: self._answered(one.model, one.snapshot.test()))

    def _answered(self, model: Predictor, rows: pd.DataFrame) -> pd.DataFrame:
        labels = tuple(self.history.home.domain.labels)
        probabilities = in_order(model.predict_proba(rows), model.labels, labels)
        predicted = np.array(labels, dtype=object)[probabilities.argmax(axis=1)]
        return rows.assign(predicted=predicted, confidence=probabilities.max(axis=1), probabilities=list(probabilities))

    def _evaluate(self, challenger: Trained, champion: Trained | None) -> Evaluation:
        snapshot, settings = challenger.snapshot, self.history.settings.evaluation
        reference = snapshot.reference()
        test = reference if challenger.evaluated else snapshot.test()
        rows = pd.concat([test, reference], ignore_index=True)
        started = time.perf_counter()
        everywhere = {"challenger": challenger.model.predict_proba(rows)}
        milliseconds = (time.perf_counter() - started) / len(rows) * 1000
        if champion:
            everywhere["champion"] = champion.model.predict_proba(rows)
        answered = {who: answers[: len(test)] for who, answers in everywhere.items()}
        answered["baseline"] = self._once(
            ("baseline", snapshot.id), lambda: baseline_probabilities(snapshot.train(), test, snapshot.labels)
        )
        rival = Champion(champion.id, champion.id, champion.snapshot.path) if champion else None
        made_of = [challenger.id, champion and champion.id]
        return Evaluation(
            id=hash_json(made_of)[:16],
            basis=challenger.id,
            as_of=snapshot.as_of,
            training_id=challenger.id,
            labels=snapshot.labels,
            snapshot=facts(snapshot),
            golden=Golden(rows=0, max_difference=0.0),
            milliseconds=milliseconds,
            reference=on_reference(
                reference, snapshot.labels, {who: answers[len(test) :] for who, answers in everywhere.items()}
            ),
            settings=settings.model_dump(),
            refit_of=challenger.evaluated.id if challenger.evaluated else None,
            **scores(test, snapshot.domain, answered, rival, settings, self.history.settings.gate),
        )

    def _compare(self, champion: Trained, step: int, window: pd.DataFrame) -> tuple[Column, ...] | None:
        settings = self.history.settings.drift
        reference = self._once(("reference", champion.id), lambda: self._reference(champion))
        unseen = window[~window["record_id"].isin(reference.trained)]
        if min(len(unseen), reference.side.rows) < settings.min_rows:
            return None
        scored = _as_scored(unseen, instant(self.history.days[step]), settings)
        current = window_of(scored, self.history.features, reference, settings)
        columns = measure_columns(reference.side, current.side, settings)
        words = self._once(("words", champion.id), lambda: hash_words(reference.texts))
        wording = measure_wording(words, hash_words(current.texts), reference.side.stretches, settings)
        return (*columns, wording) if wording else columns

    def _reference(self, champion: Trained) -> TrainingSide:
        rows, settings = champion.snapshot.train(), self.history.settings.drift
        trained = frozenset(rows["record_id"])
        kept_out, evaluated = KeptOut.of(champion.snapshot.manifest), self.tested(champion)
        snapshot = champion.snapshot
        return reference_of(rows, trained, snapshot.domain, snapshot.features, evaluated, kept_out, settings)


def _as_scored(rows: pd.DataFrame, end: datetime, settings: DriftSettings) -> pd.DataFrame:
    """A fixed sample of answered rows, as in the lake: `label` is the label that has arrived by the end."""
    drawn = rows.iloc[sample_positions(rows["record_id"], settings.sample_rows)]
    arrived = drawn["label"].where(drawn["label_known_at"] <= end)
    return drawn.assign(label=arrived)
