"""`evergreen replay`: retraining policies compared on what happened, step by step, with what was known at each step.

A real training and the real gate at every retraining; snapshots, trainings and measurements that policies share are
made once. Every record is answered by the champion of the day that it arrived on, and counts when its label is known
at the end.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from assets.display import text_table
from assets.evaluation.criteria import title
from assets.features.snapshot import Snapshot
from assets.lake import Home
from assets.replay.backtest import Backtest, backtest
from assets.replay.history import History, read_history
from assets.replay.workshop import Workshop
from assets.settings import Domain, RetrainingPolicy, Settings
from assets.training.task import Predictor

__all__ = ["Replay", "replay", "table"]


@dataclass(frozen=True)
class Replay:
    """What each policy came to, over the same days."""

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
    run: Callable[[list[str]], None],
    say: Callable[[str], None],
) -> Replay:
    """Take each policy through the days. `run` starts training commands, where the settings train an encoder.

    Raises SourceError, AuditError, SnapshotError and SettingsError as the graph's stages do.
    """
    say("Reading the sources")
    history = read_history(home, sources, days, settings)
    workshop = Workshop(history, _trainer(home, history, run), say)
    found = []
    for name, policy in policies.items():
        say(f"Policy {name}")
        found.append(backtest(name, policy, workshop))
        say(_table(found[-1:], home.domain))
    return Replay(days, tuple(found))


def table(replayed: Replay, domain: Domain) -> str:
    """The policies as lines for a person, with the metrics that decide."""
    return _table(replayed.backtests, domain)


def _table(found: Sequence[Backtest], domain: Domain) -> str:
    metrics = [title(name, domain) for name in found[0].metrics]
    counts = ["trainings", "promoted", "in vain", "cost", "worth", "days to a new champion"]
    return text_table(["policy", *metrics, *counts], map(_cells, found))


def _cells(found: Backtest) -> list[str]:
    quality = [_number(value, ".4f") for value in found.metrics.values()]
    counts = [str(count) for count in (found.trainings, found.promotions, found.false_alarms)]
    spent = [f"{found.cost:.2f}", _number(found.worth, ",.2f"), _number(found.days_to_champion, ".0f")]
    return [found.policy, *quality, *counts, *spent]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _trainer(
    home: Home, history: History, run: Callable[[list[str]], None]
) -> Callable[[Snapshot], tuple[Predictor, float]]:
    """By the worker; or, where the encoder stays as it came, here, from its outputs that are kept in the home."""
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
