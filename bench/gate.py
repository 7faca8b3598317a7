"""The gate's error rates on simulated pairs of models, next to a gate that promotes the model with the higher accuracy.

Both models of a pair predict the same 1,500 rows. Their errors share the difficulty of each row and have independent
noise; labels and slices are distributed as in the bureau's records of 2025. Goals, with the policy in configs: a
model that is two points worse is promoted in at most 1 case of 100, one that is three points better in at least 80.

In a year, each night has a new challenger, judged on the newest 1,500 rows at 50 rows a day, and the winner is the
next night's champion. With the correction, the challengers of one champion share the significance level; without it,
each uses all of it.
"""

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["OMP_NUM_THREADS"] = "1"  # a process for each core

import numpy as np
import pandas as pd
from scipy.stats import norm

from assets.evaluation.evaluate import Champion, scores
from assets.evaluation.gate import decide
from assets.evaluation.report import Evaluation, Golden, SnapshotFacts
from assets.settings import load_domain, load_settings

DOMAIN = load_domain()
LABELS = tuple(DOMAIN.labels)

ROWS, ACCURACY = 1500, 0.8
MIX = (0.07, 0.08, 0.05, 0.38, 0.2, 0.05, 0.08, 0.02, 0.07)
"""Of LABELS."""
LUCK = 0.5
"""The share of the variance of an answer that is a model's own: on a seventh of the rows only one is right then."""
EFFECTS = (-0.02, 0.0, 0.01, 0.02, 0.03, 0.05)
HARMED = {"debt_collection": 0.15, "consumer_loan": 0.3, "mortgage": 0.05}
"""Points that the challenger is worse by on one label: of a fifth, a twentieth and a twelfth of the rows."""
NIGHTS, A_DAY = 365, 50
PERIOD = {"train": ("2024-01-01", "2024-06-30"), "test": ("2024-07-01", "2024-07-31")}
SETTINGS = load_settings("full")


def records(dice: np.random.Generator, rows: int) -> pd.DataFrame:
    states = [f"S{number}" for number in range(50)]
    return pd.DataFrame(
        {
            "label": dice.choice(LABELS, rows, p=MIX),
            "channel": dice.choice(["Web", "Phone", "Referral"], rows, p=[0.9, 0.06, 0.04]),
            "company": dice.choice(states, rows, p=np.arange(50, 0, -1) / 1275),
            "state": dice.choice(states, rows, p=np.arange(50, 0, -1) / 1275),
            "tags": dice.choice(["", "Older American", "Servicemember"], rows, p=[0.85, 0.05, 0.1]),
            "known_at": pd.Timestamp("2024-07-01") + pd.to_timedelta(dice.integers(31, size=rows), "D"),
            "text": ["x" * length for length in dice.lognormal(6.7, 0.8, rows).astype(int)],
        }
    )


def answers(
    truth: np.ndarray, chance: np.ndarray, shared: np.ndarray, other: np.ndarray, dice: np.random.Generator
) -> np.ndarray:
    """Probabilities [rows, labels] of a model that is right with `chance` [rows], by luck that it shares in part."""
    rows = len(truth)
    luck = np.sqrt(1 - LUCK) * shared + np.sqrt(LUCK) * dice.standard_normal(rows)
    chosen = np.where(luck < norm.ppf(chance), truth, other)
    found = np.full((rows, len(LABELS)), 0.0)
    found[np.arange(rows), chosen] = np.maximum(chance, 0.5)
    rest = (1 - found.sum(axis=1, keepdims=True)) / (len(LABELS) - 1)
    return np.where(found > 0, found, rest)


def chances(difficulty: np.ndarray, accuracy: float) -> np.ndarray:
    """Of right answers, by difficulty [rows], `accuracy` on average over all rows there could be."""
    return norm.cdf(norm.ppf(accuracy) * np.sqrt(2) - difficulty)


def pair(effect: float, harmed: str | None, harm: float, dice: np.random.Generator) -> Evaluation:
    rows = records(dice, ROWS)
    truth = rows.label.map(LABELS.index).to_numpy()
    difficulty, shared = dice.standard_normal((2, ROWS))
    other = (truth + dice.integers(1, len(LABELS), ROWS)) % len(LABELS)
    ours = chances(difficulty, ACCURACY + effect)
    if harmed:
        ours = np.where(rows.label == harmed, chances(difficulty, ACCURACY - harm), ours)
    found = {
        "challenger": answers(truth, ours, shared, other, dice),
        "baseline": answers(truth, chances(difficulty, ACCURACY - 0.2), shared, other, dice),
        "champion": answers(truth, chances(difficulty, ACCURACY), shared, other, dice),
    }
    return evaluation(rows, found)


