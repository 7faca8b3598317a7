"""What a step waits for: nothing that another rank, a GPU or a thread can do meanwhile."""

import threading
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from deepspeed import DeepSpeedEngine

from assets.exceptions import TrainingError
from assets.settings import TrainingSettings
from assets.training.launchers.launch import override
from assets.training.program.batches import Sampler, ahead
from assets.training.program.engine import Agreement
from assets.training.program.fit import _made, make_step
from assets.training.tasks import TASKS
from assets.training.tasks.classification.data import TrainingData
from assets.training.tasks.classification.preprocessing import Encoded

ROWS = 64


def engine(device: str = "cpu", **changes: Any) -> DeepSpeedEngine:
    """As much of an engine of one rank as is asked for here."""
    own = {"device": torch.device(device), "world_size": 1, "global_rank": 0, "global_steps": 3} | changes
    methods = {"fp16_enabled": lambda: False, "get_global_grad_norm": lambda: 0.5}
    return cast(DeepSpeedEngine, SimpleNamespace(module=SimpleNamespace(padding=0), **methods | own))


@pytest.fixture
def data() -> TrainingData:
    random = np.random.default_rng(0)
    lengths = random.integers(3, 30, ROWS)
    rows = Encoded(
        tokens=random.integers(1, 99, lengths.sum()).astype(np.int32),
        lengths=lengths,
        buckets=np.zeros(0, np.int32),
        weights=np.zeros(0, np.float32),
        words=np.zeros(ROWS, np.int64),
        features=random.random((ROWS, 2), np.float32),
        priors=np.zeros((ROWS, 1, 9), np.float32),
    )
    nothing: Any = None
    return TrainingData(
        rows=rows,
        labels=random.integers(9, size=ROWS),
        trained=ROWS,
        class_weights=np.linspace(0.5, 2.0, 9, dtype=np.float32),
        word_weights=np.zeros((0, 9), np.float32),
        preprocessing=nothing,
        tokenizer=nothing,
        window=32,
    )


def test_ranks_are_answered_one_step_later(alone: None) -> None:
    agreement = Agreement(engine(), votes=2)
    assert agreement.answer() == ([], [0.0, 0.0])
    agreement.ask(torch.tensor(1.5), [1.0, 0.0])
    assert agreement.answer() == ([1.5], [1.0, 0.0])
    assert agreement.answer() == ([], [0.0, 0.0])


@pytest.mark.parametrize(("loss", "norm", "name"), [("nan", 1.0, "loss"), ("1.0", float("inf"), "norm of the grad")])
def test_what_is_no_number_ends_the_run_naming_its_step(alone: None, loss: str, norm: float, name: str) -> None:
    at_step_3 = engine(get_global_grad_norm=lambda: norm)
    agreement = Agreement(at_step_3, votes=0)
    agreement.ask(torch.tensor(float(loss)), [])
    at_step_3.global_steps = 4
    with pytest.raises(TrainingError, match=f"stopped at step 3: the {name}"):
        agreement.answer()


def test_votes_go_to_a_gpu_from_pinned_memory(alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor that is made on a GPU waits for all that it has to do before."""
    made: list[object] = []
    make = torch.tensor
    monkeypatch.setattr(torch, "tensor", lambda *values, **how: made.append(how.get("device")) or make(*values, **how))
    pinned = torch.zeros(3, dtype=torch.float64)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda _: SimpleNamespace(to=lambda *_, **how: moved(how)))

    def moved(how: dict[str, object]) -> torch.Tensor:
        assert how == {"non_blocking": True}
        return pinned

    agreement = Agreement(engine("cuda"), votes=1)
    agreement.ask(torch.tensor(1.5), [1.0])
    assert made[-1] is None
    assert pinned[0] == 1.5
    assert pinned[1] == 0.5


def test_an_overflow_in_fp16_is_skipped_and_ends_nothing(alone: None) -> None:
    agreement = Agreement(engine(fp16_enabled=lambda: True, get_global_grad_norm=lambda: float("inf")), votes=0)
    agreement.ask(torch.tensor(1.0), [])
    assert agreement.answer() == ([1.0], [])


def test_a_gpus_batches_are_made_ahead_and_pinned_and_the_same(
    monkeypatch: pytest.MonkeyPatch, settings: TrainingSettings, data: TrainingData
) -> None:
    pinned: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    chosen, makers = override(settings, {"batch_rows": 16, "batch_tokens": 100}), set()

    def steps(device: str) -> list[Any]:
        sampler, on = Sampler.of(data, chosen, world_size=1), engine(device)

        def make(number: int) -> Any:
            makers.add((device, threading.get_ident() == threading.main_thread().ident))
            return make_step(on, TASKS["classification"], data, sampler, number)

        return list(_made(on, make, range(sampler.steps)))

    ours, theirs = steps("cpu"), steps("cuda")
    assert makers == {("cpu", True), ("cuda", False)}
    assert len(pinned) == sum((len(batch) + 1) for step in theirs for batch, _ in step.batches)
    for one, other in zip(ours, theirs, strict=True):
        assert one.rank_weight == other.rank_weight
        for (inputs, labels), (again, same) in zip(one.batches, other.batches, strict=True):
            assert torch.equal(labels, same)
            assert all(torch.equal(inputs[name], again[name]) for name in inputs)


def test_what_is_made_ahead_is_made_before_it_is_asked_for() -> None:
    made = [threading.Event() for _ in range(5)]

    def make(number: int) -> int:
        made[number].set()
        return number * number

    found = ahead(make, range(5))
    assert next(found) == 0
    assert made[1].wait(60)
    assert made[2].wait(60)
    assert not made[3].is_set()
    assert list(found) == [1, 4, 9, 16]


def test_what_cannot_be_made_is_raised_where_it_is_needed() -> None:
    found = ahead(lambda number: 1 // (2 - number), range(5))
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(found)
