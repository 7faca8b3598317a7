"""How requests become batches."""

import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest

from assets.ingestion.records import Record
from assets.serving.batches import Asked, Batches, Busy

RECORD = Record({}, 1, "")


class Model:
    """Notes each batch, and holds the first until it is let go."""

    def __init__(self) -> None:
        self.batches = list[list[str]]()
        self.entered, self.go = threading.Event(), threading.Event()

    def answer(self, batch: list[Asked]) -> None:
        self.batches.append([asked.request for asked in batch])
        self.entered.set()
        assert self.go.wait(30)
        for asked in batch:
            asked.done(None)


@pytest.fixture
def batches() -> Any:
    started = list[tuple[Batches, Model]]()

    def start(most: int = 4, wait: float = 0.0, queued: int = 100) -> tuple[Batches, Model]:
        model = Model()
        made = Batches(model.answer, lambda: None, most, wait, queued)
        made.start()
        started.append((made, model))
        return made, model

    yield start
    for made, model in started:
        model.go.set()
        made.close()


def asked(name: str, records: int = 1, done: Callable[[Any], None] = lambda _: None) -> Asked:
    return Asked([RECORD] * records, name, "key", done)


def test_what_comes_while_the_model_works_becomes_the_next_batches(batches: Any) -> None:
    made, model = batches()
    made.add(asked("a"))
    assert model.entered.wait(30)
    for name, records in (("b", 1), ("c", 3), ("d", 1), ("e", 9), ("f", 1)):
        made.add(asked(name, records))
    assert made.waiting == 15
    model.go.set()
    made.close()
    assert model.batches == [["a"], ["b", "c"], ["d"], ["e"], ["f"]]


def test_the_first_waits_for_others_but_no_longer_than_it_may(batches: Any) -> None:
    made, model = batches(wait=0.2)
    model.go.set()
    done, started = threading.Event(), monotonic()
    made.add(asked("a", done=lambda _: done.set()))
    assert done.wait(30)
    assert monotonic() - started >= 0.2
    started = monotonic()
    made, model = batches(wait=60)
    for name in "abcd":
        made.add(asked(name))
    assert model.entered.wait(30)
    assert monotonic() - started < 30, "a full batch waits for nobody"
    assert model.batches == [["a", "b", "c", "d"]]


def test_a_full_queue_refuses_and_an_empty_one_takes_any_request(batches: Any) -> None:
    made, model = batches(queued=2)
    made.add(asked("a"))
    assert model.entered.wait(30)
    made.add(asked("b", 5))
    with pytest.raises(Busy, match="5 records are waiting"):
        made.add(asked("c"))


def test_what_was_accepted_is_answered_at_the_end_and_nothing_more_is_taken(batches: Any) -> None:
    made, model = batches(wait=60)
    answered = list[str]()
    for name in "abc":
        made.add(asked(name, done=lambda _, name=name: answered.append(name)))  # type: ignore[misc]
    model.go.set()
    made.close()
    assert answered == ["a", "b", "c"]
    with pytest.raises(Busy, match="stopping"):
        made.add(asked("d"))
