"""False alarms per year of the check that a champion is as good as promised, and its delay after a real loss.

Predictions are right with the probability that their confidence states, less three points that the evaluation has
shown. The check runs every night. Goal: an alarm in at most 5% of the years without a loss.

python bench/promise.py [--years N] [--changes N]
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import pandas as pd

from assets.monitoring.answers import promises
from assets.settings import load_domain, load_settings

LABELS = tuple(load_domain().labels)

SETTINGS = load_settings("full").drift
NAMES = np.array(LABELS)
NIGHTS, SURER = 365, 0.03
WORLDS = ((500, 20), (1_500, 20), (1_500, 100), (10_000, 100))
"""Evaluated rows, and labels that arrive in a night."""
LOST = (0.03, 0.05, 0.10, 0.20)
PAIRS = {"cards": "mortgage", "consumer_loan": "student_loan"}
TRADE = PAIRS | {other: label for label, other in PAIRS.items()}


def draw(rng: np.random.Generator, rows: int, lost: float = 0.0) -> pd.DataFrame:
    answered, confidence = rng.integers(0, len(NAMES), rows), rng.beta(9, 0.9, rows)
    right = rng.random(rows) < confidence - SURER - lost
    truth = np.where(right, answered, (answered + rng.integers(1, len(NAMES), rows)) % len(NAMES))
    return pd.DataFrame({"label": NAMES[truth], "predicted": NAMES[answered], "confidence": confidence})


def alarm(evaluated: pd.DataFrame, arrived: pd.DataFrame, a_night: int, after: int = 0) -> tuple[float, bool]:
    """The first night of an alarm, counted from a night, or infinity; and whether that was in all answers."""
    arrived = arrived.assign(night=np.arange(len(arrived)) // a_night, letter=np.arange(len(arrived)))
    first: dict[str, float] = {}
    for promise in promises(evaluated, arrived, SETTINGS):
        beyond = np.flatnonzero(promise.evidence() >= promise.threshold)
        # A label has nights without an answer: they are not in its evidence.
        nights = np.unique(promise.arrived["night"])[beyond]
        first[promise.name] = float(nights[nights >= after].min() - after + 1) if (nights >= after).any() else np.inf
    soonest = min(first.values())
    return soonest, first["answers"] == soonest < np.inf


def false_alarms(years: int) -> None:
    print(f"{'evaluated rows':>14}{'labels a night':>16}{'years':>7}{'in alarm':>10}{'by all answers':>16}")
    for rows, a_night in WORLDS:
        found = []
        for seed in range(years):
            rng = np.random.default_rng(seed)
            found.append(alarm(draw(rng, rows), draw(rng, NIGHTS * a_night), a_night))
        alarmed = [overall for night, overall in found if night < np.inf]
        print(
            f"{rows:>14,}{a_night:>16}{years:>7}{len(alarmed) / years:>10.3f}{sum(alarmed) / years:>16.3f}", flush=True
        )


def delays(changes: int) -> None:
    """The change comes after half a year; what was accused before does not count."""
    print(f"\n{'evaluated rows':>14}{'labels a night':>16}{'change':>22}{'found in':>10}{'median nights':>15}")
    half = NIGHTS // 2
    for rows, a_night in WORLDS[1:3]:
        for change in (*LOST, "swapped labels"):
            found = []
            for seed in range(changes):
                rng = np.random.default_rng(seed)
                evaluated, before = draw(rng, rows), draw(rng, half * a_night)
                after = draw(rng, half * a_night, change if isinstance(change, float) else 0.0)
                if change == "swapped labels":
                    after["label"] = after["label"].replace(TRADE)
                found.append(alarm(evaluated, pd.concat([before, after], ignore_index=True), a_night, half)[0])
            name = change if isinstance(change, str) else f"{100 * change:.0f} points lost"
            share, median = np.mean(np.isfinite(found)), np.median(found)
            shown = f"{median:.0f}" if np.isfinite(median) else "never"
            print(f"{rows:>14,}{a_night:>16}{name:>22}{share:>10.2f}{shown:>15}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--years", type=int, default=300)
    parser.add_argument("--changes", type=int, default=20)
    arguments, started = parser.parse_args(), time.process_time()
    false_alarms(arguments.years)
    delays(arguments.changes)
    print(f"\nin all {time.process_time() - started:.0f} CPU seconds")


if __name__ == "__main__":
    main()
