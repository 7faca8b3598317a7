"""Gathers the numbers, decides, and appends the decision to the ledger."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from statistics import fmean, median

from assets.as_of import days_between
from assets.evaluation.gate import met
from assets.hashing import hash_json
from assets.home import Home
from assets.lake import Lake
from assets.monitoring.decision import DecisionInputs, RetrainingDecision, decide
from assets.monitoring.performance import Performance, load_performance
from assets.monitoring.probe import Probe, weigh
from assets.monitoring.report import DriftReport, load_drift
from assets.monitoring.twins import Twins, measure_twins
from assets.registry.ledger import Entry
from assets.registry.registry import RegisteredVersion
from assets.registry.shared_ledger import ledger_of
from assets.settings import RetrainingPolicy, Settings
from assets.training.bundle import read_json
from assets.training.program.usage import cost

__all__ = [
    *("ATTEMPT_AT", "Past", "attempts", "decide_retraining", "decision_inputs", "drifting_since"),
    *("due", "expected_cost", "probe", "recall", "retraining_cost"),
]

ATTEMPT_AT = "evergreen/decision"
"""The tag of a run that names the decision it is an attempt at."""

_TRAININGS = 3
"""The next training is assumed to take the mean time of this many newest ones."""


@dataclass(frozen=True)
class Past:
    """What the ledger says about earlier retrainings, as of a day, under a champion."""

    gain_per_day: float
    spent: float
    days_since_retraining: int | None
    failed: int
    days_since_failed: int | None
    tried: int
    tried_labels: int


def decide_retraining(
    home: Home, as_of: str, champion: RegisteredVersion | None, settings: Settings
) -> RetrainingDecision:
    """Decide by the published drift report and performance; publish the decision and append it to the ledger.

    An earlier decision on the same measurements and policy remains, whatever has been spent since. Raises NotPublished
    when the report or the performance is missing for as_of.
    """
    lake, policy, ledger = home.lake, settings.retraining, ledger_of(home)
    measured = [lake.current(f"{table}/{as_of}").name for table in ("drift", "performance")]
    twins = measure_twins(home, as_of, champion, settings) if champion and policy.probe else None
    version = hash_json([as_of, measured, twins and asdict(twins), policy.model_dump()])[:16]
    key = f"{as_of}/{champion.training_id if champion else 'no-champion'}/{version}"
    stands = next((entry for entry in ledger.entries("retraining") if entry.key == key), None)
    decision = RetrainingDecision.read(stands.body) if stands else _decide(home, as_of, champion, twins, settings)
    body, table = decision.body(), f"retraining_decision/{as_of}"
    with lake.staging(table) as staged:
        (staged / "decision.json").write_text(json.dumps(body, indent=1))
        lake.publish(table, version, staged)
    ledger.append("retraining", key, as_of, body)
    return decision


def _decide(
    home: Home, as_of: str, champion: RegisteredVersion | None, twins: Twins | None, settings: Settings
) -> RetrainingDecision:
    lake, policy, entries = home.lake, settings.retraining, ledger_of(home).entries()
    windows = _windows(lake, as_of, champion)
    since = drifting_since([(report.as_of, report.detected) for report in windows])
    past = recall(entries, as_of, champion.training_id if champion else None, since, policy)
    training = expected_cost(_device_seconds(lake), settings.training.cost.price_per_hour)
    numbers = decision_inputs(as_of, champion, windows, load_performance(lake, as_of), past, training, settings)
    if champion:
        numbers = replace(numbers, probe=probe(twins, entries, champion.training_id, numbers, settings))
    return decide(numbers, policy, home.domain)


def probe(
    twins: Twins | None, entries: Sequence[Entry], champion: str, numbers: DecisionInputs, settings: Settings
) -> Probe | None:
    """The twins' estimate for the next challenger of a champion, given by its training id."""
    nth = len(met((entry.body for entry in entries if entry.kind == "verdict"), champion)) + 1
    return weigh(twins, numbers.age_days or 0, numbers.gain_per_day, nth, settings.gate, settings.retraining)


def decision_inputs(
    as_of: str,
    champion: RegisteredVersion | None,
    windows: Sequence[DriftReport],
    performance: Performance,
    past: Past,
    training_cost: float,
    settings: Settings,
) -> DecisionInputs:
    """The numbers of the decision. Measurements of another training than the champion's do not count.

    `windows`: the drift reports up to as_of, newest first.
    """
    policy, days = settings.retraining, settings.scoring.window_days
    training = champion.training_id if champion else None
    performed = performance if performance.training_id == training else None
    return DecisionInputs(
        champion=training,
        age_days=days_between(champion.as_of, as_of) if champion else None,
        new_labels=performance.new_labels,
        drifted=tuple(report.detected for report in windows[: policy.windows]),
        mature_rows=performed.realised.rows if performed else 0,
        accuracy=performed.realised.accuracy if performed else None,
        evaluated_rows=performed.evaluated.rows if performed else 0,
        evaluated_accuracy=performed.evaluated.accuracy if performed else None,
        estimated_accuracy=performed.estimated_accuracy if performed else None,
        answers_per_day=performed.window_rows / days if performed and performed.window_rows else None,
        training_cost=training_cost,
        cost=retraining_cost(training_cost, settings.training.cost.refit, policy),
        gain_per_day=past.gain_per_day,
        spent=past.spent,
        days_since_retraining=past.days_since_retraining,
        failed=past.failed,
        days_since_failed=past.days_since_failed,
        tried=past.tried,
        tried_labels=past.tried_labels,
    )


