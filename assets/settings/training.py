"""Settings of training, grouped by who decides them."""

from typing import Literal

from pydantic import Field

from assets.settings.section import Section

__all__ = ["TrainingSettings"]


class ModelSettings(Section):
    """The model: an encoder, and the parts around it."""

    base_model: str
    """A local folder, a hub id, or the packaged default."""
    max_tokens: int = Field(ge=8)
    """Text is cut after this many tokens."""
    trainable_layers: int | None = Field(ge=0)
    """The number of encoder layers that are trained, counted from the top; None for all."""
    train_embeddings: bool
    """Whether the encoder's word embeddings are trained."""
    hashed_words: int = Field(ge=0)
    """Buckets of the linear branch over hashed words; 0 leaves the branch out."""
    word_share: float = Field(ge=0, le=1)
    """The linear branch's weight in the mean of its logits and the encoder's."""
    prior_labels: float = Field(gt=0)
    """The number of labels that the overall label mix counts as in the log-prior of an entity."""


class OptimizerSettings(Section):
    """The optimization: from which rows, how fast and for how long."""

    epochs: float = Field(gt=0)
    """Passes over the training rows."""
    batch_rows: int = Field(ge=1)
    """Rows per optimizer step, over all ranks."""
    validation_share: float = Field(ge=0, lt=1)
    """The share of the training rows, the newest, held back for early stopping and the temperature; 0 for none."""
    learning_rate: float = Field(gt=0)
    """The encoder's learning rate."""
    head_learning_rate: float = Field(gt=0)
    """The learning rate of the new parts on top of the encoder."""
    layer_rate_decay: float = Field(gt=0, le=1)
    """Each encoder layer's learning rate is this multiple of that of the layer above; 1 is one rate for all."""
    weight_decay: float = Field(ge=0)
    """The weight decay of matrices; biases and normalisation weights never decay."""
    gradient_clipping: float = Field(ge=0)
    """The largest norm of a step's gradients; 0 for no clipping."""
    schedule: Literal["linear", "cosine", "constant"]
    """The learning rate after warm-up: it falls to 0 linearly or along half a cosine, or stays."""
    warmup_share: float = Field(ge=0, lt=1)
    """The share of steps over which the learning rate rises."""
    evaluate_every: int = Field(ge=1)
    """Optimizer steps between two evaluations on the validation rows."""
    patience: int | None = Field(ge=1)
    """Evaluations without improvement after which training stops; None trains to the end."""
    class_weight_power: float = Field(ge=0, le=1)
    """Class weights are frequencies to the power of minus this: 0 is unweighted, 1 is balanced."""
    seed: int
    """Of every random choice: the same seed trains the same model."""


class HardwareSettings(Section):
    """The hardware, and how it is used."""

    batch_tokens: int = Field(ge=1)
    """Padded tokens per micro-batch on one rank, which bounds the memory of a step."""
    precision: Literal["auto", "bf16", "fp16", "fp32"]
    """The precision of weights, activations and gradients; the optimizer always works in float32. Plans never say
    auto."""
    gradient_precision: Literal["fp32"] | None
    """The precision in which the gradients of micro-batches are summed; None for `precision`, which takes less
    memory."""
    activation_checkpointing: bool
    """Whether to recompute activations in the backward pass instead of keeping them: slower, less memory."""
    compile: bool
    """Whether torch.compile fuses the encoder: it takes a minute or more before the first step."""
    ranks: int | None = Field(ge=1)
    """The number of worker processes; None for one per GPU, or one without GPUs."""
    hostfile: str | None
    """A DeepSpeed hostfile, for several machines."""
    deepspeed: str
    """A file in configs/deepspeed, without its ending."""


class StorageSettings(Section):
    """Where the checkpoints of a run are kept."""

    checkpoint_seconds: float = Field(gt=0)
    """Seconds between two checkpoints of a run."""
    checkpoints_kept: int = Field(ge=1)
    """The number of newest checkpoints of a run that are kept."""
    checkpoints: str | None = Field(pattern="^s3://[^/]+")
    """An s3://bucket/prefix to which checkpoints are copied, so that a run outlives its machine; None for none or,
    where machines share a home, `checkpoints` beside its objects."""
    nvme: str | None
    """A folder on a local NVMe drive, for the files in configs/deepspeed that offload to one."""


class CostSettings(Section):
    """The cost of a training."""

    price_per_hour: float = Field(ge=0)
    """The price of an hour of one rank, in any currency."""
    refit: bool = False
    """Whether a version that the gate promotes is trained again with its test rows included, to serve instead of it."""


class ClusterSettings(Section):
    """The ranks on a Ray cluster; where the environment names none, these have no effect."""

    rank_cpus: int = Field(default=1, ge=1)
    """The processor cores that each rank takes on a cluster; it computes with as many threads."""
    rank_gpus: int = Field(default=0, ge=0, le=1)
    """Whether each rank takes a GPU of a cluster: 1 or 0."""
    fewest_ranks: int | None = Field(default=None, ge=1)
    """The number of ranks with which a training goes on where a cluster has lost workers; None for all of its ranks."""
    silence_seconds: float = Field(default=300, gt=0)
    """Seconds without a line of progress after which the ranks on a cluster count as hung, and start again; a step and
    an evaluation must take less."""
    bulk_rows: int | None = Field(default=None, ge=1)
    """The number of training rows from which on the workers of a cluster encode them, each with `rank_cpus`, before the
    ranks start; None for never, then each machine encodes all of them."""


class TrainingSettings(Section):
    """Groups of settings; no two of their fields share a name."""

    model: ModelSettings
    optimizer: OptimizerSettings
    hardware: HardwareSettings
    storage: StorageSettings
    cost: CostSettings
    cluster: ClusterSettings = ClusterSettings()
