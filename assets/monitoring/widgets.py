"""Evidently's page and numbers for measured columns."""

import os
import warnings
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from html import escape

import pandas as pd

from assets.display import label_name
from assets.monitoring.columns import fit_binning
from assets.monitoring.comparison import Column, Side
from assets.settings import Domain, DriftSettings

__all__ = ["by_evidently"]

_LABELS = ("label", "predicted_label")
"""Columns whose categories are labels."""


def by_evidently(
    columns: Iterable[Column], reference: Side, current: Side, domain: Domain, settings: DriftSettings
) -> tuple[tuple[Column, ...], str]:
    """The columns with Evidently's PSI, and its page as HTML that loads nothing."""
    measured = list(columns)
    members: dict[str, list[Column]] = {}
    binned: tuple[dict[str, pd.Series[str]], dict[str, pd.Series[str]]] = ({}, {})
    for column in measured:
        members.setdefault(column.group, []).append(column)
        sides = reference.groups[column.group][column.name], current.groups[column.group][column.name]
        binning = fit_binning(sides[0], settings.bins, len(sides[1]))
        for into, values in zip(binned, sides, strict=True):
            names = binning.apply(values)
            if column.name in _LABELS:
                names = names.map(partial(label_name, domain))
            # Plotly reads the names of categories as markup.
            into[column.name] = names.map(escape).reset_index(drop=True)
    psi, html = _evidently(binned, list(members.values()), settings.share_threshold)
    judged = (replace(c, value=psi[c.name], drifted=psi[c.name] >= c.threshold) for c in measured)
    return tuple(judged), html


def _evidently(
    binned: "tuple[dict[str, pd.Series[str]], dict[str, pd.Series[str]]]", groups: list[list[Column]], share: float
) -> tuple[dict[str, float], str]:
    """PSI by column, and the page. Frames of unequal length are padded: Evidently ignores None."""
    os.environ["DO_NOT_TRACK"] = "true"
    with warnings.catch_warnings():
        # Evidently's own warnings: its sources have invalid escapes and use deprecated pandas and pydantic features.
        warnings.simplefilter("ignore")
        # It takes four seconds on top of pandas and scikit-learn: Evidently imports litestar, nltk and plotly.
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        definition = DataDefinition(categorical_columns=list(binned[0]))
        reference, current = (Dataset.from_pandas(pd.DataFrame(side), definition) for side in binned)
        presets = [
            DataDriftPreset(
                columns=[column.name for column in group],
                method="psi",
                drift_share=share,
                per_column_threshold={column.name: column.threshold for column in group},
            )
            for group in groups
        ]
        run = Report(presets, include_tests=False).run(current, reference)
        values = {metric["config"].get("column"): metric["value"] for metric in run.dict()["metrics"]}
        return {name: float(values[name]) for name in binned[0]}, _with_data(run.get_html_str(as_iframe=False))


def _with_data(page: str) -> str:
    """The page with its data as JSON: Evidently writes names unescaped into a script, which `</script>` would end."""
    head, body = page.split("\n    </head>", 1)  # JSON has no line breaks, so no name can hold this
    before, script = head.split("<script>", 1)
    data, after = script.rsplit("</script>", 1)
    data = data.replace("<", "\\u003c")
    return f"{before}<script>{data}</script>{after}\n    </head>{body}"