def recall(
    entries: Sequence[Entry], as_of: str, champion: str | None, drifting_since: str | None, policy: RetrainingPolicy
) -> Past:
    """What the entries up to and including a day say about retraining.

    A retraining is done when there is a verdict on a version of its day or a later one. Until then it may have failed,
    and the attempts at it count.
    """
    known = [entry for entry in entries if entry.as_of <= as_of]
    decided = [entry for entry in known if entry.kind == "retraining" and entry.body["decision"] == "retrain"]
    judged_to = max((entry.as_of for entry in known if entry.kind == "verdict"), default="")
    done = [entry for entry in decided if entry.as_of <= judged_to]
    failed = [entry for entry in decided if entry.as_of > judged_to]
    lately = [e for e in done if drifting_since and e.as_of >= drifting_since and e.body["ground"] != "age"]
    tried = [e.body["numbers"] for e in lately if e.body["numbers"]["champion"] == champion]
    return Past(
        gain_per_day=_gain_per_day([entry for entry in known if entry.kind == "verdict"], policy),
        spent=_spent([entry for entry in known if entry.as_of[:7] == as_of[:7]], policy),
        days_since_retraining=days_between(done[-1].as_of, as_of) if done else None,
        failed=sum(max(1, attempts(entries, entry)) for entry in failed),
        days_since_failed=days_between(failed[-1].as_of, as_of) if failed else None,
        tried=len(tried),
        tried_labels=tried[-1]["new_labels"] if tried else 0,
    )


def due(entries: Sequence[Entry]) -> Entry | None:
    """The newest decision to retrain, unless a verdict followed; None when there is nothing to do."""
    decided = [e for e in entries if e.kind == "retraining" and e.body["decision"] == "retrain"]
    newest = max(decided, key=lambda entry: (entry.as_of, entry.seq), default=None)
    verdicts = [entry for entry in entries if entry.kind == "verdict"]
    if newest is None or any(found.seq > newest.seq or found.as_of > newest.as_of for found in verdicts):
        return None
    return newest


def attempts(entries: Sequence[Entry], decision: Entry) -> int:
    """The number of times that a retraining has been launched for a decision."""
    return sum(entry.kind == "attempt" and entry.body["decision"] == decision.seq for entry in entries)


def _spent(entries: Sequence[Entry], policy: RetrainingPolicy) -> float:
    """The cost of the trainings that some entries decided on, and of the promotions and refits that followed."""
    spent = training = 0.0
    for entry in entries:
        if entry.kind == "retraining" and entry.body["decision"] == "retrain":
            # Older decisions do not record the cost of a training.
            training = entry.body["numbers"].get("training_cost", 0.0)
            spent += training
        elif entry.kind == "verdict" and entry.body.get("refit_of"):
            spent += training
        elif entry.kind == "alias" and entry.body["action"] in ("promote", "approve"):
            spent += policy.price_per_retraining
    return spent


def _gain_per_day(verdicts: Sequence[Entry], policy: RetrainingPolicy) -> float:
    """The accuracy that a challenger typically gains on the champion per day that its training rows end later.

    The median, with the policy's own rate included twice: one sudden change of the world says nothing about age,
    whatever it cost, nor does one training that went wrong.
    """
    trained_to = {entry.body["training_id"]: entry.body["trained_to"] for entry in verdicts}
    rates = [policy.decay_per_day] * 2
    for entry in verdicts:
        numbers, champion = entry.body["numbers"], entry.body["champion"]
        days = days_between(trained_to.get(champion, entry.body["trained_to"]), entry.body["trained_to"])
        if numbers.get("champion_accuracy") is not None and days > 0:
            rates.append((numbers["challenger_accuracy"] - numbers["champion_accuracy"]) / days)
    return max(median(rates), 0.0)


def _windows(lake: Lake, as_of: str, champion: RegisteredVersion | None) -> list[DriftReport]:
    """The champion's drift reports up to as_of, newest first; none when the newest is not the champion's."""
    load_drift(lake, as_of)
    days = sorted((name.removeprefix("drift/") for name in lake.tables("drift")), reverse=True)
    reports = [load_drift(lake, day) for day in days if day <= as_of]
    own = [report for report in reports if report.training_id == (champion.training_id if champion else None)]
    return own if own and own[0].as_of == as_of else []


def drifting_since(windows: Sequence[tuple[str, bool | None]]) -> str | None:
    """The first day of the drift in the newest window; None when it shows none.

    `windows`: as-of days and whether there was drift, newest first.
    """
    return next(reversed([as_of for as_of, _ in takewhile(lambda window: window[1], windows)]), None)


def expected_cost(device_seconds: Sequence[float], price_per_hour: float) -> float:
    """The cost of a training that takes as long as the newest did; 0 before the first.

    `device_seconds`: of past trainings, summed over their ranks, newest last.
    """
    seconds = fmean(device_seconds[-_TRAININGS:] or [0.0])
    return cost(seconds, 1, price_per_hour)


def retraining_cost(training_cost: float, refit: bool, policy: RetrainingPolicy) -> float:
    """The cost of a retraining that ends in a promotion; a refit costs as much as the training."""
    return training_cost * (2 if refit else 1) + policy.price_per_retraining


def _device_seconds(lake: Lake) -> list[float]:
    """The seconds of the newest trainings, each summed over its ranks, newest last."""
    seconds = []
    for table in sorted(lake.tables("challenger"))[-_TRAININGS:]:
        bundle = lake.current(table)
        ranks = read_json(bundle / "provenance.json")["world_size"]
        seconds.append(read_json(bundle / "training.json")["seconds"] * ranks)
    return seconds
