"""The picture of the rarest labels, whose own probabilities the other pictures hide: what can be found, at what price.

Of each, precision by recall, and the share that is truly of it by its probability. Where there are two labels, also
what mistakes cost by the probability from which the rarer one is answered.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from assets.display import plain
from assets.evaluation.criteria import Costs, priced
from assets.evaluation.report import Evaluation
from assets.settings import Domain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Answered", "cost_by_threshold", "panels", "precision_by_recall"]

Floats = npt.NDArray[np.float64]

_MOST = 3
_NAME = 24
_EDGES = np.array([0.0, 0.003, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 1.0])
"""Of probabilities: most of a rare label's are small."""
_FLOOR = 1e-3


@dataclass(frozen=True)
class Answered:
    """True labels [rows], and by who was measured their probabilities [rows, labels]; what mistakes cost."""

    truth: npt.NDArray[np.int64]
    by_model: dict[str, Floats]
    costs: Costs


def precision_by_recall(positive: npt.NDArray[np.bool_], score: Floats) -> tuple[Floats, Floats]:
    """Recall and precision of the rows with at least each score, the highest first."""
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    right = np.cumsum(positive[order])[ends]
    return np.asarray(right / max(int(positive.sum()), 1)), np.asarray(right / (ends + 1))


def cost_by_threshold(positive: npt.NDArray[np.bool_], score: Floats, missed: float, false: float) -> Floats:
    """The mean cost of a row at thresholds 0, 0.01, ..., 1 of the score from which a row is taken for positive."""
    predicted = score[:, None] >= np.linspace(0, 1, 101)
    lost = missed * (positive[:, None] & ~predicted) + false * (~positive[:, None] & predicted)
    return np.asarray(lost.mean(axis=0))


def panels(
    evaluation: Evaluation, domain: Domain, answered: Answered, colours: dict[str, str]
) -> list[list[Callable[["Axes"], None]]]:
    """What to draw in rows of axes: of two labels the rarer one and costs, else the three rarest, two rows of them."""
    rarest = [scores.label for scores in evaluation.by_label[:_MOST]]
    if len(evaluation.labels) == 2:
        one = _Panel(evaluation, domain, answered, colours, rarest[0])
        return [[one.precision, one.calibration, one.cost]]
    ones = [_Panel(evaluation, domain, answered, colours, label) for label in rarest]
    return [[one.precision for one in ones], [one.calibration for one in ones]]


@dataclass(frozen=True)
class _Panel:
    evaluation: Evaluation
    domain: Domain
    answered: Answered
    colours: dict[str, str]
    label: str

    @property
    def place(self) -> int:
        return self.evaluation.labels.index(self.label)

    @property
    def name(self) -> str:
        return plain(self.domain.labels.get(self.label, self.label), _NAME)

    @property
    def positive(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.answered.truth == self.place)

    def precision(self, axes: "Axes") -> None:
        share = self.positive.mean()
        for who, probabilities in reversed(self.answered.by_model.items()):
            predicted = probabilities.argmax(axis=1) == self.place
            right = (predicted & self.positive).sum()
            axes.step(
                *precision_by_recall(self.positive, probabilities[:, self.place]),
                where="pre",
                color=self.colours[who],
                linewidth=1.6,
                label=who,
            )
            if predicted.any():
                dot = right / self.positive.sum(), right / predicted.sum()
                axes.plot(*dot, "o", color=self.colours[who], markersize=7, clip_on=False, zorder=3)
        axes.axhline(share, color="#8795a1", linewidth=1, linestyle=(0, (2, 3)), label="by lot")
        axes.set(
            title=f"{self.name}: {self.positive.sum():,} rows",
            xlabel="recall (dot: as it answers)",
            ylabel="precision",
            xlim=(0, 1),
            ylim=(0, 1.02),
        )
        if self.label == self.evaluation.by_label[0].label:
            axes.legend(frameon=False, fontsize=8)

    def calibration(self, axes: "Axes") -> None:
        axes.plot([_FLOOR, 1], [_FLOOR, 1], color="#22303c", linewidth=1, linestyle=(0, (2, 3)))
        for who, probabilities in reversed(self.answered.by_model.items()):
            score = probabilities[:, self.place]
            part = np.clip(np.searchsorted(_EDGES, score, side="right") - 1, 0, len(_EDGES) - 2)
            rows, expected, positives = (
                np.bincount(part, side, len(_EDGES) - 1) for side in (None, score, self.positive)
            )
            held = rows > 0
            points = expected[held] / rows[held], np.maximum(positives[held] / rows[held], _FLOOR)
            axes.plot(*points, "o-", color=self.colours[who], alpha=0.7, markersize=4, linewidth=1.2)
        axes.set(
            title="Is a probability of 10% right 1 time in 10?",
            xlabel=f"probability of {self.name}",
            ylabel="share that is it",
            xscale="log",
            yscale="log",
            xlim=(_FLOOR, 1.1),
            ylim=(_FLOOR * 0.8, 1.25),
        )
        # Without mathematics in names, the ticks of a logarithmic axis would be its source text.
        ticks, names = [0.001, 0.01, 0.1, 1], ["0.1%", "1%", "10%", "100%"]
        axes.set_xticks(ticks, names)
        axes.set_yticks(ticks, names)
        axes.minorticks_off()

    def cost(self, axes: "Axes") -> None:
        prices = priced(self.evaluation.labels, self.answered.costs)
        missed, false = float(prices[self.place, 1 - self.place]), float(prices[1 - self.place, self.place])
        for who, probabilities in reversed(self.answered.by_model.items()):
            costs = cost_by_threshold(self.positive, probabilities[:, self.place], missed, false)
            axes.plot(np.linspace(0, 1, 101), costs, color=self.colours[who], linewidth=1.6)
            axes.plot(0.5, costs[50], "o", color=self.colours[who], markersize=7, zorder=3)
            if who == "challenger":
                cheapest = f"challenger's best: {costs.min():.3f} at {costs.argmin() / 100:.2f}; now {costs[50]:.3f}"
        axes.set(
            title=f"Mean cost: {missed:g} if missed, {false:g} if false",
            xlabel=f"threshold of the probability (dot: as it answers)\n{cheapest}",
            ylabel="cost of a row",
            xlim=(0, 1),
            ylim=(0, 2 * min(missed * float(self.positive.mean()), false)),
        )
