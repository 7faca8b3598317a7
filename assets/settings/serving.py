"""How records are scored, what counts as drift, when a retraining is worth it, and what stays."""

from typing import Literal

from pydantic import Field, model_validator

from assets.settings.section import Section

__all__ = ["DriftSettings", "Precision", "RetentionSettings", "RetrainingPolicy", "ScoringSettings"]

Precision = Literal["float32", "bfloat16"]


class ScoringSettings(Section):
    window_days: int = Field(ge=1)
    """Records received in this many days up to as-of are scored."""
    batch_tokens: int = Field(ge=1)
    """Tokens of one pass through the model, padding included."""
    chunk_rows: int = Field(ge=1)
    """Rows held in memory before they are written, and scored again at most after a kill."""
    precision: Precision
    """Of the encoder, where the processor has it; close calls are settled in float32 either way."""


class DriftSettings(Section):
    window_days: int = Field(ge=1)
    """The days up to as-of that are compared with the champion's training snapshot."""
    sample_rows: int = Field(ge=100)
    """Rows drawn from either side at most."""
    min_rows: int = Field(ge=1)
    """Fewer rows than this cannot be judged."""
    psi_threshold: float = Field(gt=0)
    """Population stability index below which no column has drifted."""
    predictions_threshold: float = Field(gt=0)
    """The same of what the champion answers: its evaluation is a small sample of some days."""
    wording_rows: int = Field(ge=100)
    """Texts at most, of the window and of each stretch of the training period, that are told apart by their words."""
    wording_threshold: float = Field(gt=0.5, le=1)
    """Area under the ROC curve below which the wording has not drifted; 0.5 is chance."""
    share_threshold: float = Field(gt=0, lt=1)
    """Share of the drifted columns of a group (features, text, wording, predictions or labels) above which there is
    drift."""
    bins: int = Field(ge=2)
    """Quantile bins of a number, and categories kept before the rest are pooled."""
    blocks: int = Field(ge=4)
    """Stretches of the training period, at least, that show how much a column moves in calm times."""
    calm_confidence: float = Field(gt=0.5, lt=1)
    """The confidence that a column which is lively by nature stays within what those stretches allow it."""
    false_alarms: float = Field(gt=0, lt=1)
    """The chance that a year of nights finds a promise broken that the champion has kept."""
    min_loss: float = Field(ge=0, lt=1)
    """Accuracy whose loss is worth an alarm."""
    min_maturity: float = Field(gt=0, le=1)
    """Share of a window's labels that must have arrived before its realised accuracy is given."""
    vocabulary_rows: int = Field(ge=100)
    """Training rows whose words are the vocabulary that the model knows."""


class RetrainingPolicy(Section):
    min_new_labels: int = Field(ge=1)
    """New matured labels since the champion's snapshot below which a retraining waits for more."""
    min_mature_rows: int = Field(ge=1)
    """Matured rows below which performance cannot be judged."""
    realised_days: int = Field(ge=1)
    """Days up to as-of whose labels tell how good the champion is now; as many more as hold `min_mature_rows`."""
    value_per_answer: float | None = Field(ge=0)
    """What a right answer in the place of a wrong one is worth; None: gain and cost are not weighed."""
    horizon_days: int = Field(ge=1)
    """Days over which a new champion's gain counts."""
    decay_per_day: float = Field(ge=0)
    """Accuracy that a champion is expected to lose a day, until evaluations have shown how much."""
    price_per_retraining: float = Field(ge=0)
    """What a promotion costs: review and roll-out. Every training pays for its device, priced in training.yaml."""
    budget_per_month: float = Field(ge=0)
    """What the retrainings of a calendar month may cost."""
    probe: bool
    """Whether twins of challenger and champion say what a new champion would gain, not age, labels and confidence."""
    twin_rows: int = Field(ge=100)
    """Training rows, the newest, that a twin learns from at most."""
    gain_spread: float = Field(gt=0)
    """How far a new champion's gain strays from what age explains: its standard deviation after a day, which grows with
    the square root of the days."""
    on_drift: bool
    """Whether drift calls for a retraining, whatever it is worth."""
    windows: int = Field(ge=1)
    """The last windows that are asked for drift."""
    drifted_windows: int = Field(ge=1)
    """As many of them must show it."""
    max_age_days: int | None = Field(ge=0)
    """A champion whose snapshot is this old is replaced, whatever that is worth; None: age alone is no reason."""
    cooldown_days: int = Field(ge=0)
    """Days between two retrainings."""
    attempts: int = Field(ge=1)
    """Attempts at a retraining that end without a verdict before a person is told; each waits twice as long."""

    @model_validator(mode="after")
    def _possible(self) -> "RetrainingPolicy":
        if self.drifted_windows > self.windows:
            raise ValueError(f"drifted_windows: {self.drifted_windows} of {self.windows} windows can never be")
        return self


class RetentionSettings(Section):
    publications: int = Field(ge=1)
    """Publications of the marts that stay: the newest."""
    days: int = Field(ge=1)
    """As-of days whose audits, predictions, performance, drift, probes and decisions stay; those of a reign do, too."""
    page_days: int = Field(ge=1)
    """As-of days whose drift pages stay."""
    trainings: int = Field(ge=1)
    """Trainings whose bundles stay: the newest."""
    rollbacks: int = Field(ge=0)
    """Former champions that a rollback can reach: the newest."""
    reproducible: int = Field(ge=0)
    """Trainings whose training sets stay, with the marts that those were made of: the newest."""
    checkpoints: int = Field(ge=1)
    """Trainings that did not end, and whose checkpoints stay: the newest."""
    runs: int = Field(ge=1)
    """Runs of Dagster that have ended, and stay: the newest."""
    replays: int = Field(ge=0)
    """Homes of replays, and tables of texts, that stay: the last used."""
    manifests: int = Field(ge=1)
    """dbt's manifests that stay: the newest."""
