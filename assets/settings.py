"""What a run can be told: `configs/*.yaml`, with a profile laid over them, validated as a whole.

Each section of `Settings` is one file in `configs/`; a profile in `configs/profiles/` holds the same sections and
overrides single fields. An unknown or impossible value is a SettingsError that names the file and the field.
"""

import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, ValidationError, field_validator, model_validator

from assets.exceptions import SettingsError

__all__ = [
    "CONFIGS",
    "QUEUES",
    "DriftSettings",
    "EvaluationSettings",
    "GatePolicy",
    "IngestionSettings",
    "LedgerSettings",
    "Precision",
    "RetentionSettings",
    "RetrainingPolicy",
    "ScoringSettings",
    "Settings",
    "SnapshotSettings",
    "TrainingSettings",
    "WarehouseSettings",
    "load_ledger_settings",
    "load_policy",
    "load_settings",
    "profiles",
]

CONFIGS = Path(__file__).parent.parent / "configs"

QUEUES = (
    "bank_account",
    "cards",
    "consumer_loan",
    "credit_reporting",
    "debt_collection",
    "money_transfer",
    "mortgage",
    "other",
    "student_loan",
)
"""The teams a complaint can be routed to, in the order of the model's outputs."""

Precision = Literal["float32", "bfloat16"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class IngestionSettings(_Section):
    max_record_bytes: int = Field(ge=1024)
    """A record that is longer, or whose quotes are still open after this many bytes, is broken."""
    chunk_bytes: int = Field(ge=4096)
    """The stretch of an object that is in memory at a time."""
    max_object_bytes: int = Field(ge=1)
    """A larger object is refused unread."""
    max_expansion: int = Field(ge=1)
    """A packed object that expands to more than this many times its size is refused from there on."""
    max_expanded_bytes: int = Field(ge=1)
    """The same, in bytes."""
    batch_records: int = Field(ge=1)
    """Records held in memory before they are written."""
    published_in_key: str | None
    """A regular expression for the day of publication in an object's key, with the groups year, month and, if there
    are days, day; None where keys do not tell."""

    @field_validator("published_in_key")
    @classmethod
    def _names_a_month(cls, pattern: str | None) -> str | None:
        try:
            groups = set(re.compile(pattern).groupindex) if pattern is not None else {"year", "month"}
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if not {"year", "month"} <= groups <= {"year", "month", "day"}:
            raise ValueError("name its groups year, month and, if there are days, day")
        return pattern


class WarehouseSettings(_Section):
    max_unmapped_share: float = Field(ge=0, le=1)
    """The largest share of valid records whose product no queue is mapped to: of all, of an object, of a night."""
    max_quarantined_share: float = Field(ge=0, le=1)
    """The largest share of landed records that may be quarantined: of all, of an object, of a night."""
    min_object_rows: int = Field(ge=1)
    """Objects and nights of fewer records are not judged by shares."""
    max_staleness_days: int = Field(ge=0)
    """The newest known record may be at most this many days older than as-of."""
    max_mix_shift: float = Field(ge=0, le=1)
    """The largest total variation distance of a queue mix from the previous publication's: of all, of a new object, of
    a night."""


class SnapshotSettings(_Section):
    test_rows: int = Field(ge=1)
    """Rows in the test part: the newest records with a known label."""
    min_train_rows: int = Field(ge=1)
    """Fewer rows than this to train on stop the graph."""
    max_train_rows: int = Field(ge=1)
    """The newest rows kept for training."""
    max_copies: int | None = Field(ge=1)
    """Training rows that may begin with the same 120 characters, the newest; None for any number."""
    near_duplicate_similarity: float = Field(gt=0, le=1)
    """Jaccard similarity of word shingles at which two narratives are near duplicates."""
    reference_share: float = Field(ge=0, lt=1)
    """The share of texts that no training ever sees; 0 for none."""
    max_adversarial_auc: float = Field(ge=0.5, le=1)
    """How well a small model may tell test rows from train rows by their features before it is reported."""
    reference_rows: int = Field(ge=0)
    """How many of them challenger and champion are compared on: always the same ones, until there are more."""


class TrainingSettings(_Section):
    base_model: str
    """A local folder, a hub id, or the packaged default."""
    max_tokens: int = Field(ge=8)
    """Text beyond this many tokens is cut."""
    epochs: float = Field(gt=0)
    """Passes over the training rows."""
    batch_rows: int = Field(ge=1)
    """Rows of one optimizer step, over all ranks."""
    batch_tokens: int = Field(ge=1)
    """Padded tokens of one micro-batch on one rank: what bounds the memory of a step."""
    validation_share: float = Field(ge=0, lt=1)
    """The share of the newest training rows that is held back for early stopping and the temperature; 0 for none."""
    learning_rate: float = Field(gt=0)
    """Of the encoder."""
    head_learning_rate: float = Field(gt=0)
    """Of what is new on top of the encoder."""
    layer_rate_decay: float = Field(gt=0, le=1)
    """Each encoder layer learns at this multiple of the rate of the layer above it; 1 is one rate for all."""
    weight_decay: float = Field(ge=0)
    """Of matrices; biases and normalisation weights never decay."""
    gradient_clipping: float = Field(ge=0)
    """The largest norm that a step's gradients may have; 0 leaves them as they are."""
    schedule: Literal["linear", "cosine", "constant"]
    """How the learning rate goes on after its rise: down to nothing in a line or in half a cosine, or not at all."""
    warmup_share: float = Field(ge=0, lt=1)
    """The share of steps over which the learning rate rises."""
    evaluate_every: int = Field(ge=1)
    """Optimizer steps between two looks at the validation rows."""
    patience: int | None = Field(ge=1)
    """Evaluations without improvement after which training stops; None trains to the end."""
    class_weight_power: float = Field(ge=0, le=1)
    """Class weights are frequency to minus this power: 0 is none, 1 is balanced."""
    trainable_layers: int | None = Field(ge=0)
    """Encoder layers that are trained, counted from the top; None for all."""
    train_embeddings: bool
    """Whether the encoder's word embeddings are trained."""
    hashed_words: int = Field(ge=0)
    """Buckets of the linear branch over hashed words; 0 leaves the branch out."""
    word_share: float = Field(ge=0, le=1)
    """The linear branch's share of the answer: the mean of its logits and of the encoder's is weighted so."""
    prior_labels: float = Field(gt=0)
    """Labels that the overall mix of queues counts for in the log-prior of a company or a state."""
    refit: bool = False
    """Whether a version that the gate promotes is trained again with its test rows, to answer in its place."""
    seed: int
    precision: Literal["bf16", "fp16", "fp32"]
    """Of weights, activations and gradients; the optimizer always works in float32."""
    gradient_precision: Literal["fp32"] | None
    """In which the gradients of micro-batches are added up; None for `precision`, which takes less memory."""
    activation_checkpointing: bool
    """Compute activations again for the backward pass instead of keeping them: slower, less memory."""
    compile: bool
    """Whether torch.compile fuses the encoder: a minute or more before the first step."""
    ranks: int | None = Field(ge=1)
    """Worker processes; None for one per GPU, or one where there is none."""
    hostfile: str | None
    """A DeepSpeed hostfile, for several machines."""
    deepspeed: str
    """A file in configs/deepspeed, without its ending."""
    checkpoint_seconds: float = Field(gt=0)
    """Seconds between two checkpoints of a run."""
    checkpoints_kept: int = Field(ge=1)
    """Checkpoints of a run that are kept: the newest."""
    checkpoints: str | None = Field(pattern="^s3://[^/]+")
    """An s3://bucket/prefix that they are copied to, so that a run outlives its machine; None for none."""
    nvme: str | None
    """A folder on a local NVMe drive, for the files in configs/deepspeed that offload to one."""
    price_per_hour: float = Field(ge=0)
    """What an hour of one rank costs, in any currency."""


class EvaluationSettings(_Section):
    calibration_bins: int = Field(ge=2)
    min_slice_rows: int = Field(ge=1)
    """Smaller slices are shown but decide nothing."""
    min_label_rows: int = Field(ge=1)
    """A queue with fewer training rows is named in the evaluation and on the model card."""
    golden_rows: int = Field(ge=1)
    """Test rows whose outputs are kept, to prove that serving equals evaluation."""


class GatePolicy(_Section):
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
    """What the challenger may lose to the champion on a part of the rows: F1 on a queue, accuracy on a slice."""
    harm_confidence: float = Field(ge=0.5, lt=1)
    """How likely a larger loss must be to stand against a challenger."""
    part_spread: float = Field(gt=0)
    """The standard deviation of gains on parts before rows are seen: few rows are trusted less."""
    costs: dict[str, dict[str, NonNegativeFloat]]
    """What a wrong answer costs, by true and answered queue, in F1 on queues; 1 where nothing is said."""
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

    @field_validator("costs")
    @classmethod
    def _names_queues(cls, costs: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        if unknown := {name for true, answers in costs.items() for name in (true, *answers)} - set(QUEUES):
            raise ValueError(f"{sorted(unknown)[0]!r} is no queue; the queues are {', '.join(QUEUES)}")
        return costs


class LedgerSettings(_Section):
    """`configs/ledger.yaml`: of the home, whatever the profile of a run is."""

    anchor: Path | None
    """A folder outside of the home that remembers the ledger's last entry; None for none."""


class ScoringSettings(_Section):
    window_days: int = Field(ge=1)
    """Complaints received in this many days up to as-of are scored."""
    batch_tokens: int = Field(ge=1)
    """Tokens of one pass through the model, padding included."""
    chunk_rows: int = Field(ge=1)
    """Rows held in memory before they are written, and scored again at most after a kill."""
    precision: Precision
    """Of the encoder, where the processor has it; close calls are settled in float32 either way."""


class DriftSettings(_Section):
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


class RetrainingPolicy(_Section):
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


class RetentionSettings(_Section):
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


class Settings(_Section):
    """Every setting of a run, by section; the name of a section is the name of its file in `configs/`."""

    ingestion: IngestionSettings
    warehouse: WarehouseSettings
    snapshot: SnapshotSettings
    training: TrainingSettings
    evaluation: EvaluationSettings
    gate: GatePolicy
    scoring: ScoringSettings
    drift: DriftSettings
    retraining: RetrainingPolicy
    retention: RetentionSettings


def profiles() -> list[str]:
    """Names of the profiles in `configs/profiles`, sorted."""
    return sorted(path.stem for path in (CONFIGS / "profiles").glob("*.yaml"))


def load_settings(profile: str) -> Settings:
    """The settings of a profile. Raises SettingsError for an unknown profile, section or field."""
    if profile not in profiles():
        raise SettingsError(f"unknown profile {profile!r}; configs/profiles has {', '.join(profiles())}")
    overrides = _read(CONFIGS / "profiles" / f"{profile}.yaml")
    if unknown := sorted(set(overrides) - set(Settings.model_fields)):
        raise SettingsError(f"configs/profiles/{profile}.yaml: unknown section {unknown[0]!r}")
    sections = {name: _read(CONFIGS / f"{name}.yaml") | overrides.get(name, {}) for name in Settings.model_fields}
    try:
        return Settings.model_validate(sections)
    except ValidationError as error:
        raise SettingsError(_explain(error, profile, overrides)) from None


def load_ledger_settings() -> LedgerSettings:
    """`configs/ledger.yaml`. Raises SettingsError for an unknown or impossible field."""
    path = CONFIGS / "ledger.yaml"
    try:
        return LedgerSettings.model_validate(_read(path))
    except ValidationError as error:
        raise SettingsError(_first(error, path, "the ledger")) from None


def load_policy(name: str) -> RetrainingPolicy:
    """configs/retraining.yaml under the changes of a file, or of one in configs/policies by its name alone.

    Raises SettingsError for a file that cannot be read and for an unknown or impossible field.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else CONFIGS / "policies" / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in (CONFIGS / "policies").glob("*.yaml")))
        raise SettingsError(f"no policy {name!r}: name a YAML file, or one of configs/policies: {known}")
    try:
        return RetrainingPolicy.model_validate(_read(CONFIGS / "retraining.yaml") | _read(path))
    except ValidationError as error:
        raise SettingsError(_first(error, path, "the policy")) from None


def _first(error: ValidationError, path: Path, whole: str) -> str:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or whole
    what = "unknown setting" if first["type"] == "extra_forbidden" else first["msg"].lower()
    return f"{_named(path)}: {field}: {what} (found {first['input']!r})"


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(f"{_named(path)}: cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise SettingsError(f"{_named(path)}: expected fields, found {type(content).__name__}")
    return content


def _named(path: Path) -> str:
    """What people call a file: those of the project by their place in it."""
    return f"configs/{path.relative_to(CONFIGS)}" if path.is_relative_to(CONFIGS) else str(path)


def _explain(error: ValidationError, profile: str, overrides: dict[str, Any]) -> str:
    first = error.errors()[0]
    section, *field = [str(part) for part in first["loc"]]
    overridden = bool(field) and field[0] in overrides.get(section, {})
    file = f"profiles/{profile}.yaml" if overridden else f"{section}.yaml"
    what = "unknown setting" if first["type"] == "extra_forbidden" else first["msg"].lower()
    return f"configs/{file}: {'.'.join([section, *field])}: {what} (found {first['input']!r})"
