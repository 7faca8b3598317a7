"""The pictures of an evaluation, drawn for a metadata pane: reliability, confusion and slices."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assets.display import names_are_text, plain
from assets.evaluation.report import Evaluation, SliceScores
from assets.settings import Domain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PICTURES", "draw"]

PICTURES = {
    "reliability plot": "reliability.png",
    "confusion matrix": "confusion.png",
    "accuracy by slice": "slices.png",
}
"""Files by what they show."""

_COLOURS = {"challenger": "#3a86b7", "champion": "#e07a1f", "baseline": "#4a4e69"}
_INK, _GRID = "#22303c", "#e3e8ec"
_DPI = 110
_LABEL = 40
"""Characters of a slice's name, at most."""


def draw(evaluation: Evaluation, domain: Domain, folder: Path) -> None:
    """Write every one of PICTURES into `folder`, each below 150 kB."""
    from matplotlib import rc_context

    style: dict[Any, Any] = {
        "font.size": 9,
        "axes.edgecolor": _GRID,
        "axes.labelcolor": _INK,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "axes.titlesize": 11,
        "text.color": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
    }
    with names_are_text(), rc_context(style):
        figures = (_reliability(evaluation), _confusion(evaluation, domain), _slices(evaluation))
        for name, figure in zip(PICTURES.values(), figures, strict=True):
            figure.savefig(folder / name, dpi=_DPI, facecolor="white", metadata={"Software": None})


def _figure(width: float, height: float) -> "Figure":
    # Not pyplot: it keeps figures and picks a screen; a Figure alone draws with Agg.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _bare(axes: "Axes") -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_axisbelow(True)


def _reliability(evaluation: Evaluation) -> "Figure":
    figure = _figure(6.2, 5.6)
    above, below = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    above.plot([0, 1], [0, 1], color=_INK, linewidth=1, linestyle=(0, (2, 3)), label="perfectly calibrated")
    for who, bins in reversed(evaluation.reliability.items()):
        error = evaluation.contenders()[who].ece
        points = [part.confidence for part in bins], [part.accuracy for part in bins]
        sizes = [12 + 160 * part.rows / evaluation.challenger.rows for part in bins]
        above.plot(*points, color=_COLOURS[who], linewidth=1.2, alpha=0.45)
        above.scatter(*points, sizes, color=_COLOURS[who], clip_on=False, zorder=3, label=f"{who}, error {error:.3f}")
    above.set(
        title="Is a confidence of 0.8 right 8 times in 10?",
        ylabel="share that is right (larger dot: more rows)",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    above.legend(frameon=False, loc="upper left")
    ours = evaluation.reliability["challenger"]
    widths = [part.high - part.low for part in ours]
    left = [part.low for part in ours]
    below.bar(left, [part.rows for part in ours], widths, align="edge", color=_COLOURS["challenger"], edgecolor="white")
    below.set(xlabel="confidence of the answer", ylabel="challenger's rows")
    for axes in (above, below):
        _bare(axes)
        axes.grid(color=_GRID, linewidth=0.8)
    return figure


def _confusion(evaluation: Evaluation, domain: Domain) -> "Figure":
    figure = _figure(7.4, 6.2)
    axes = figure.subplots()
    counts = np.array(evaluation.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            ink = "white" if shares[row, column] > 0.55 else _INK
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=ink, fontsize=8.5)
    names = [plain(domain.labels.get(label, label), _LABEL) for label in evaluation.labels]
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right")
    axes.set_yticks(
        range(len(names)), [f"{name}  ({total:,})" for name, total in zip(names, counts.sum(axis=1), strict=True)]
    )
    label = domain.label.one
    axes.set(title="What the challenger answers", xlabel=f"predicted {label}", ylabel=f"true {label} (test rows)")
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="minor", length=0)
    return figure


def _slices(evaluation: Evaluation) -> "Figure":
    parts = [part for part in evaluation.slices if part.rows]
    figure = _figure(7.4, 1.3 + 0.24 * len(parts))
    axes = figure.subplots()
    places = _places(parts)
    colours = [_COLOURS["challenger"] if part.decides else "#c3d6e0" for part in parts]
    axes.barh(places, [part.challenger for part in parts], height=0.66, color=colours)
    axes.plot([], [], "s", color=_COLOURS["challenger"], label="challenger")
    axes.scatter(
        [part.baseline for part in parts],
        places,
        color=_COLOURS["baseline"],
        marker="|",
        s=90,
        linewidth=2.2,
        label="baseline",
    )
    if evaluation.champion:
        theirs = [part.champion for part in parts if part.champion is not None]
        axes.scatter(theirs, places, color=_COLOURS["champion"], marker="D", s=20, zorder=3, label="champion")
    axes.set_yticks(places, [f"{_label(part)}  ({part.rows:,})" for part in parts])
    axes.set(title="Accuracy by slice", xlim=(0, 1), ylim=(places[-1] + 0.8, places[0] - 0.8), xlabel=_caption(parts))
    axes.legend(frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
    axes.grid(axis="x", color=_GRID, linewidth=0.8)
    _bare(axes)
    return figure


def _label(part: SliceScores) -> str:
    return plain(part.name.replace("_", " "), _LABEL)


def _caption(parts: list[SliceScores]) -> str:
    shown = any(not part.decides for part in parts)
    return "accuracy (rows in brackets)" + ("; a pale slice decides nothing by its accuracy" if shown else "")


def _places(parts: list[SliceScores]) -> list[float]:
    """Heights of the bars, top down, with a gap between one dimension and the next."""
    places, place = [], 0.0
    for number, part in enumerate(parts):
        place += 0.6 if number and part.by != parts[number - 1].by else 0.0
        places.append(place)
        place += 1.0
    return places
