"""Runs the classifier's encoder on a GPU or with OpenVINO, if the answers agree with torch's on the CPU.

Only the encoder leaves float32 and torch, because it is nearly all of the work; its weights are taken from memory.
Nothing is written and nothing is sent.
"""

import copy
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from assets.lean import hide
from assets.settings import Precision
from assets.training.tasks.classification.bert import Bert, Hidden
from assets.training.tasks.classification.model import TextClassifier

if TYPE_CHECKING:
    import openvino

__all__ = ["compile_classifier", "compile_encoder", "gpu", "run_batches"]

Batch = TypeVar("Batch")

_log = logging.getLogger("evergreen")

_HINTS = {"float32": "f32", "bfloat16": "bf16"}
_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1}
"""The largest difference from torch's hidden states that is accepted, as a share of the largest of them."""
_PROBES = ((2, 7), (3, 8))
"""Rows and tokens of the batch with which the encoder is converted, and of another on which it is compared."""


def gpu() -> torch.device | None:
    """The GPU for many rows, if there is one: the only place that decides."""
    return torch.device("cuda") if torch.cuda.is_available() else None


def compile_classifier(classifier: TextClassifier, precision: Precision) -> TextClassifier:
    """A copy of the classifier on the GPU; without a GPU, the classifier with its encoder from `compile_encoder`.

    The latter is the classifier itself, or a copy that shares all other weights. If the GPU's answers differ too much,
    it is not used.
    """
    if (device := gpu()) is not None:
        try:
            return _move(classifier, device, precision)
        except (ValueError, torch.OutOfMemoryError) as error:
            _log.warning("the GPU cannot be used, the CPU scores: %s", error)
    compiled = compile_encoder(classifier.encoder, precision)
    if compiled is classifier.encoder:
        return classifier
    twin = copy.copy(classifier)
    twin._modules = {**classifier._modules, "encoder": compiled}
    return twin


def compile_encoder(encoder: nn.Module, precision: Precision) -> nn.Module:
    """The encoder in OpenVINO, or the encoder itself in float32.

    It is the encoder itself if OpenVINO is not installed, cannot convert it, or differs from torch. If the processor
    has no bfloat16, float32 is used. Takes a second or two.
    """
    try:
        return _compile(encoder, precision)
    except ImportError:
        _log.info("openvino is not installed: torch scores")
    except Exception as error:  # The encoder's own code runs in a tracer, and can fail there in any way.
        _log.warning("OpenVINO cannot run %s, torch scores: %s", type(encoder).__name__, error)
    return encoder


def run_batches(encoder: nn.Module, work: Callable[[Batch], None], batches: Iterable[Batch]) -> None:
    """Run the encoder's work for each batch: one after the other with torch, one on each core with OpenVINO."""
    if not isinstance(encoder, _CompiledEncoder):
        for batch in batches:
            work(batch)
        return
    cores = torch.get_num_threads()
    try:
        # The rest of torch's work for a batch stays on its core, too.
        with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in pool.map(work, batches):
                pass
    finally:
        torch.set_num_threads(cores)  # threads that start later would have the pool's number


class _CompiledEncoder(nn.Module):
    """Replaces the encoder that it was compiled from."""

    def __init__(self, config: Any, compiled: "openvino.CompiledModel") -> None:
        super().__init__()
        self.config = config
        self._compiled = compiled

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Hidden:
        request = self._compiled.create_infer_request()  # one cannot serve two threads
        hidden = request.infer({"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()})[0]
        return Hidden(last_hidden_state=torch.from_numpy(hidden))


class _Moved(nn.Module):
    """An encoder in another precision, with hidden states in float32."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.config, self.encoder = encoder.config, encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Hidden:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return Hidden(last_hidden_state=hidden.float())


class _HiddenStates(nn.Module):
    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden: Tensor = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return hidden


def _move(classifier: TextClassifier, device: torch.device, precision: Precision) -> TextClassifier:
    """A copy on a device, its encoder in a precision. Raises ValueError when its hidden states differ."""
    moved = copy.deepcopy(classifier).to(device)
    moved.encoder = _Moved(moved.encoder.to(getattr(torch, precision)))
    with torch.inference_mode():
        _require_agreement(
            classifier.encoder, moved.encoder, _probe(classifier.encoder, *_PROBES[1]), _TOLERANCE[precision]
        )
    return moved


def _compile(encoder: Any, precision: Precision) -> _CompiledEncoder:
    # OpenVINO reports its use over the network, unless this package is missing.
    hide(["openvino_telemetry"])
    import openvino

    core = openvino.Core()
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        precision = "float32"
    quiet = nullcontext() if isinstance(encoder, Bert) else _quiet_transformers()
    converted_with, compared_on = (_probe(encoder, rows, tokens) for rows, tokens in _PROBES)
    with warnings.catch_warnings(), quiet, torch.inference_mode():
        warnings.simplefilter("ignore")
        model = openvino.convert_model(_HiddenStates(encoder), example_input=converted_with)
        compiled = core.compile_model(model, "CPU", _properties(precision))
        twin = _CompiledEncoder(encoder.config, compiled)
        _require_agreement(encoder, twin, compared_on, _TOLERANCE[precision])
    return twin


def _properties(precision: Precision) -> dict[str, Any]:
    """One stream of batches per core, which scales better than all cores on one batch.

    Threads are not bound to cores, because several processes would bind theirs to the same ones.
    """
    cores = torch.get_num_threads()
    return {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "NUM_STREAMS": cores,
        "INFERENCE_NUM_THREADS": cores,
        "ENABLE_CPU_PINNING": False,
    }


def _probe(encoder: Any, rows: int, tokens: int) -> dict[str, Tensor]:
    """Rows of different lengths, so that the mask matters."""
    ids = torch.arange(rows * tokens).reshape(rows, tokens) % encoder.config.vocab_size
    mask = (torch.arange(tokens) < tokens - torch.arange(rows).unsqueeze(1)).long()
    return {"input_ids": ids, "attention_mask": mask}


def _require_agreement(encoder: Any, compiled: nn.Module, batch: dict[str, Tensor], tolerance: float) -> None:
    real, place = batch["attention_mask"].bool(), next((weight.device for weight in compiled.parameters()), "cpu")
    right = encoder(**batch).last_hidden_state[real]
    answers = compiled(**{name: tensor.to(place) for name, tensor in batch.items()}).last_hidden_state.cpu()[real]
    difference = float((right - answers).abs().max() / right.abs().max())
    if not difference <= tolerance:
        raise ValueError(f"its answers differ from torch's by {difference:.1g} of the largest")


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence transformers: a tracer reads every property of a model, including deprecated ones."""
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
