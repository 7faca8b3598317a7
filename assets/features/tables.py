"""What a training set holds, as a table for people to look at."""

from assets.display import Table, label_name
from assets.features.snapshot import Snapshot

__all__ = ["labels_table"]


def labels_table(snapshot: Snapshot) -> Table:
    """Rows of each label, to train on and to test on, and their share."""
    domain, mix = snapshot.domain, snapshot.manifest["label_mix"]
    totals = {"train": snapshot.train_rows, "test": snapshot.test_rows}
    rows = [
        (
            label_name(domain, label),
            *(f"{mix[part][label]} ({mix[part][label] / rows:.1%})" for part, rows in totals.items()),
        )
        for label in snapshot.labels
    ]
    return Table([domain.label.one, *totals], rows)
