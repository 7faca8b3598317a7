"""What is drawn of a few and of hundreds of labels."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import precision_recall_curve

from assets.evaluation.evaluate import scores
from assets.evaluation.pictures import PICTURES, _most_confused, _worst, draw
from assets.evaluation.rare import Answered, cost_by_threshold, precision_by_recall
from assets.evaluation.report import Evaluation, Golden, SnapshotFacts
from assets.settings import EvaluationSettings, load_domain, load_settings

ROWS = 800


def drawn(size: int, folder: Path, settings: EvaluationSettings) -> Evaluation:
    dice, policy = np.random.default_rng(size), load_settings("quick").gate
    names = {f"label_{number}": f"$Label$ {number} with a name" for number in range(size)}
    domain = load_domain().model_copy(update={"labels": names, "slices": {}})
    truth = dice.integers(size, size=ROWS)
    found = {who: dice.dirichlet(np.ones(size), ROWS) for who in ("challenger", "baseline")}
    rows = pd.DataFrame({"label": np.array(list(names))[truth], "text": "x", "known_at": pd.Timestamp("2024-05-01")})
    evaluation = Evaluation(
        id="e",
        basis="b",
        as_of="2024-06-01",
        training_id="challenger",
        labels=tuple(names),
        snapshot=SnapshotFacts(id="s", train_rows=1, test_rows=ROWS, period={}),
        golden=Golden(rows=8, max_difference=0.0),
        milliseconds=1.0,
        reference=None,
        settings={},
        **scores(rows, domain, found, None, settings, policy),
    )
    draw(evaluation, domain, Answered(truth, found, policy.costs), folder)
    return evaluation


@pytest.mark.parametrize("size", [2, 200])
def test_pictures_stay_small_and_readable(size: int, tmp_path: Path, settings: EvaluationSettings) -> None:
    from matplotlib.image import imread

    found = drawn(size, tmp_path, settings)
    for name in PICTURES.values():
        assert 5_000 < (tmp_path / name).stat().st_size < 150_000
        height, width, _ = imread(tmp_path / name).shape
        assert max(height, width) < 1500
    shown = _worst(found.slices)
    assert len([part for part in shown if part.by == "label"]) == min(size, 30)


def test_hundreds_of_labels_are_the_most_confused_and_all_others() -> None:
    dice = np.random.default_rng(0)
    counts = np.diag(dice.integers(1, 9, 200)) + (dice.random((200, 200)) < 0.01)
    counts[7, 150] += 50
    found, shown = _most_confused(counts)
    assert found.shape == (31, 31)
    assert found.sum() == counts.sum()
    assert {7, 150} <= set(shown)
    assert found[shown.index(7), shown.index(150)] == counts[7, 150]
    few, all_of_them = _most_confused(counts[:30, :30])
    assert (few == counts[:30, :30]).all()
    assert all_of_them == list(range(30))


def test_precision_by_recall_is_that_of_scikit_learn() -> None:
    dice = np.random.default_rng(0)
    positive, score = dice.random(500) < 0.1, np.round(dice.random(500), 2)
    recall, precision = precision_by_recall(positive, score)
    theirs = precision_recall_curve(positive, score)
    assert precision == pytest.approx(theirs[0][:-1][::-1])
    assert recall == pytest.approx(theirs[1][:-1][::-1])


def test_a_cost_curve_ends_where_all_or_none_is_taken() -> None:
    positive, score = np.array([True, False, False, False]), np.array([0.6, 0.3, 0.7, 0.1])
    costs = cost_by_threshold(positive, score, missed=20.0, false=1.0)
    assert (costs[0], costs[50], costs[100]) == (3 / 4, 1 / 4, 20 / 4)
