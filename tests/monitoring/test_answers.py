"""A champion that keeps its promise, and some that do not: errors drawn by what its confidence says, and beyond it."""

from functools import partial

import numpy as np
import pandas as pd
import pytest

from assets.monitoring.answers import measure_answers
from assets.monitoring.comparison import Column
from assets.settings import load_domain, load_settings

LABELS = tuple(load_domain().labels)

SETTINGS = load_settings("quick").drift
NAMES = np.array(LABELS)


def draw(rng: np.random.Generator, rows: int, lost: float = 0.0, surer: float = 0.04) -> pd.DataFrame:
    """Answers that are right as often as their confidence says, less `surer`, which calibration sees, and `lost`."""
    answered, confidence = rng.integers(0, len(NAMES), rows), rng.beta(8, 1, rows)
    right = rng.random(rows) < confidence - surer - lost
    other = (answered + rng.integers(1, len(NAMES), rows)) % len(NAMES)
    truth = np.where(right, answered, other)
    return pd.DataFrame({"label": NAMES[truth], "predicted": NAMES[answered], "confidence": confidence})


def nights(rows: pd.DataFrame, a_night: int) -> pd.DataFrame:
    return rows.assign(night=np.arange(len(rows)) // a_night, letter=np.arange(len(rows)))


def evidence(evaluated: pd.DataFrame, arrived: pd.DataFrame) -> dict[str, Column]:
    return {column.name: column for column in measure_answers(evaluated, arrived, SETTINGS)}


def test_a_promise_that_is_kept_is_seldom_found_broken() -> None:
    """Eight champions of 500 evaluated rows, looked at three times in a year."""
    alarms = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        evaluated, year = draw(rng, 500), nights(draw(rng, 365 * 20), 20)
        looks = (evidence(evaluated, year[year["night"] < night]) for night in (20, 120, 365))
        alarms += any(column.drifted for look in looks for column in look.values())
    assert alarms <= 1


def test_a_loss_is_found_the_sooner_the_more_it_costs() -> None:
    rng = np.random.default_rng(1)
    evaluated, found = draw(rng, 1500), []
    for lost in (0.08, 0.16, 0.4):
        arrived = nights(draw(rng, 256 * 30, lost), 30)
        looks = {night: arrived[arrived["night"] < night] for night in (4, 8, 16, 32, 64, 128, 256)}
        found.append(next(night for night, rows in looks.items() if evidence(evaluated, rows)["answers"].drifted))
    assert found[0] > found[1] > found[2]


def test_a_good_year_does_not_make_it_slow() -> None:
    rng = np.random.default_rng(2)
    evaluated, good, bad = draw(rng, 1500), draw(rng, 330 * 20), draw(rng, 20 * 20, lost=0.2)
    assert not evidence(evaluated, nights(good, 20))["answers"].drifted
    assert evidence(evaluated, nights(pd.concat([good, bad], ignore_index=True), 20))["answers"].drifted


@pytest.mark.parametrize(("side", "name"), [("predicted", "answered_mortgage"), ("label", "true_mortgage")])
def test_the_label_that_is_answered_wrongly_is_named(side: str, name: str) -> None:
    rng = np.random.default_rng(3)
    evaluated, arrived = draw(rng, 1500), nights(draw(rng, 3000), 100)
    other = {"predicted": "label", "label": "predicted"}[side]
    moved = (arrived[side] == "mortgage") & (rng.random(len(arrived)) < 0.5)
    arrived[other] = arrived[other].mask(moved, "student_loan")
    found = evidence(evaluated, arrived)
    assert max((c for c in found.values() if c.name != "answers"), key=lambda column: column.times).name == name
    assert found[name].drifted
    assert found[name].note.endswith("promised at most")


def test_a_little_of_the_same_text_in_another_label_is_found_where_the_champion_is_sure() -> None:
    rng = np.random.default_rng(8)
    evaluated, arrived = (
        rows[(rows["label"] == rows["predicted"]) | (rows["confidence"] < 0.9)]
        for rows in (draw(rng, 1500), nights(draw(rng, 9000), 300))
    )
    moved = rng.random(len(arrived)) < 0.03
    another = dict(zip(NAMES, np.roll(NAMES, 1), strict=True))
    arrived["label"] = arrived["label"].mask(moved, arrived["predicted"].map(another))
    found = evidence(evaluated, arrived)
    assert (found["answers"].drifted, found["sure_answers"].drifted) == (False, True)


def test_a_window_that_is_harder_breaks_no_promise() -> None:
    """A third of the answers of the evaluation are unsure, and all that arrive: wrong as often as they said."""
    rng = np.random.default_rng(4)
    unsure = partial(lambda rows: rows[rows["confidence"] < 0.85].reset_index(drop=True))
    evaluated, arrived = draw(rng, 3000), nights(unsure(draw(rng, 6000)), 30)
    assert (arrived["label"] != arrived["predicted"]).mean() > (
        evaluated["label"] != evaluated["predicted"]
    ).mean() + 0.1
    assert not any(evidence(evaluated, arrived)[name].drifted for name in ("answers", "answered_cards"))


def test_copies_of_a_letter_count_once_a_night() -> None:
    rng = np.random.default_rng(5)
    evaluated = draw(rng, 1500)
    calm = nights(draw(rng, 300), 100)
    copies = calm.iloc[[0] * 60].assign(predicted="cards", label="mortgage", confidence=0.99, night=2)
    apart = copies.assign(letter=np.arange(1000, 1060))
    assert not evidence(evaluated, pd.concat([calm, copies]))["answers"].drifted
    assert evidence(evaluated, pd.concat([calm, apart]))["answers"].drifted


def test_what_cannot_be_measured() -> None:
    rng = np.random.default_rng(6)
    evaluated, arrived = draw(rng, 500), nights(draw(rng, 99), 10)
    assert measure_answers(evaluated, arrived, SETTINGS) == ()
    assert measure_answers(evaluated.head(0), nights(draw(rng, 200), 10), SETTINGS) == ()


def test_the_order_of_rows_changes_nothing() -> None:
    rng = np.random.default_rng(7)
    evaluated, arrived = draw(rng, 500), nights(draw(rng, 900, lost=0.05), 30)
    shuffled = arrived.sample(frac=1, random_state=0)
    ours, theirs = (evidence(evaluated, rows) for rows in (arrived, shuffled))
    assert {name: column.value for name, column in ours.items()} == pytest.approx(
        {name: column.value for name, column in theirs.items()}
    )
