"""The metrics that may decide (`GatePolicy.decided_by`), each computed over counted or resampled rows.

Metrics of answers see rows by their kind, the true label and the answers; metrics of probabilities see each row. `sign`
says which direction is better: for cost and log loss, less is better.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from assets.display import label_name
from assets.evaluation.metrics import average_precision, f1, macro_f1
from assets.settings import Domain

__all__ = ["Costs", "Criterion", "criteria", "label_f1", "priced", "title"]

Costs = Mapping[str, Mapping[str, float]]
"""What an answer costs, by the true label and the label that was answered; 1 where nothing is said."""

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

_TITLES = {"macro_f1": "macro-F1", "balanced_accuracy": "balanced accuracy", "log_loss": "log loss", "f1": "F1"}
_LESS_IS_BETTER = ("cost", "log_loss")
_TINY = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Criterion:
    """A metric by its name in `decided_by`. Either `of_answers` or `of_probabilities` is set.

    of_answers: true labels and answers [kinds], rows [draws, kinds] -> [draws].
    of_probabilities: true labels [rows], probabilities [rows, labels], rows [draws, rows] -> [draws].
    """

    name: str
    of_answers: Callable[[Codes, Codes, Codes], Floats] | None = None
    of_probabilities: Callable[[Codes, Floats, Codes], Floats] | None = None

    @property
    def sign(self) -> int:
        """The factor that turns a difference into a gain."""
        return -1 if self.name in _LESS_IS_BETTER else 1

    @property
    def better(self) -> str:
        return "above" if self.sign > 0 else "below"

    @property
    def worse(self) -> str:
        return "below" if self.sign > 0 else "above"

    def value(self, truth: Codes, probabilities: Floats) -> float:
        """Of true labels [rows] and probabilities [rows, labels], whose answers are the most probable labels."""
        if self.of_probabilities:
            return float(self.of_probabilities(truth, probabilities, np.ones((1, len(truth)), np.int64))[0])
        assert self.of_answers
        kinds, rows = np.unique([truth, probabilities.argmax(axis=1)], axis=1, return_counts=True)
        return float(self.of_answers(kinds[0], kinds[1], rows[None])[0])


def criteria(names: Sequence[str], labels: Sequence[str], costs: Costs) -> dict[str, Criterion]:
    """The metrics with these names, for true labels and answers given as indices into `labels`."""
    return {name: _criterion(name, labels, costs) for name in names}


def title(name: str, domain: Domain) -> str:
    """What people call a metric that decides: `F1 of <display name>`."""
    kind, _, label = name.partition(":")
    words = _TITLES.get(kind, kind.replace("_", " "))
    return f"{words} of {label_name(domain, label)}" if label else words


def _criterion(name: str, labels: Sequence[str], costs: Costs) -> Criterion:
    kind, _, label = name.partition(":")
    place, size = labels.index(label) if label else -1, len(labels)

    def of_label(truth: Codes, answers: Codes, drawn: Codes) -> Floats:
        return label_f1(truth, answers, drawn, np.ones((size, size)))[:, place]

    def cost(truth: Codes, answers: Codes, drawn: Codes) -> Floats:
        return np.asarray(drawn @ np.where(truth == answers, 0.0, priced(labels, costs)[truth, answers]) / _rows(drawn))

    def average(truth: Codes, probabilities: Floats, drawn: Codes) -> Floats:
        return average_precision(truth == place, probabilities[:, place], drawn)

    answers = {
        "accuracy": _accuracy,
        "macro_f1": _macro_f1,
        "balanced_accuracy": _balanced,
        "f1": of_label,
        "cost": cost,
    }
    return Criterion(name, answers.get(kind), {"average_precision": average, "log_loss": _log_loss}.get(kind))


def priced(labels: Sequence[str], costs: Costs) -> Floats:
    """What an answer costs, [true, answered]; what a right one does is not to be asked."""
    return np.array([[costs.get(true, {}).get(answer, 1.0) for answer in labels] for true in labels])


def label_f1(truth: Codes, answers: Codes, drawn: Codes, costs: Floats) -> Floats:
    """[draws, labels]: right answers against mistakes to and from a label, which weigh costs [true, answered]."""
    right, mistakes, _ = _sides(truth, answers, drawn, costs)
    return f1(right, mistakes)


def _rows(drawn: Codes) -> Codes:
    return np.asarray(drawn.sum(axis=1))


def _accuracy(truth: Codes, answers: Codes, drawn: Codes) -> Floats:
    return np.asarray(drawn[:, truth == answers].sum(axis=1) / _rows(drawn))


def _macro_f1(truth: Codes, answers: Codes, drawn: Codes) -> Floats:
    size = int(max(truth.max(), answers.max())) + 1
    return macro_f1(*_sides(truth, answers, drawn, np.ones((size, size))))


def _balanced(truth: Codes, answers: Codes, drawn: Codes) -> Floats:
    """The mean recall of the labels that are true of a row drawn."""
    size = int(truth.max()) + 1
    right = drawn @ _one_hot(np.where(truth == answers, truth, size), size)
    true = drawn @ _one_hot(truth, size)
    return np.asarray((right / np.maximum(true, 1)).sum(axis=1) / (true > 0).sum(axis=1))


def _log_loss(truth: Codes, probabilities: Floats, drawn: Codes) -> Floats:
    losses = -np.log(np.clip(probabilities[np.arange(len(truth)), truth], _TINY, 1.0))
    return np.asarray(drawn @ losses / _rows(drawn))


def _sides(truth: Codes, answers: Codes, drawn: Codes, costs: Floats) -> tuple[Floats, Floats, Floats]:
    """[draws, labels] each: right answers, mistakes by what they cost, and rows that are true."""
    right, wrong = truth == answers, costs[truth, answers]
    true, answered = (_one_hot(side, len(costs)) for side in (truth, answers))
    mistakes = drawn @ ((true + answered) * (wrong * ~right)[:, None])
    return drawn @ (true * right[:, None]), mistakes, drawn @ true


def _one_hot(codes: Codes, size: int) -> Floats:
    return np.asarray(codes[:, None] == np.arange(size), np.float64)
