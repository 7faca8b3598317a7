"""Settings of scoring, drift, retraining, retention, the front door and alerts."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from assets.settings.section import Section

__all__ = [
    *("AlertSettings", "DriftSettings", "FrontSettings", "Precision"),
    *("RetentionSettings", "RetrainingPolicy", "ScoringSettings"),
]

Precision = Literal["float32", "bfloat16"]


class BulkSettings(Section):
    """Scoring on a Ray cluster, which has no effect on the answers; none where the environment names no cluster."""

    bulk_rows: int | None = Field(default=None, ge=1)
    """The number of records in the window from which on a cluster scores them; None for never."""
    worker_cpus: int = Field(default=1, ge=1)
    """The processor cores that each worker takes; it computes with as many threads."""
    worker_gpus: int = Field(default=0, ge=0, le=1)
    """Whether each worker takes a GPU: 1 or 0."""


class ScoringSettings(Section):
    """Which records are scored, and how."""

    window_days: int = Field(ge=1)
    """Records received in this many days up to as-of are scored."""
    batch_tokens: int = Field(ge=1)
    """Tokens in one pass through the model, including padding."""
    chunk_rows: int = Field(ge=1)
    """Rows held in memory before they are written, and the most that are scored again after a kill."""
    precision: Precision
    """The encoder's, where the processor supports it; close calls are decided in float32 either way."""
    cluster: BulkSettings = BulkSettings()

    def deciding(self) -> dict[str, Any]:
        """The settings that answers depend on."""
        return self.model_dump(exclude={"cluster"})


class DriftSettings(Section):
    """What counts as drift."""

    window_days: int = Field(ge=1)
    """The days up to as-of that are compared with the champion's training snapshot."""
    sample_rows: int = Field(ge=100)
    """The most rows sampled from each side."""
    min_rows: int = Field(ge=1)
    """The fewest rows that can be judged."""
    psi_threshold: float = Field(gt=0)
    """The population stability index below which no column has drifted."""
    predictions_threshold: float = Field(gt=0)
    """The same for the champion's answers, whose baseline is a small sample: its evaluation on a few days."""
    wording_rows: int = Field(ge=100)
    """The most texts, of the window and of each block of the training period, that a classifier separates by words."""
    wording_threshold: float = Field(gt=0.5, le=1)
    """The area under the ROC curve below which the wording has not drifted; 0.5 is chance."""
    share_threshold: float = Field(gt=0, lt=1)
    """The share of drifted columns in a group (features, text, wording, predictions or labels) above which there is
    drift."""
    bins: int = Field(ge=2)
    """Quantile bins of a number, and categories kept before the rest are pooled."""
    blocks: int = Field(ge=4)
    """The fewest blocks of the training period that show how much a column moves in calm times."""
    calm_confidence: float = Field(gt=0.5, lt=1)
    """The confidence that a naturally variable column stays within the limits that those blocks give it."""
    false_alarms: float = Field(gt=0, lt=1)
    """The chance that a year of nights raises an alarm while the champion is as accurate as promised."""
    min_loss: float = Field(ge=0, lt=1)
    """The loss of accuracy that is worth an alarm."""
    min_maturity: float = Field(gt=0, le=1)
    """The share of a window's labels that must have arrived before its realised accuracy is given."""
    vocabulary_rows: int = Field(ge=100)
    """The training rows whose words are taken as the model's vocabulary."""


