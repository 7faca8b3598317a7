"""Settings of evaluation, of the gate and of the ledger."""

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, field_validator

from assets.settings.section import Section

__all__ = ["LABEL_METRICS", "METRICS", "EvaluationSettings", "GatePolicy", "LedgerSettings"]

METRICS = ("accuracy", "macro_f1", "balanced_accuracy", "cost", "log_loss")
"""Metrics over all labels that may decide."""
LABEL_METRICS = ("f1", "average_precision")
"""Metrics of one label that may decide, as in `f1:<label>`."""


class EvaluationSettings(Section):
    """How a challenger is evaluated."""

    calibration_bins: int = Field(ge=2)
    """Bins of confidence in which answers are counted for the calibration error."""
    min_slice_rows: int = Field(ge=1)
    """Smaller slices are shown but decide nothing."""
    min_label_rows: int = Field(ge=1)
    """A label with fewer training rows is named in the evaluation and on the model card."""
    golden_rows: int = Field(ge=1)
    """Test rows whose outputs are kept, to check that serving equals evaluation."""


class GatePolicy(Section):
    """What a challenger must show to become the champion."""

    approval: Literal["automatic", "required"]
    """Whether a challenger that passes becomes the champion automatically, or waits for a person's approval."""
    alias_edits: Literal["restore", "accept"]
    """What to do with the alias `champion` when somebody has moved it in MLflow; an unfit version is never accepted."""
    decided_by: tuple[str, ...] = Field(min_length=1)
    """The metrics that decide: of METRICS, and of LABEL_METRICS for a label."""
    min_test_rows: int = Field(ge=1)
    """The fewest test rows that can decide."""
    min_label_rows: int = Field(ge=1)
    """The fewest test rows of a label that can decide, where a metric of the label decides."""
    min_gain_over_baseline: float
    """The gain over the simple baseline that the challenger must have in each metric that decides."""
    significance: float = Field(gt=0, lt=0.5)
    """The chance that the first challenger of a reign replaces the champion without being better; over all challengers
    of the reign, at most twice this."""
    min_gain: float = Field(ge=0)
    """The gain over the champion in one of these metrics that is worth a change."""
    max_loss: float = Field(ge=0)
    """The largest loss to the champion that is allowed in each of these metrics, tested at the significance."""
    max_part_loss: float = Field(ge=0)
    """The largest loss to the champion that is allowed on a part of the rows: in F1 on a label, accuracy on a slice."""
    harm_confidence: float = Field(ge=0.5, lt=1)
    """How likely a larger loss must be to count against a challenger."""
    part_spread: float = Field(gt=0)
    """The prior standard deviation of gains on parts: the fewer rows a part has, the less they are trusted."""
    costs: dict[str, dict[str, NonNegativeFloat]]
    """The cost of a wrong answer, by true and answered label, in F1 on labels and in the metric cost; 1 by default."""
    max_calibration_error: float = Field(ge=0, le=1)
    """The challenger's largest calibration error, unless the champion's is larger."""
    max_milliseconds: float = Field(gt=0)
    """The longest the challenger may take to answer a row."""
    min_reference_rows: int = Field(ge=1)
    """The fewest reference rows by which a refit can be judged."""
    min_refit_agreement: float = Field(ge=0, le=1)
    """The share of the reference rows that a refit must answer like the version that was evaluated."""
    approval_days: int = Field(ge=0)
    """Days, by as-of, within which a version that awaits approval can be approved."""
    rollback_holds_days: int = Field(ge=0)
    """Days, by as-of, for which a rollback holds: versions that pass the gate in that time await approval."""

    @field_validator("decided_by")
    @classmethod
    def _are_metrics(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for place, name in enumerate(names):
            kind, of, label = name.partition(":")
            if not (kind in LABEL_METRICS and label if of else name in METRICS):
                known = ", ".join([*METRICS, *(f"{metric}:<label>" for metric in LABEL_METRICS)])
                raise ValueError(f"{name!r} is not a metric; choose from {known}")
            if name in names[:place]:
                raise ValueError(f"{name!r} is named twice")
        return names

    def level(self, nth: int) -> float:
        """The significance level of each metric's test, for the nth challenger of a reign, from 1.

        The metrics and the challengers share the significance: over all of them the levels sum to twice it.
        """
        return 2 * self.significance / (len(self.decided_by) * nth * (nth + 1))


class LedgerSettings(Section):
    """`configs/ledger.yaml`: settings of the home, whatever the profile of a run."""

    anchor: Path | None
    """A folder outside the home that remembers the ledger's last entry; None for none."""
