"""How often the gate errs: verdicts on simulated pairs of models, beside a gate that promotes what scores higher.

Both models of a pair answer the same 1,500 rows. A row has a difficulty that they share, and each has its own luck;
the mix of queues is that of the bureau's complaints of 2025, and slices cut across it as they do there. Goals, at the
policy in configs: worse by two points promoted at most 1 time in 100, better by three at least 80 in 100.
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
from assets.settings import QUEUES, load_settings

ROWS, ACCURACY = 1500, 0.8
MIX = (0.07, 0.08, 0.05, 0.38, 0.2, 0.05, 0.08, 0.02, 0.07)
"""Of QUEUES."""
LUCK = 0.5
"""The share of the variance of an answer that is a model's own: on a seventh of the rows only one is right then."""
EFFECTS = (-0.02, 0.0, 0.01, 0.02, 0.03, 0.05)
HARM = 0.15
PERIOD = {"train": ("2024-01-01", "2024-06-30"), "test": ("2024-07-01", "2024-07-31")}
SETTINGS = load_settings("full")


def test_rows(dice: np.random.Generator) -> pd.DataFrame:
    states = [f"S{number}" for number in range(50)]
    return pd.DataFrame(
        {
            "queue": dice.choice(QUEUES, ROWS, p=MIX),
            "channel": dice.choice(["Web", "Phone", "Referral"], ROWS, p=[0.9, 0.06, 0.04]),
            "state": dice.choice(states, ROWS, p=np.arange(50, 0, -1) / 1275),
            "tags": dice.choice(["", "Older American", "Servicemember"], ROWS, p=[0.85, 0.05, 0.1]),
            "known_at": pd.Timestamp("2024-07-01") + pd.to_timedelta(dice.integers(31, size=ROWS), "D"),
            "narrative": ["x" * length for length in dice.lognormal(6.7, 0.8, ROWS).astype(int)],
        }
    )


def answers(
    truth: np.ndarray, chance: np.ndarray, shared: np.ndarray, other: np.ndarray, dice: np.random.Generator
) -> np.ndarray:
    """Probabilities [rows, queues] of a model that is right with `chance` [rows], by luck that it shares in part."""
    luck = np.sqrt(1 - LUCK) * shared + np.sqrt(LUCK) * dice.standard_normal(ROWS)
    chosen = np.where(luck < norm.ppf(chance), truth, other)
    found = np.full((ROWS, len(QUEUES)), 0.0)
    found[np.arange(ROWS), chosen] = np.maximum(chance, 0.5)
    rest = (1 - found.sum(axis=1, keepdims=True)) / (len(QUEUES) - 1)
    return np.where(found > 0, found, rest)


def chances(difficulty: np.ndarray, accuracy: float) -> np.ndarray:
    """Of right answers, by difficulty [rows], `accuracy` on average over all rows there could be."""
    return norm.cdf(norm.ppf(accuracy) * np.sqrt(2) - difficulty)


def pair(effect: float, harmed: str | None, dice: np.random.Generator) -> Evaluation:
    rows = test_rows(dice)
    truth = rows.queue.map(QUEUES.index).to_numpy()
    difficulty, shared = dice.standard_normal((2, ROWS))
    other = (truth + dice.integers(1, len(QUEUES), ROWS)) % len(QUEUES)
    ours = chances(difficulty, ACCURACY + effect)
    if harmed:
        ours = np.where(rows.queue == harmed, chances(difficulty, ACCURACY - HARM), ours)
    found = {
        "challenger": answers(truth, ours, shared, other, dice),
        "baseline": answers(truth, chances(difficulty, ACCURACY - 0.2), shared, other, dice),
        "champion": answers(truth, chances(difficulty, ACCURACY), shared, other, dice),
    }
    champion = Champion("1", "champion", Path())
    return Evaluation(
        id="e",
        basis="b",
        as_of="2024-08-01",
        training_id="challenger",
        snapshot=SnapshotFacts(id="s", train_rows=10000, test_rows=ROWS, period=PERIOD),
        golden=Golden(rows=32, max_difference=0.0),
        milliseconds=1.0,
        reference=None,
        settings={},
        **scores(rows, found, champion, SETTINGS.evaluation),
    )


def differing(evaluation: Evaluation) -> float:
    """The share of rows that only one of the two gets right."""
    assert evaluation.champion is not None
    counts = [count for true, a, b, count in evaluation.champion.pairs if (a == true) != (b == true)]
    return sum(counts) / ROWS


def judge(seed: int, effect: float, harmed: str | None) -> tuple[bool, bool, float]:
    """Whether the gate promotes, whether the naive one does, and the share of rows that only one gets right."""
    found = pair(effect, harmed, np.random.default_rng(seed))
    assert found.champion is not None
    ours = decide(found, SETTINGS.gate, "champion").decision == "promote"
    return ours, found.challenger.accuracy > found.champion.metrics.accuracy, differing(found)


def show(title: str, effect: float, harmed: str | None, pairs: int) -> None:
    with ProcessPoolExecutor() as pool:
        found = list(pool.map(partial(judge, effect=effect, harmed=harmed), range(pairs), chunksize=25))
    ours, naive, differ = np.mean(found, axis=0)
    print(f"{title:<44}{ours:>8.3f}{naive:>18.3f}{differ:>13.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1000)
    pairs = parser.parse_args().pairs
    print(f"promoted, of {pairs:,} pairs on {ROWS:,} rows{'':<11}the gate  higher is better  rows differ")
    for effect in EFFECTS:
        show(f"better by {effect * 100:+.0f} points" if effect else "equally good", effect, None, pairs)
    show(f"better by +3, but {HARM * 100:.0f} worse on debt collection", 0.03, "debt_collection", pairs)


if __name__ == "__main__":
    main()