class RetrainingPolicy(Section):
    """When a retraining is worth it. Money is in the currency of `price_per_hour` in training.yaml."""

    min_new_labels: int = Field(ge=1)
    """The fewest new matured labels since the champion's snapshot; with fewer, a retraining waits for more."""
    min_mature_rows: int = Field(ge=1)
    """The fewest matured rows by which performance can be judged."""
    realised_days: int = Field(ge=1)
    """The days up to as-of whose labels say how good the champion is now; more until they have `min_mature_rows`."""
    value_per_answer: float | None = Field(ge=0)
    """The value of a right answer instead of a wrong one; None: gain and cost are not weighed."""
    horizon_days: int = Field(ge=1)
    """Days over which a new champion's gain counts."""
    decay_per_day: float = Field(ge=0)
    """The accuracy that a champion is expected to lose per day, until evaluations have measured it."""
    price_per_retraining: float = Field(ge=0)
    """The cost of a promotion: review and roll-out. The device of every training is priced in training.yaml."""
    budget_per_month: float = Field(ge=0)
    """The most that the retrainings of a calendar month may cost."""
    probe: bool
    """Whether twins of challenger and champion estimate a new champion's gain, instead of age, labels and
    confidence."""
    twin_rows: int = Field(ge=100)
    """The most training rows, the newest, that a twin learns from."""
    gain_spread: float = Field(gt=0)
    """How far a new champion's gain strays from what age explains: its standard deviation after a day, which grows with
    the square root of the days."""
    on_drift: bool
    """Whether drift calls for a retraining, whatever it is worth."""
    windows: int = Field(ge=1)
    """The number of most recent windows in which to look for drift."""
    drifted_windows: int = Field(ge=1)
    """How many of them must show it."""
    max_age_days: int | None = Field(ge=0)
    """The age of a champion's snapshot that calls for a retraining, whatever that is worth; None for none."""
    cooldown_days: int = Field(ge=0)
    """The fewest days between two retrainings."""
    attempts: int = Field(ge=1)
    """Attempts at a retraining that may end without a verdict before a person is alerted; each waits twice as long."""

    @model_validator(mode="after")
    def _possible(self) -> "RetrainingPolicy":
        if self.drifted_windows > self.windows:
            raise ValueError(f"drifted_windows: {self.drifted_windows} of {self.windows} windows is impossible")
        return self


class RetentionSettings(Section):
    """How much `evergreen prune`, the last step of every night, keeps of what nothing needs any more."""

    grace_days: int = Field(ge=0)
    """As-of days for which something in the lake must have been marked as not needed before it is removed."""
    publications: int = Field(ge=1)
    """The newest publications of the marts that are kept."""
    days: int = Field(ge=1)
    """As-of days whose audits, predictions, performance, drift, probes and decisions are kept, as are those of a
    reign."""
    served_days: int = Field(ge=1)
    """Days, back from the as-of, whose segments of what `evergreen serve` was asked and has answered are kept, as is
    evidence about a version that may yet replace the champion. Later feedback on older ones completes no record."""
    page_days: int = Field(ge=1)
    """As-of days whose reports by Evidently, and pictures in Dagster, are kept."""
    trainings: int = Field(ge=1)
    """The newest trainings whose bundles are kept."""
    rollbacks: int = Field(ge=0)
    """The newest former champions that a rollback can reach."""
    reproducible: int = Field(ge=0)
    """The newest trainings whose training sets are kept, with the marts they were built from."""
    checkpoints: int = Field(ge=1)
    """The newest unfinished trainings whose checkpoints are kept."""
    runs: int = Field(ge=1)
    """The newest finished Dagster runs that are kept."""
    replays: int = Field(ge=0)
    """The last used homes of replays, and tables of texts, that are kept."""
    manifests: int = Field(ge=1)
    """The newest dbt manifests that are kept."""
    copies_gb: float = Field(gt=0)
    """Gigabytes of copies of the lake's versions that a machine keeps where machines share a home."""


class FrontSettings(Section):
    """`configs/front.yaml`: settings of the home, whatever the profile of a run."""

    texts: bool
    """Whether the rows behind a number are shown with their texts. Texts of which a field is sensitive never are."""
    text_characters: int = Field(ge=1)
    """The most characters of a text that are shown."""
    page_rows: int = Field(ge=1, le=1000)
    """The rows of a page."""


class AlertSettings(Section):
    """`configs/alerts.yaml`: settings of the home, whatever the profile of a run."""

    url_file: Path | None
    """A file with the receiver's address, which is a secret; None: EVERGREEN_ALERTS_URL, and no alerts without it."""
    kinds: tuple[Literal["failure", "person", "drift", "budget"], ...]
    """What is told: failed runs, what a person is needed for, drift when it begins, a month's budget that is spent."""
    timeout_seconds: float = Field(gt=0, le=10)
    """Seconds within which the receiver must answer."""
    attempts: int = Field(ge=1, le=12)
    """Attempts at an alert, one, two, four, ... minutes apart, before it is given up and the next one is sent."""
