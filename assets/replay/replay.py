"""`evergreen replay`: compares retraining policies on history, step by step, with what was known at each step.

Every retraining is a real training judged by the real gate; snapshots, trainings and measurements that policies share
are computed once. Every record is answered by the champion of the day it arrived, and counts if its label is known at
the end.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from assets.display import text_table
from assets.evaluation.criteria import title
from assets.features.snapshot import Snapshot
from assets.home import Home
from assets.replay.backtest import Backtest, backtest
from assets.replay.history import History, read_history
from assets.replay.workshop import Workshop
from assets.settings import Domain, RetrainingPolicy, Settings
from assets.training.launchers.interface import Run
from assets.training.task import Predictor

__all__ = ["Replay", "replay", "table"]


@dataclass(frozen=True)
class Replay:
    """The results of each policy over the same days."""

    days: tuple[str, ...]
    backtests: tuple[Backtest, ...]

    def body(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def replay(
    home: Home,
    sources: list[str],
    days: tuple[str, ...],
    policies: Mapping[str, RetrainingPolicy],
    settings: Settings,
    run: Run,
    say: Callable[[str], None],
) -> Replay:
    """Take each policy through the days. `run` starts training commands, where the settings train an encoder.

    Raises SourceError, AuditError, SnapshotError and SettingsError like the graph's stages.
    """
    say("Reading the sources")
    history = read_history(home, sources, days, settings)
    workshop = Workshop(history, _trainer(home, history, run), say)
    backtests = []
    for name, policy in policies.items():
        say(f"Policy {name}")
        backtests.append(backtest(name, policy, workshop))
        say(_table(backtests[-1:], home.domain))
    return Replay(days, tuple(backtests))


def table(replayed: Replay, domain: Domain) -> str:
    """The policies as a text table, with the metrics that decide."""
    return _table(replayed.backtests, domain)


def _table(backtests: Sequence[Backtest], domain: Domain) -> str:
    metrics = [title(name, domain) for name in backtests[0].metrics]
    counts = ["trainings", "promoted", "in vain", "cost", "worth", "days to a new champion"]
    return text_table(["policy", *metrics, *counts], map(_cells, backtests))


def _cells(backtest: Backtest) -> list[str]:
    quality = [_number(value, ".4f") for value in backtest.metrics.values()]
    counts = [str(count) for count in (backtest.trainings, backtest.promotions, backtest.false_alarms)]
    spent = [f"{backtest.cost:.2f}", _number(backtest.worth, ",.2f"), _number(backtest.days_to_champion, ".0f")]
    return [backtest.policy, *quality, *counts, *spent]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _trainer(home: Home, history: History, run: Run) -> Callable[[Snapshot], tuple[Predictor, float]]:
    """Training by the worker or, if the encoder is frozen, here, from its outputs kept in the home."""
    settings = history.settings.training
    if settings.model.trainable_layers == 0:
        return _frozen(home, history)

    def learn(snapshot: Snapshot) -> tuple[Predictor, float]:
        from assets.training.bundle import load_bundle
        from assets.training.launchers.launch import train

        trained = train(history.home.lake, snapshot.as_of, snapshot, settings, run)
        bundle = load_bundle(trained.path)
        return bundle, trained.report["seconds"] * bundle.provenance["world_size"]

    return learn


def _frozen(home: Home, history: History) -> Callable[[Snapshot], tuple[Predictor, float]]:
    from assets.replay.frozen import TextTable, train_frozen

    settings, texts = history.settings.training, TextTable(history.settings.training, home.root / "cache" / "texts")

    def learn(snapshot: Snapshot) -> tuple[Predictor, float]:
        rows, started = snapshot.train(), time.perf_counter()
        return train_frozen(rows, snapshot.features, snapshot.domain, settings, texts), time.perf_counter() - started

    return learn
