"""`evergreen replay`: retraining policies compared on what happened, step by step, with what was known at each step.

A real training and the real gate at every retraining; snapshots, trainings and measurements that policies share are
made once. Every record is answered by the champion of the day that it arrived on, and counts when its label is known
at the end.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from assets.features.snapshot import Snapshot
from assets.lake import Home
from assets.replay.backtest import Backtest, backtest
from assets.replay.history import History, read_history
from assets.replay.workshop import Workshop
from assets.settings import RetrainingPolicy, Settings
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
        say(f"{_HEADER}\n{_line(found[-1])}")
    return Replay(days, tuple(found))


def table(replayed: Replay) -> str:
    """The policies as lines for a person."""
    return "\n".join([_HEADER, *map(_line, replayed.backtests)])


_HEADER = (
    f"{'policy':<14}{'accuracy':>10}{'macro-F1':>10}{'trainings':>11}{'promoted':>10}{'in vain':>9}{'cost':>9}"
    f"{'worth':>12}{'days to a new champion':>24}"
)


def _line(found: Backtest) -> str:
    days = "-" if found.days_to_champion is None else f"{found.days_to_champion:.0f}"
    counts = f"{found.trainings:>11}{found.promotions:>10}{found.false_alarms:>9}{found.cost:>9.2f}"
    quality = f"{_share(found.accuracy):>10}{_share(found.macro_f1):>10}"
    return f"{found.policy:<14}{quality}{counts}{_worth(found.worth):>12}{days:>24}"


def _worth(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


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
