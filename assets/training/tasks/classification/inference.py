"""The classifier's encoder where it is fastest and gives the answers of torch on the CPU: on a GPU, or by OpenVINO.

Only the encoder leaves float32 and torch, from the weights in memory: it is nearly all of the work. Nothing is written
and nothing is sent.
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
"""Rows and tokens of the batch that the encoder is converted with, and of another that it is compared on."""


def gpu() -> torch.device | None:
    """Where many rows are answered, when there is one: the only place that decides."""
    return torch.device("cuda") if torch.cuda.is_available() else None


def compile_classifier(classifier: TextClassifier, precision: Precision) -> TextClassifier:
    """The classifier on the GPU, a copy; without one, around its encoder as `compile_encoder` leaves it.

    That is itself, or a twin that shares all other weights. Where the GPU's answers differ too much, it is not used.
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
    """The encoder run by OpenVINO; or the encoder itself, in float32.

    It is the encoder itself where OpenVINO is not installed, cannot convert it, or differs from torch. Where the
    processor has no bfloat16, float32 is used. Takes a second or two.
    """
    try:
        return _compile(encoder, precision)
    except ImportError:
        _log.info("openvino is not installed: torch scores")
    except Exception as error:  # The encoder's own code runs under a tracer, and can fail there in any way.
        _log.warning("OpenVINO cannot run %s, torch scores: %s", type(encoder).__name__, error)
    return encoder


def run_batches(encoder: nn.Module, work: Callable[[Batch], None], batches: Iterable[Batch]) -> None:
    """Do what the encoder has to do for each batch: one after the other by torch, one on each core by OpenVINO."""
    if not isinstance(encoder, _CompiledEncoder):
        for batch in batches:
            work(batch)
        return
    cores = torch.get_num_threads()
    try:
        # What torch still does for a batch stays on its core, too.
        with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in pool.map(work, batches):
                pass
    finally:
        torch.set_num_threads(cores)  # threads that begin later would have the pool's number


class _CompiledEncoder(nn.Module):
    """To the classifier it is the encoder that it was compiled from."""

    def __init__(self, config: Any, compiled: "openvino.CompiledModel") -> None:
        super().__init__()
        self.config = config
        self._compiled = compiled

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Hidden:
        request = self._compiled.create_infer_request()  # one cannot serve two threads
        hidden = request.infer({"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()})[0]
        return Hidden(last_hidden_state=torch.from_numpy(hidden))


class _Moved(nn.Module):
    """An encoder of another precision, whose hidden states are float32."""

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
    """A copy on a device, its encoder in a precision. Raises ValueError when its hidden states are others."""
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
        found = _CompiledEncoder(encoder.config, compiled)
        _require_agreement(encoder, found, compared_on, _TOLERANCE[precision])
    return found


def _properties(precision: Precision) -> dict[str, Any]:
    """A stream of batches on each core: it scales better than all cores on one batch.

    Threads are not bound to cores, as several processes would bind theirs to the same ones.
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
    found = compiled(**{name: tensor.to(place) for name, tensor in batch.items()}).last_hidden_state.cpu()[real]
    difference = float((right - found).abs().max() / right.abs().max())
    if not difference <= tolerance:
        raise ValueError(f"its answers differ from torch's by {difference:.1g} of the largest")


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """A tracer looks at every property of a model of transformers, deprecated ones included."""
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
