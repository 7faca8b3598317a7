"""How a challenger is measured, what the gate asks of it, and what the ledger is held to."""

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat

from assets.settings.section import Section

__all__ = ["EvaluationSettings", "GatePolicy", "LedgerSettings"]


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
    min_test_rows: int = Field(ge=1)
    """Fewer test rows than this cannot decide."""
    min_gain_over_baseline: float
    """Accuracy and macro-F1 that the challenger must have above the simple baseline."""
    significance: float = Field(gt=0, lt=0.5)
    """The chance that one which is no better replaces a champion as the first of a reign; of all, at most twice it."""
    min_gain: float = Field(ge=0)
    """Accuracy or macro-F1 above the champion's that is worth a change."""
    max_loss: float = Field(ge=0)
    """Accuracy and macro-F1 that the challenger may lose to the champion, proven at the significance."""
    max_part_loss: float = Field(ge=0)
    """What the challenger may lose to the champion on a part of the rows: F1 on a label, accuracy on a slice."""
    harm_confidence: float = Field(ge=0.5, lt=1)
    """How likely a larger loss must be to stand against a challenger."""
    part_spread: float = Field(gt=0)
    """The standard deviation of gains on parts before rows are seen: few rows are trusted less."""
    costs: dict[str, dict[str, NonNegativeFloat]]
    """What a wrong answer costs, by true and answered label, in F1 on labels; 1 where nothing is said."""
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


class LedgerSettings(Section):
    """`configs/ledger.yaml`: of the home, whatever the profile of a run is."""

    anchor: Path | None
    """A folder outside of the home that remembers the ledger's last entry; None for none."""
