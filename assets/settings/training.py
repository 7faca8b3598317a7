"""How a model is trained, by who owns a setting."""

from typing import Literal

from pydantic import Field

from assets.settings.section import Section

__all__ = ["TrainingSettings"]


class ModelSettings(Section):
    """What is learned: an encoder, and what is around it."""

    base_model: str
    """A local folder, a hub id, or the packaged default."""
    max_tokens: int = Field(ge=8)
    """Text beyond this many tokens is cut."""
    trainable_layers: int | None = Field(ge=0)
    """Encoder layers that are trained, counted from the top; None for all."""
    train_embeddings: bool
    """Whether the encoder's word embeddings are trained."""
    hashed_words: int = Field(ge=0)
    """Buckets of the linear branch over hashed words; 0 leaves the branch out."""
    word_share: float = Field(ge=0, le=1)
    """The linear branch's share of the answer: the mean of its logits and of the encoder's is weighted so."""
    prior_labels: float = Field(gt=0)
    """Labels that the overall mix of labels counts for in the log-prior of an entity."""


class OptimizerSettings(Section):
    """How it is learned: from which rows, how fast and for how long."""

    epochs: float = Field(gt=0)
    """Passes over the training rows."""
    batch_rows: int = Field(ge=1)
    """Rows of one optimizer step, over all ranks."""
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
    seed: int


class HardwareSettings(Section):
    """What it is learned on, and how that is used."""

    batch_tokens: int = Field(ge=1)
    """Padded tokens of one micro-batch on one rank: what bounds the memory of a step."""
    precision: Literal["auto", "bf16", "fp16", "fp32"]
    """Of weights, activations and gradients; the optimizer always works in float32. Plans never say auto."""
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


class StorageSettings(Section):
    """Where a run is kept while it is under way."""

    checkpoint_seconds: float = Field(gt=0)
    """Seconds between two checkpoints of a run."""
    checkpoints_kept: int = Field(ge=1)
    """Checkpoints of a run that are kept: the newest."""
    checkpoints: str | None = Field(pattern="^s3://[^/]+")
    """An s3://bucket/prefix that they are copied to, so that a run outlives its machine; None for none."""
    nvme: str | None
    """A folder on a local NVMe drive, for the files in configs/deepspeed that offload to one."""


class CostSettings(Section):
    """What a training may cost, and costs."""

    price_per_hour: float = Field(ge=0)
    """What an hour of one rank costs, in any currency."""
    refit: bool = False
    """Whether a version that the gate promotes is trained again with its test rows, to answer in its place."""


class TrainingSettings(Section):
    """Groups of settings; no two fields of theirs have one name."""

    model: ModelSettings
    optimizer: OptimizerSettings
    hardware: HardwareSettings
    storage: StorageSettings
    cost: CostSettings
