"""Pictures of a training run."""

from collections.abc import Sequence
from io import BytesIO

__all__ = ["loss_curve"]


def loss_curve(points: Sequence[tuple[int, float]]) -> bytes:
    """A PNG of the loss by optimizer step. `points`: (step, mean loss up to it since the previous point)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.plot([step for step, _ in points], [loss for _, loss in points], color="#2f6f4f", linewidth=1.2)
    axes.set(title="Training loss", xlabel="optimizer step", ylabel="weighted cross-entropy", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    picture = BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()
