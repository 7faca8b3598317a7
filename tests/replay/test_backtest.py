"""A world in which each label has a word of its own, until the words change; models know the words that they saw."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from assets.evaluation.report import Evaluation
from assets.features.snapshot import Snapshot
from assets.home import Home
from assets.monitoring.decision import DecisionInputs, RetrainingDecision, decide
from assets.monitoring.twins import Candidate
from assets.replay.backtest import backtest
from assets.replay.history import History, steps
from assets.replay.picture import draw
from assets.replay.replay import Replay, table
from assets.replay.workshop import Workshop
from assets.settings import Domain, RetrainingPolicy, load_domain, load_policy, load_settings
from assets.training.launchers.launch import override

DOMAIN = load_domain()
LABELS = tuple(DOMAIN.labels)
OUTPUTS = LABELS[::-1]
"""The labels in the order of a model's outputs, which is its snapshot's."""

START, CHANGE, END = "2024-03-01", "2024-04-15", "2024-07-01"
DAYS = steps(START, END, 14)


def records() -> pd.DataFrame:
    """Forty a day from three months before the start; labels come ten days later."""
    random = np.random.default_rng(0)
    count = 40 * (pd.Timestamp(END) - pd.Timestamp("2023-12-01")).days
    known_at = pd.Timestamp("2023-12-01") + pd.to_timedelta(np.arange(count) / 40, unit="D")
    labels = random.choice(LABELS, count)
    words = np.where(known_at < pd.Timestamp(CHANGE), "old_", "new_") + labels.astype(object)
    fill = random.choice(["they", "closed", "my", "bill"], (count, 5))
    return pd.DataFrame(
        {
            "record_id": [str(number) for number in range(count)],
            "known_at": known_at,
            "label_known_at": known_at + pd.Timedelta(days=10),
            "label": labels,
            "text": [" ".join([*some, word]) for some, word in zip(fill, words, strict=True)],
            "company": "acme",
            "state": random.choice(["CA", "TX"], count),
            "zip_code": None,
            "tags": None,
            "channel": "Web",
            "x": random.normal(size=count),
        }
    )


@dataclass(frozen=True)
class Rows(Snapshot):
    """A snapshot in memory."""

    rows: tuple[pd.DataFrame, ...] = ()

    def train(self) -> pd.DataFrame:
        return self.rows[0]

    def test(self) -> pd.DataFrame:
        return self.rows[1]

    def reference(self) -> pd.DataFrame:
        return self.rows[2]


class Past(History):
    """A history whose snapshots are cut from its records."""

    def snapshot(self, as_of: str) -> Snapshot:
        known = self.records[self.records["label_known_at"] <= pd.Timestamp(as_of)].reset_index(drop=True)
        parts = known.iloc[:-300], known.iloc[-300:].reset_index(drop=True), known.iloc[:0]
        period = {
            name: [str(rows["known_at"].iloc[at].date()) for at in (0, -1)]
            for name, rows in zip(("train", "test"), parts, strict=False)
        }
        sizes = [len(part) for part in parts]
        domain = DOMAIN.model_dump(mode="json") | {"labels": {label: DOMAIN.labels[label] for label in OUTPUTS}}
        manifest = {"period": period, "settings": {"reference_share": 0.0}, "domain": domain}
        return Rows(as_of, as_of, Path(), self.features, *sizes, manifest, parts)

    def refit_set(self, snapshot: Snapshot) -> Snapshot:
        learned = pd.concat([snapshot.train(), snapshot.test()], ignore_index=True)
        parts, name = (learned, learned.iloc[:0], snapshot.reference()), f"{snapshot.as_of}-refit"
        period = {"train": [str(learned["known_at"].iloc[at].date()) for at in (0, -1)]}
        manifest = snapshot.manifest | {"period": period}
        return Rows(name, snapshot.as_of, Path(), self.features, *map(len, parts), manifest, parts)

    def candidate(self, as_of: str, policy: RetrainingPolicy) -> Candidate:
        snapshot = self.snapshot(as_of)
        return Candidate(snapshot.train(), snapshot.test())


class WithReference(Past):
    """One whose snapshots hold out every tenth record, too."""

    def snapshot(self, as_of: str) -> Snapshot:
        found = super().snapshot(as_of)
        assert isinstance(found, Rows)
        rows = [part[part["record_id"].str[-1] != "0"].reset_index(drop=True) for part in found.rows[:2]]
        reference = pd.concat(found.rows[:2]).query("record_id.str[-1] == '0'").reset_index(drop=True)
        parts = (*rows, reference)
        sizes = dict(zip(("train_rows", "test_rows", "reference_rows"), map(len, parts), strict=True))
        return replace(found, rows=parts, **sizes)


@dataclass
class Words:
    """Answers with the label whose word it has seen, and guesses otherwise."""

    known: dict[str, str]
    labels: tuple[str, ...] = OUTPUTS

    def predict_proba(self, rows: pd.DataFrame) -> np.ndarray[Any, Any]:
        found = np.full((len(rows), len(LABELS)), 0.1 / (len(LABELS) - 1))
        words = [text.split()[-1] for text in rows["text"]]
        answers = [self.known.get(word) for word in words]
        found[range(len(rows)), [OUTPUTS.index(answer) if answer else 0 for answer in answers]] = 0.9
        found[[answer is None for answer in answers]] = 1 / len(LABELS)
        return found


@dataclass
class Teacher:
    """Trains, and remembers on what."""

    trained: list[str] = field(default_factory=list)

    def __call__(self, snapshot: Snapshot) -> tuple[Words, float]:
        self.trained.append(snapshot.as_of)
        rows = snapshot.train()
        seen = Counter(zip((text.split()[-1] for text in rows["text"]), rows["label"], strict=True))
        return Words({word: label for (word, label), count in seen.items() if count >= 5}), 36.0


@pytest.fixture
def teacher() -> Teacher:
    return Teacher()


@pytest.fixture
def workshop(home: Home, teacher: Teacher) -> Callable[..., Workshop]:
    settings = load_settings("replay")
    lenient = settings.gate.model_copy(update={"min_gain_over_baseline": -1.0, "max_calibration_error": 1.0})
    settings = settings.model_copy(update={"gate": lenient})

    def make(
        changed: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows, history: type[Past] = Past, **training: Any
    ) -> Workshop:
        asked = settings.model_copy(update={"training": override(settings.training, training)})
        return Workshop(history(home, asked, DAYS, changed(records()), ("x",)), teacher, lambda _: None)

    return make


def policy(name: str, **changes: Any) -> RetrainingPolicy:
    return load_policy(name).model_copy(update=changes)


@pytest.mark.slow
def test_retraining_pays_when_the_world_changes(workshop: Callable[..., Workshop], teacher: Teacher) -> None:
    shop = workshop()
    names = ("never", "every-step", "monthly", "on-drift", "cost-aware", "probe")
    found = {name: backtest(name, policy(name), shop) for name in names}
    assert [step.as_of for step in found["never"].steps] == list(DAYS[:-1])
    assert found["never"].trainings == found["never"].promotions == 1
    assert found["every-step"].trainings == len(DAYS) - 1
    always = found["every-step"]  # every training pays for its device, only promotions for their roll-out
    assert always.cost == pytest.approx(always.trainings * 0.01 + always.promotions * 5.0)
    assert found["every-step"].false_alarms == found["every-step"].trainings - found["every-step"].promotions
    assert found["never"].accuracy < 0.6 < found["every-step"].accuracy
    assert found["cost-aware"].accuracy > found["every-step"].accuracy - 0.02
    assert found["cost-aware"].trainings < 6
    assert found["probe"].accuracy > found["every-step"].accuracy - 0.02
    assert found["probe"].trainings < found["every-step"].trainings
    assert found["on-drift"].trainings > 1
    assert found["on-drift"].days_to_champion is not None
    assert sorted(teacher.trained) == list(DAYS[:-1])  # what policies share is made once


def test_a_drift_that_goes_on_after_a_refusal_is_retrained_again_with_more_labels(
    workshop: Callable[..., Workshop],
) -> None:
    settled = pd.Timestamp("2024-05-20")

    def words_that_mean_nothing_yet(rows: pd.DataFrame) -> pd.DataFrame:
        known = rows["known_at"]
        noise = [f"they closed my bill noise_{number % 7}" for number in range(len(rows))]
        return rows.assign(text=rows["text"].mask((known >= CHANGE) & (known < settled), pd.Series(noise)))

    found = backtest("on-drift", policy("on-drift"), workshop(words_that_mean_nothing_yet))
    verdicts = [step.verdict for step in found.steps if step.verdict]
    assert verdicts == ["promote", "reject", "reject", "promote"]
    assert any(step.decision == "alert-a-human" and "the next waits for" in step.reason for step in found.steps)


@pytest.mark.slow
def test_nothing_is_decided_by_what_was_not_known_yet(workshop: Callable[..., Workshop]) -> None:
    until = DAYS[5]

    def other_future(rows: pd.DataFrame) -> pd.DataFrame:
        """The same world with other labels and other texts after a day."""
        late = rows["label_known_at"] > pd.Timestamp(until)
        unread = rows["known_at"] > pd.Timestamp(until)
        return rows.assign(label=rows["label"].mask(late, "other"), text=rows["text"].mask(unread, "nothing"))

    for name in ("on-drift", "cost-aware", "probe"):
        one, other = (backtest(name, policy(name), workshop(change)) for change in (lambda rows: rows, other_future))
        told = [
            [(s.as_of, s.decision, s.reason, s.drift, s.verdict) for s in found.steps[:6]] for found in (one, other)
        ]
        assert told[0] == told[1]
        assert one.accuracy > other.accuracy


def test_the_gate_is_the_real_one(workshop: Callable[..., Workshop]) -> None:
    found = backtest("every-step", policy("every-step"), workshop())
    verdicts = [step.verdict for step in found.steps]
    assert verdicts[0] == "promote"
    assert set(verdicts[1:]) == {"promote", "reject"}  # equal until the words change
    strict = workshop()
    settings = strict.history.settings
    gate = settings.gate.model_copy(update={"min_test_rows": 10_000})
    object.__setattr__(strict.history, "settings", settings.model_copy(update={"gate": gate}))
    none = backtest("every-step", policy("every-step"), strict)
    assert {step.verdict for step in none.steps} == {"inconclusive"}
    assert (none.promotions, none.accuracy, none.metrics) == (0, None, {"accuracy": None, "macro_f1": None})


@pytest.mark.slow
def test_what_is_promoted_is_refitted_as_the_profile_says(
    workshop: Callable[..., Workshop], teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def newest_words(rows: pd.DataFrame) -> pd.DataFrame:
        """Half of the records change again, so late that at first only test rows show it."""
        late = (rows["known_at"] >= "2024-04-23") & (rows.index % 2 == 0)
        return rows.assign(text=rows["text"].mask(late, rows["text"].str.replace("new_", "newest_")))

    assert load_settings("replay").training.cost.refit
    evaluated = backtest("every-step", policy("every-step"), workshop(newest_words, WithReference, refit=False))
    assert teacher.trained == list(DAYS[:-1])
    teacher.trained.clear()
    shop = workshop(newest_words, WithReference)
    asked: list[DecisionInputs] = []

    def decide_and_tell(numbers: DecisionInputs, policy: RetrainingPolicy, domain: Domain) -> RetrainingDecision:
        asked.append(numbers)
        return decide(numbers, policy, domain)

    monkeypatch.setattr("assets.replay.backtest.decide", decide_and_tell)
    refitted = backtest("every-step", policy("every-step"), shop)
    promoted = [step.as_of for step in refitted.steps if step.verdict == "promote"]
    assert len(promoted) == refitted.promotions > 1
    assert sorted(teacher.trained) == sorted([*DAYS[:-1], *promoted])
    assert refitted.cost == pytest.approx(refitted.trainings * 0.01 + refitted.promotions * 5.01)
    assert (refitted.steps[5].as_of, refitted.steps[5].verdict) == ("2024-05-10", "promote")
    assert (asked[6].cost, asked[6].spent) == pytest.approx((5.02, 5.02))  # the price, and what was paid in that month
    assert refitted.accuracy > evaluated.accuracy + 0.01  # the newest words
    made = [found for found in shop._made.values() if isinstance(found, Evaluation)]
    assert all(found.champion.training_id in DAYS for found in made if found.champion)  # never the refit
    assert {found.refit_of for found in made} == {None, *promoted}
    assert all("-refit" in found.training_id for found in made if found.refit_of)


def test_too_few_reference_rows_leave_the_champion_without_a_refit(
    workshop: Callable[..., Workshop], teacher: Teacher
) -> None:
    backtest("every-step", policy("every-step"), workshop())
    assert teacher.trained == list(DAYS[:-1])


def test_a_challenger_is_compared_with_the_champion_of_the_day(workshop: Callable[..., Workshop]) -> None:
    shop = workshop()
    backtest("every-step", policy("every-step"), shop)
    beside = [made.champion for made in shop._made.values() if isinstance(made, Evaluation)]
    assert beside[0] is None
    assert all(rival is not None for rival in beside[1:])


def test_policies_are_compared_by_the_metrics_that_decide(workshop: Callable[..., Workshop]) -> None:
    shop = workshop()
    settings = shop.history.settings
    gate = settings.gate.model_copy(update={"decided_by": ("average_precision:cards", "cost")})
    object.__setattr__(shop.history, "settings", settings.model_copy(update={"gate": gate}))
    found = backtest("never", policy("never"), shop)
    champion = shop.trained(DAYS[0])
    rows = pd.concat([shop.answers(champion, step) for step in range(1, len(DAYS))])
    chances = champion.model.predict_proba(rows)[:, OUTPUTS.index("cards")]
    area = average_precision_score(rows["label"] == "cards", chances)
    assert found.metrics == pytest.approx({"average_precision:cards": area, "cost": 1 - found.accuracy})
    head, line = table(Replay(DAYS, (found,)), DOMAIN).splitlines()
    assert re.split(r" {2,}", head)[:4] == ["policy", "average precision of Cards", "cost", "trainings"]
    assert line.split()[1:3] == [f"{area:.4f}", f"{1 - found.accuracy:.4f}"]


def test_a_label_that_was_true_of_no_record_has_no_metric(workshop: Callable[..., Workshop]) -> None:
    shop = workshop(lambda rows: rows.assign(label=rows["label"].mask(rows["known_at"] > DAYS[0], "cards")))
    settings = shop.history.settings
    gate = settings.gate.model_copy(update={"decided_by": ("average_precision:mortgage",)})
    object.__setattr__(shop.history, "settings", settings.model_copy(update={"gate": gate}))
    found = backtest("never", policy("never"), shop)
    assert (found.promotions, found.metrics) == (1, {"average_precision:mortgage": None})
    assert table(Replay(DAYS, (found,)), DOMAIN).splitlines()[1].split()[1] == "-"


def test_table_and_picture(workshop: Callable[..., Workshop], tmp_path: Path) -> None:
    shop = workshop()
    found = Replay(DAYS, tuple(backtest(name, policy(name), shop) for name in ("never", "monthly")))
    lines = table(found, DOMAIN).splitlines()
    assert [line.split()[0] for line in lines] == ["policy", "never", "monthly"]
    never = found.backtests[0]
    assert lines[1].split()[1] == f"{never.accuracy:.4f}"
    right = sum(step.right for step in never.steps)
    assert lines[1].split()[-2] == f"{right * 0.5 - 5.01:,.2f}"
    assert table(Replay(DAYS, (replace(never, worth=None),)), DOMAIN).splitlines()[1].split()[-2] == "-"
    assert draw(found, tmp_path / "new" / "replay.png").read_bytes().startswith(b"\x89PNG")
    assert found.body()["backtests"][0]["steps"][0]["decision"] == "retrain"


def test_steps() -> None:
    assert steps("2024-01-01", "2024-01-10", 7) == ("2024-01-01", "2024-01-08", "2024-01-10")