def evaluation(rows: pd.DataFrame, found: dict[str, np.ndarray], name: str = "e") -> Evaluation:
    return Evaluation(
        id=name,
        basis="b",
        as_of="2024-08-01",
        training_id="challenger",
        labels=LABELS,
        snapshot=SnapshotFacts(id="s", train_rows=10000, test_rows=ROWS, period=PERIOD),
        golden=Golden(rows=32, max_difference=0.0),
        milliseconds=1.0,
        reference=None,
        settings={},
        **scores(rows, DOMAIN, found, Champion("1", "champion", Path()), SETTINGS.evaluation, SETTINGS.gate),
    )


def year(seed: int, effect: float, corrected: bool) -> tuple[int, float]:
    """Promotions of a year of nights, and the accuracy that they have cost, by truth."""
    dice = np.random.default_rng(seed)
    size = ROWS + NIGHTS * A_DAY
    rows, (difficulty, shared) = records(dice, size), dice.standard_normal((2, size))
    truth = rows.label.map(LABELS.index).to_numpy()
    other = (truth + dice.integers(1, len(LABELS), size)) % len(LABELS)
    accuracy, promoted, nth = ACCURACY, 0, 1
    champion = answers(truth, chances(difficulty, accuracy), shared, other, dice)
    baseline = answers(truth, chances(difficulty, ACCURACY - 0.2), shared, other, dice)
    for night in range(NIGHTS):
        challenger = answers(truth, chances(difficulty, accuracy + effect), shared, other, dice)
        seen = slice(night * A_DAY, night * A_DAY + ROWS)
        found = {"challenger": challenger[seen], "baseline": baseline[seen], "champion": champion[seen]}
        verdict = decide(
            evaluation(rows[seen], found), SETTINGS.gate, load_domain(), "champion", nth=nth if corrected else 1
        )
        nth += 1
        if verdict.decision == "promote":
            champion, accuracy, promoted, nth = challenger, accuracy + effect, promoted + 1, 1
    return promoted, ACCURACY - accuracy


def differing(evaluation: Evaluation) -> float:
    """The share of rows that only one of the two gets right."""
    assert evaluation.champion is not None
    counts = [count for true, a, b, count in evaluation.champion.pairs if (a == true) != (b == true)]
    return sum(counts) / ROWS


def judge(seed: int, effect: float, harmed: str | None, harm: float) -> tuple[bool, bool, bool, float]:
    """Whether the gate promotes or asks a person, the naive one promotes, and the rows that only one gets right."""
    found = pair(effect, harmed, harm, np.random.default_rng(seed))
    assert found.champion is not None
    decision = decide(found, SETTINGS.gate, load_domain(), "champion").decision
    naive = found.challenger.accuracy > found.champion.metrics.accuracy
    return decision == "promote", decision == "awaiting-approval", naive, differing(found)


def show(title: str, effect: float, pairs: int, harmed: str | None = None, harm: float = 0.0) -> None:
    with ProcessPoolExecutor() as pool:
        one = partial(judge, effect=effect, harmed=harmed, harm=harm)
        found = list(pool.map(one, range(pairs), chunksize=25))
    ours, asked, naive, differ = np.mean(found, axis=0)
    print(f"{title:<44}{ours:>8.3f}{asked:>10.3f}{naive:>18.3f}{differ:>13.3f}", flush=True)


def show_years(effect: float, corrected: bool, years: int) -> None:
    with ProcessPoolExecutor() as pool:
        found = np.array(list(pool.map(partial(year, effect=effect, corrected=corrected), range(years))))
    title = f"{effect * 100:+.0f} points each night, {'with' if corrected else 'without'} correction"
    promoted, lost = found.mean(axis=0)
    print(f"{title:<44}{promoted:>8.2f}{(found[:, 0] > 0).mean():>10.2f}{lost * 100:>18.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--years", type=int, default=20)
    arguments = parser.parse_args()
    pairs = arguments.pairs
    print(f"of {pairs:,} pairs on {ROWS:,} rows{'':<16}promoted  a person  higher is better  rows differ")
    for effect in EFFECTS:
        show(f"better by {effect * 100:+.0f} points" if effect else "equally good", effect, pairs)
    for label, harm in HARMED.items():
        show(f"better by +3, but {harm * 100:.0f} worse on {label}", 0.03, pairs, label, harm)
    print(f"\nof {arguments.years} years{'':<27}promotions  any year with one  points lost by them")
    for effect in (0.0, -0.01):
        for corrected in (False, True):
            show_years(effect, corrected, arguments.years)


if __name__ == "__main__":
    main()
