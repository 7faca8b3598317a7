"""The pictures of an evaluation, drawn for a metadata pane: reliability, rare labels, confusion and slices."""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from assets.display import label_name, names_are_text, plain, slice_name
from assets.evaluation.rare import Answered, panels
from assets.evaluation.report import Evaluation, SliceScores
from assets.settings import Domain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PICTURES", "draw"]

PICTURES = {
    "reliability plot": "reliability.png",
    "rarest labels": "rare.png",
    "confusion matrix": "confusion.png",
    "accuracy by slice": "slices.png",
}
"""Files by what they show."""

_COLOURS = {"challenger": "#3a86b7", "champion": "#e07a1f", "baseline": "#4a4e69"}
_INK, _GRID = "#22303c", "#e3e8ec"
_DPI = 110
_LABEL = 40
"""Characters of a slice's name, at most."""
_MOST = 30
"""Labels of the confusion matrix, and slices of a dimension, at most: those with the most wrong answers."""


def draw(evaluation: Evaluation, domain: Domain, answered: Answered, folder: Path) -> None:
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
        figures = (
            _reliability(evaluation),
            _rarest(evaluation, domain, answered),
            _confusion(evaluation, domain),
            _slices(evaluation, domain),
        )
        for name, figure in zip(PICTURES.values(), figures, strict=True):
            _save(figure, folder / name)


def _figure(width: float, height: float) -> "Figure":
    # Not pyplot: it keeps figures and picks a screen; a Figure alone draws with Agg.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: "Figure", path: Path) -> None:
    """With 256 colours: that is invisible, and a third of the size."""
    from PIL import Image

    drawn = BytesIO()
    figure.savefig(drawn, dpi=_DPI, facecolor="white", format="png")
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


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


def _rarest(evaluation: Evaluation, domain: Domain, answered: Answered) -> "Figure":
    drawn = panels(evaluation, domain, answered, _COLOURS)
    height, width = len(drawn), len(drawn[0])
    figure = _figure(3.9 * width, 3.6 * height)
    grid = figure.subplots(height, width, squeeze=False)
    for axes, panel in zip(grid.flat, (panel for row in drawn for panel in row), strict=True):
        panel(axes)
        axes.title.set_fontsize(9.5)
        _bare(axes)
        axes.grid(color=_GRID, linewidth=0.8)
    return figure


def _confusion(evaluation: Evaluation, domain: Domain) -> "Figure":
    counts, shown = _most_confused(np.array(evaluation.confusion))
    size = len(counts)
    side = max(6.2, 0.29 * size)
    figure = _figure(side + 1.2, side)
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            ink = "white" if shares[row, column] > 0.55 else _INK
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=ink, fontsize=8.5 if size < 15 else 6)
    names = [plain(label_name(domain, label), _LABEL) for label in (evaluation.labels[code] for code in shown)]
    names += [f"{len(evaluation.labels) - len(shown)} others"] if len(shown) < size else []
    axes.set_xticks(range(size), names, rotation=35 if size < 15 else 90, ha="right" if size < 15 else "center")
    axes.set_yticks(
        range(size), [f"{name}  ({total:,})" for name, total in zip(names, counts.sum(axis=1), strict=True)]
    )
    label = domain.label.one
    title = f"What the challenger answers{_of_all(len(shown), len(evaluation.labels), domain.label.many)}"
    axes.set(title=title, xlabel=f"predicted {label}", ylabel=f"true {label} (test rows)")
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="minor", length=0)
    return figure


def _most_confused(counts: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], list[int]]:
    """The counts of at most `_MOST` labels, and in one more row and column of all others; which labels they are."""
    if len(counts) <= _MOST:
        return counts, list(range(len(counts)))
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
    shown = sorted(np.argsort(-mistakes, kind="stable")[:_MOST].tolist())
    place = np.full(len(counts), _MOST)
    place[shown] = np.arange(_MOST)
    table = np.zeros((_MOST + 1, _MOST + 1), np.int64)
    np.add.at(table, (place[:, None], place[None, :]), counts)
    return table, shown


def _of_all(shown: int, size: int, many: str) -> str:
    return f": of {size} {many}, the {shown} with the most mistakes" if shown < size else ""


def _slices(evaluation: Evaluation, domain: Domain) -> "Figure":
    parts = _worst(evaluation.slices)
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
    axes.set_yticks(places, [f"{_label(part, domain)}  ({part.rows:,})" for part in parts])
    fewer = len(parts) < sum(part.rows > 0 for part in evaluation.slices)
    caption = _caption(parts) + (f"\nof each kind the {_MOST} with the most wrong answers" if fewer else "")
    axes.set(title="Accuracy by slice", xlim=(0, 1), ylim=(places[-1] + 0.8, places[0] - 0.8), xlabel=caption)
    axes.legend(frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
    axes.grid(axis="x", color=_GRID, linewidth=0.8)
    _bare(axes)
    return figure


def _worst(parts: tuple[SliceScores, ...]) -> list[SliceScores]:
    """Of each dimension at most `_MOST`."""
    chosen = []
    for by in dict.fromkeys(part.by for part in parts):
        held = [part for part in parts if part.by == by and part.rows]
        most = sorted(held, key=lambda part: -part.rows * (1 - part.challenger))[:_MOST]
        chosen += [part for part in held if part in most]
    return chosen


def _label(part: SliceScores, domain: Domain) -> str:
    return plain(slice_name(domain, part.by, part.value), _LABEL)


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
