"""The numbers of an evaluation as Markdown tables, for Dagster and for MLflow."""

from assets.display import markdown_table
from assets.evaluation.report import Evaluation

__all__ = ["metrics_table", "rare_labels_table", "slices_table"]

_METRICS = {"accuracy": "accuracy", "macro_f1": "macro-F1", "log_loss": "log loss (nats)", "ece": "calibration error"}


def metrics_table(evaluation: Evaluation) -> str:
    """The metrics of challenger, baseline and champion, side by side, as a Markdown table."""
    contenders = evaluation.contenders()
    names = [_title(evaluation, who) for who in contenders]
    rows = [[title, *(f"{getattr(m, name):.4f}" for m in contenders.values())] for name, title in _METRICS.items()]
    return markdown_table(["metric", *names], rows)


def slices_table(evaluation: Evaluation, most: int | None = None) -> str:
    """Accuracy by slice as a Markdown table; with `most`, of the largest slices only."""
    parts = sorted(evaluation.slices, key=lambda part: -part.rows)[:most] if most else evaluation.slices
    rows = [
        [
            part.name,
            f"{part.rows:,}" + ("" if part.decides else " (shown only)"),
            f"{part.challenger:.3f}",
            f"{part.baseline:.3f}",
            *([] if part.champion is None else [f"{part.champion:.3f}"]),
        ]
        for part in parts
    ]
    return markdown_table(["slice", "rows", *evaluation.contenders()], rows)


def rare_labels_table(evaluation: Evaluation) -> str:
    """The labels with few training rows as a Markdown table, or `none`."""
    return markdown_table(["label", "training rows"], list(evaluation.rare_labels.items()))


def _title(evaluation: Evaluation, who: str) -> str:
    return f"champion {evaluation.champion.version}" if who == "champion" and evaluation.champion else who
