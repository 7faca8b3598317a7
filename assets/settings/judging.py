"""How a challenger is measured, what the gate asks of it, and what the ledger is held to."""

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, field_validator

from assets.settings.section import Section

__all__ = ["LABEL_METRICS", "METRICS", "EvaluationSettings", "GatePolicy", "LedgerSettings"]

METRICS = ("accuracy", "macro_f1", "balanced_accuracy", "cost", "log_loss")
"""Metrics that may decide, of all labels."""
LABEL_METRICS = ("f1", "average_precision")
"""The same of one label, as in `f1:<label>`."""


class EvaluationSettings(Section):
    calibration_bins: int = Field(ge=2)
    min_slice_rows: int = Field(ge=1)
    """Smaller slices are shown but decide nothing."""
    min_label_rows: int = Field(ge=1)
    """A label with fewer training rows is named in the evaluation and on the model card."""
    golden_rows: int = Field(ge=1)
    """Test rows whose outputs are kept, to prove that serving equals evaluation."""


class GatePolicy(Section):
    approval: Literal["automatic", "required"]
    """Whether a challenger that passes becomes the champion by itself, or waits for a person's word."""
    alias_edits: Literal["restore", "accept"]
    """What becomes of the alias `champion` when somebody has moved it in MLflow; an unfit version is never accepted."""
    decided_by: tuple[str, ...] = Field(min_length=1)
    """The metrics of METRICS, and of LABEL_METRICS by label, that decide."""
    min_test_rows: int = Field(ge=1)
    """Fewer test rows than this cannot decide."""
    min_label_rows: int = Field(ge=1)
    """Nor can fewer test rows of a label whose own metric decides."""
    min_gain_over_baseline: float
    """What the challenger must have above the simple baseline in each metric that decides."""
    significance: float = Field(gt=0, lt=0.5)
    """The chance that one which is no better replaces a champion as the first of a reign; of all, at most twice it."""
    min_gain: float = Field(ge=0)
    """What the challenger must have above the champion in one of them to be worth a change."""
    max_loss: float = Field(ge=0)
    """What the challenger may lose to the champion in each of them, proven at the significance."""
    max_part_loss: float = Field(ge=0)
    """What the challenger may lose to the champion on a part of the rows: F1 on a label, accuracy on a slice."""
    harm_confidence: float = Field(ge=0.5, lt=1)
    """How likely a larger loss must be to stand against a challenger."""
    part_spread: float = Field(gt=0)
    """The standard deviation of gains on parts before rows are seen: few rows are trusted less."""
    costs: dict[str, dict[str, NonNegativeFloat]]
    """What a wrong answer costs, by true and answered label, in F1 on labels and in the metric cost; 1 where nothing is
    said."""
    max_calibration_error: float = Field(ge=0, le=1)
    """Unless the champion's is larger still."""
    max_milliseconds: float = Field(gt=0)
    """What the challenger may take to answer a row."""
    min_reference_rows: int = Field(ge=1)
    """A refit is judged by the reference rows; fewer than this cannot tell."""
    min_refit_agreement: float = Field(ge=0, le=1)
    """The share of the reference rows that a refit must answer as the version does that was evaluated."""
    approval_days: int = Field(ge=0)
    """Days, by as-of, in which a version that awaits approval can be approved."""
    rollback_holds_days: int = Field(ge=0)
    """Days, by as-of, for which a rollback holds: what passes the gate meanwhile awaits approval."""

    @field_validator("decided_by")
    @classmethod
    def _are_metrics(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for place, name in enumerate(names):
            kind, of, label = name.partition(":")
            if not (kind in LABEL_METRICS and label if of else name in METRICS):
                known = ", ".join([*METRICS, *(f"{metric}:<label>" for metric in LABEL_METRICS)])
                raise ValueError(f"{name!r} is no metric; there are {known}")
            if name in names[:place]:
                raise ValueError(f"{name!r} is named twice")
        return names

    def level(self, nth: int) -> float:
        """The chance at which each metric is tested, for the nth challenger of a reign, from 1.

        The metrics share the significance, and so do the challengers: over all of them it sums to twice it.
        """
        return 2 * self.significance / (len(self.decided_by) * nth * (nth + 1))


class LedgerSettings(Section):
    """`configs/ledger.yaml`: of the home, whatever the profile of a run is."""

    anchor: Path | None
    """A folder outside of the home that remembers the ledger's last entry; None for none."""
