"""The numbers of an evaluation as tables, for Dagster and for MLflow."""

from assets.display import Table, label_name, slice_name
from assets.evaluation.criteria import title
from assets.evaluation.report import Evaluation
from assets.settings import Domain

__all__ = ["labels_table", "metrics_table", "rare_labels_table", "slices_table"]

_METRICS = {"accuracy": "accuracy", "macro_f1": "macro-F1", "log_loss": "log loss (nats)", "ece": "calibration error"}


def metrics_table(evaluation: Evaluation, domain: Domain) -> Table:
    """The metrics of challenger, baseline and champion, side by side; those that decide first."""
    contenders = evaluation.contenders()
    names = [_title(evaluation, who) for who in contenders]
    titles = {name: title(name, domain) for name in evaluation.challenger.others} | _METRICS
    rows = [[words, *(f"{m.value(name):.4f}" for m in contenders.values())] for name, words in titles.items()]
    return Table(["metric", *names], rows)


def labels_table(evaluation: Evaluation, domain: Domain, most: int | None = None) -> Table:
    """How the challenger fares on each label, the rarest first; with `most`, on so many."""
    rows = [
        [
            label_name(domain, scores.label),
            f"{scores.rows:,}",
            f"{scores.expected:,.1f}",
            *(f"{share:.3f}" for share in (scores.precision, scores.recall, scores.f1)),
            f"{scores.average_precision:.3f}",
            f"{scores.ece:.4f}",
        ]
        for scores in evaluation.by_label[:most]
    ]
    head = ["test rows", "expected", "precision", "recall", "F1", "average precision", "calibration error"]
    return Table([domain.label.one, *head], rows)


def slices_table(evaluation: Evaluation, domain: Domain, most: int | None = None) -> Table:
    """Accuracy by slice; with `most`, of the largest slices only."""
    parts = sorted(evaluation.slices, key=lambda part: -part.rows)[:most] if most else evaluation.slices
    rows = [
        [
            slice_name(domain, part.by, part.value),
            f"{part.rows:,}" + ("" if part.decides else " (shown only)"),
            f"{part.challenger:.3f}",
            f"{part.baseline:.3f}",
            *([] if part.champion is None else [f"{part.champion:.3f}"]),
        ]
        for part in parts
    ]
    return Table(["slice", "rows", *evaluation.contenders()], rows)


def rare_labels_table(evaluation: Evaluation, domain: Domain) -> Table:
    """The labels with few training rows."""
    rows = [(label_name(domain, label), count) for label, count in evaluation.rare_labels.items()]
    return Table([domain.label.one, "training rows"], rows)


def _title(evaluation: Evaluation, who: str) -> str:
    return f"champion {evaluation.champion.version}" if who == "champion" and evaluation.champion else who
