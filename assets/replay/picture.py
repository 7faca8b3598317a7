"""A chart of a replay: quality over time by policy, and the retrainings of each."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from assets.as_of import instant
from assets.display import names_are_text
from assets.replay.backtest import Backtest
from assets.replay.replay import Replay

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

_SMOOTHED = 4
"""Steps whose records make one point of a curve."""


def draw(replayed: Replay, path: Path) -> Path:
    """Write a PNG of rolling accuracy by policy over the retrainings of each."""
    from matplotlib.figure import Figure

    with names_are_text():
        figure = Figure(figsize=(11, 6), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        for place, backtest in enumerate(replayed.backtests):
            _curve(upper, backtest, f"C{place}")
            _marks(lower, backtest, place)
        upper.set_ylabel(f"accuracy, over {_SMOOTHED} steps")
        upper.legend(loc="lower right")
        upper.grid(alpha=0.3)
        lower.set_yticks(range(len(replayed.backtests)), [backtest.policy for backtest in replayed.backtests])
        lower.set_ylim(len(replayed.backtests) - 0.5, -0.5)
        lower.set_title("retrainings: filled where the gate promoted", fontsize="medium", loc="left")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
    return path


def _curve(axes: "Axes", backtest: Backtest, colour: str) -> None:
    days: list[datetime] = []
    shares: list[float] = []
    for end in range(1, len(backtest.steps) + 1):
        last = backtest.steps[max(0, end - _SMOOTHED) : end]
        if rows := sum(step.rows for step in last):
            days.append(instant(last[-1].as_of))
            shares.append(sum(step.right for step in last) / rows)
    axes.plot(np.array(days), np.array(shares), color=colour, label=backtest.policy)


def _marks(axes: "Axes", backtest: Backtest, place: int) -> None:
    for step in backtest.steps:
        if step.verdict:
            filled = f"C{place}" if step.verdict == "promote" else "none"
            day = np.array([instant(step.as_of)])
            axes.plot(day, [place], "o", markeredgecolor=f"C{place}", markerfacecolor=filled)
