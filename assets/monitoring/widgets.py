"""Evidently's report and numbers for measured columns."""

import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from html import escape

import numpy as np
import pandas as pd

from assets.monitoring.comparison import Column
from assets.monitoring.distributions import Binned

__all__ = ["by_evidently"]

_ORDER = (
    "<p style='font: 16px/1.5 system-ui, sans-serif; margin: 24px'>A summary for each group of columns, in this order: "
    "{groups}. A column is detected from its own threshold on, which the drift page shows.</p>"
)
"""Without a colour: Evidently's own, for the light and for the dark, is that of the whole page."""


def by_evidently(
    columns: Iterable[Column], binned: Mapping[str, Binned], share: float
) -> tuple[tuple[Column, ...], str]:
    """The columns with Evidently's PSI, and its report as HTML that loads nothing.

    `share`: of a group's columns, above which it calls the group drifted.
    """
    members: dict[str, list[Column]] = {}
    for column in (measured := list(columns)):
        members.setdefault(column.group, []).append(column)
    reference = {name: _categories(column, column.reference) for name, column in binned.items()}
    current = {name: _categories(column, column.current) for name, column in binned.items()}
    psi, html = _evidently((reference, current), list(members.values()), share)
    judged = (replace(c, value=psi[c.name], drifted=psi[c.name] >= c.threshold) for c in measured)
    order = _ORDER.format(groups=escape(", ".join(members)))
    return tuple(judged), html.replace("<body>", f"<body>{order}", 1)


def _categories(column: Binned, codes: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> "pd.Series[str]":
    """The name of each row's category. Plotly reads them as markup, and puts them in alphabetical order."""
    names = (f"{place:02d}: {name}" if column.numeric else name for place, name in enumerate(column.names, start=1))
    return pd.Series(np.array([escape(name) for name in names], dtype=object)[codes])


def _evidently(
    binned: "tuple[dict[str, pd.Series[str]], dict[str, pd.Series[str]]]", groups: list[list[Column]], share: float
) -> tuple[dict[str, float], str]:
    """PSI by column, and the report. Frames of unequal length are padded: Evidently ignores None."""
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
