"""The smallest change that is detected, by the accuracy that it costs in points, at 1,000, 10,000 and 100,000 rows.

Records come directly from the simulator, without the lake and its features: texts, categories, predictions and labels
are monitored. In a calm window, an increasing share of the records is replaced by records of a changed world, until
eight windows of ten raise an alarm. The champion is the linear branch over hashed words, fitted to one year; windows
are drawn without replacement from the month after it. Drift reads `sample_rows` rows of a window of 100,000, so only
that many are drawn, and of the others only the labels.

python bench/doses.py [--windows N] [--calm N] [--sizes ROWS...] [--peers N] [--nannyml PYTHON]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from drift import STOCK_BOUND, STOCK_GROUPS, answered, fit
from scipy.sparse import csr_matrix, vstack

from assets.features.kept_out import KeptOut
from assets.monitoring.answers import measure_answers
from assets.monitoring.comparison import Side, judge, measure_columns
from assets.monitoring.sides import TrainingSide, described, reference_of
from assets.monitoring.wording import hash_words, measure_wording
from assets.settings import load_domain, load_settings
from complaints.simulation.settings import load_simulator_settings
from complaints.simulation.taxonomy import NEWEST_FROM, categories
from complaints.simulation.world import COLUMNS, World

DOMAIN = load_domain()
LABELS = tuple(DOMAIN.labels)

SETTINGS = load_settings("full").drift
WORLD = load_simulator_settings().model_copy(update={"text_share": 1.0})
CHANGE, MONTH = date(2024, 12, 1), 31
TRAINED, TESTED, POOL = 60, 1_500, 1.2
"""Records a day of the year before the change, and of these evaluated ones; records of the month after it, as a
multiple of the largest window."""
SIZES = (1_000, 10_000, 100_000)
SHARES = (0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
CHANGES = ("new-vocabulary", "one-label", "one-company", "mix-shift", "swapped-labels")
POWER = 0.8
PEER_SHARES, PEER_ROWS = (0.05, 0.1, 0.3, 1.0), 10_000
"""What the peers are shown, and the most rows of a window and of the training: they take seconds for one."""
NANNYML = Path(__file__).parent / "peers" / "nannyml_drift.py"


@dataclass(frozen=True)
class Pool:
    """A month's records, with what is measured of them."""

    rows: pd.DataFrame
    groups: dict[str, pd.DataFrame]
    words: csr_matrix


@dataclass(frozen=True)
class Champion:
    reference: TrainingSide
    words: csr_matrix
    evaluated: pd.DataFrame


def simulate(scenario: str, start: date, days: int, a_day: int, change: date | None) -> pd.DataFrame:
    world, found = World(WORLD, WORLD.scenario(scenario), 7, change), []
    for day in (start + timedelta(days=number) for number in range(days)):
        labels = {category: label for label in LABELS for category in categories(label, day, NEWEST_FROM)}
        for index in range(a_day):
            record = world.record(day, index, world.stream(day, index))
            found.append({**dict(zip(COLUMNS, record.fields, strict=True)), "label": labels[record.fields[1:5]]})
    rows = pd.DataFrame(found)
    known_at = pd.to_datetime(rows["Date received"])
    sent = pd.to_datetime(rows["Date sent to company"].replace("", None)).fillna(known_at + pd.Timedelta(days=7))
    return pd.DataFrame(
        {
            "record_id": rows["Complaint ID"],
            "known_at": known_at,
            "label_known_at": sent,
            "label": rows["label"],
            "text": rows["Consumer complaint narrative"],
            "company": rows["Company"],
            "state": rows["State"],
            "zip_code": None,
            "tags": rows["Tags"].replace("", None),
            "channel": rows["Submitted via"],
        }
    )


def crown(rows: pd.DataFrame):
    """The champion that is trained on rows, and its answers."""
    train, test = rows.iloc[:-TESTED].reset_index(drop=True), rows.iloc[-TESTED:].reset_index(drop=True)
    answer = fit(train, [])
    evaluated = answered(test, answer(test))
    reference = reference_of(train, frozenset(train["record_id"]), DOMAIN, [], evaluated, KeptOut(), SETTINGS)
    return Champion(reference, hash_words(reference.texts), evaluated), answer


def pool(champion: Champion, answer, rows: pd.DataFrame) -> Pool:
    rows = answered(rows, answer(rows))
    groups = described(rows, DOMAIN.watched, champion.reference.words)
    names = {"predicted_label": rows["predicted"], "prediction_confidence": rows["confidence"]}
    groups |= {"predictions": pd.DataFrame(names), "labels": pd.DataFrame({"label": rows["label"]})}
    return Pool(rows, groups, hash_words(rows["text"]))


def window(calm: Pool, changed: Pool, share: float, size: int, seed: int) -> Pool:
    """Calm rows, a share of them replaced by those of the changed world, in order of time."""
    rng = np.random.default_rng(seed)
    places = np.sort(rng.choice(len(calm.rows), size, replace=False))
    moved = rng.random(size) < share
    order = np.argsort(np.concatenate([np.flatnonzero(~moved), np.flatnonzero(moved)]))
    sides = (calm, places[~moved]), (changed, places[moved])
    groups = {
        name: pd.concat([side.groups[name].iloc[at] for side, at in sides]).iloc[order].reset_index(drop=True)
        for name in calm.groups
    }
    rows = pd.concat([side.rows.iloc[at] for side, at in sides]).iloc[order].reset_index(drop=True)
    return Pool(rows, groups, vstack([side.words[at] for side, at in sides], format="csr")[order])


def alarms(champion: Champion, drawn: Pool) -> dict[str, float]:
    """Whether there is drift, by group and in all, and the accuracy of the window."""
    columns = measure_columns(champion.reference.side, Side(drawn.groups), SETTINGS)
    wording = measure_wording(champion.words, drawn.words, champion.reference.side.stretches, SETTINGS)
    places = np.arange(len(drawn.rows))
    arrived = drawn.rows.assign(night=places * MONTH // len(places), letter=places)
    columns = (*columns, *((wording,) if wording else ()), *measure_answers(champion.evaluated, arrived, SETTINGS))
    found = {column.group: 0.0 for column in columns}
    for group in found:
        found[group] = float(bool(judge(tuple(c for c in columns if c.group == group), SETTINGS).detected))
    return {"detected": max(found.values()), "accuracy": right(drawn.rows), **found}


def right(rows: pd.DataFrame) -> float:
    """The accuracy of the champion's answers."""
    return float((rows["label"] == rows["predicted"]).mean())


def measured(
    champion: Champion, calm: Pool, changed: Pool, share: float, size: int, windows: int
) -> "pd.Series[float]":
    draw = partial(window, calm, changed, share, min(size, SETTINGS.sample_rows))
    return pd.DataFrame([alarms(champion, draw(seed)) for seed in range(windows)]).mean()


def found_at(champion: Champion, calm: Pool, changed: Pool, size: int, windows: int) -> str:
    """The smallest share that is found, the points it costs, and the groups that find it."""
    for share in SHARES:
        found = measured(champion, calm, changed, share, size, windows)
        lost = f"{share:>6.0%}{100 * (right(calm.rows) - found['accuracy']):>8.1f} points"
        if found["detected"] >= POWER:
            groups = [
                str(name) for name, alarmed in found.drop(["detected", "accuracy"]).items() if alarmed >= POWER / 2
            ]
            return f"{lost}  {', '.join(groups)}"
    return f"{lost} not found"


@dataclass(frozen=True)
class Peers:
    """Evidently's preset and NannyML's univariate drift, as they come, against rows of the training."""

    train: pd.DataFrame
    windows: int
    nannyml: Path

    def show(self, calm: Pool, changed: Pool, size: int) -> None:
        for name, alarms in (("Evidently", self._evidently), ("NannyML", self._nannyml)):
            print(f"  {name:<14}{size:>8,}{self._found(alarms, calm, changed, size)}", flush=True)

    def _found(self, alarms: Callable[..., list[bool]], calm: Pool, changed: Pool, size: int) -> str:
        """The smallest share at which all windows are in alarm, and the points it costs, or that calm ones are."""
        for share in (0.0, *PEER_SHARES):
            drawn = [window(calm, changed, share, size, seed) for seed in range(self.windows)]
            found = alarms([pd.concat([one.groups[group] for group in STOCK_GROUPS], axis=1) for one in drawn])
            if share == 0 and any(found):
                return f"{sum(found):>6} of {self.windows} calm windows in alarm"
            if share and all(found):
                lost = right(calm.rows) - np.mean([right(one.rows) for one in drawn])
                return f"{share:>6.0%}{100 * lost:>8.1f} points"
        return f"{'none':>6}"

    def _evidently(self, frames: list[pd.DataFrame]) -> list[bool]:
        return [_drifted_share(self.train.iloc[: len(frame)], frame) >= STOCK_BOUND for frame in frames]

    def _nannyml(self, frames: list[pd.DataFrame]) -> list[bool]:
        with tempfile.TemporaryDirectory() as folder:
            for name, rows in (("train", self.train), ("windows", pd.concat(frames))):
                rows.reset_index(drop=True).to_parquet(Path(folder) / f"{name}.parquet")
            command = [self.nannyml, NANNYML, folder, str(len(frames[0]))]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        return [columns > 0 for columns in json.loads(done.stdout.splitlines()[-1])]


def _drifted_share(train: pd.DataFrame, current: pd.DataFrame) -> float:
    """Of columns, by Evidently's preset."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently import Dataset, Report
        from evidently.presets import DataDriftPreset

        sides = [Dataset.from_pandas(frame) for frame in (current, train)]
        return float(Report([DataDriftPreset()]).run(*sides).dict()["metrics"][0]["value"]["share"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=10, help="of each size and share")
    parser.add_argument("--calm", type=int, default=100, help="calm windows of each size")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="rows of a window")
    parser.add_argument("--peers", type=int, default=2, help="windows that Evidently and NannyML are shown")
    parser.add_argument("--nannyml", type=Path, default=Path(sys.prefix) / "nannyml" / "bin" / "python")
    arguments, started = parser.parse_args(), time.process_time()
    year = partial(simulate, start=CHANGE - timedelta(days=366), days=366, a_day=TRAINED)
    sizes, largest = arguments.sizes, min(max(arguments.sizes), SETTINGS.sample_rows)
    month = partial(simulate, start=CHANGE, days=MONTH, a_day=round(POOL * largest / MONTH))
    before = year("calm", change=None)
    champion, answer = crown(before)
    calm = pool(champion, answer, month("calm", change=None))
    train = pool(champion, answer, before.iloc[:: len(before) // PEER_ROWS]).groups
    columns = pd.concat([train[name] for name in STOCK_GROUPS], axis=1)
    peers = Peers(columns, arguments.peers, arguments.nannyml)
    taken = f"{time.process_time() - started:.0f} CPU seconds"
    print(f"accuracy {right(champion.evaluated):.3f} evaluated; {taken}", flush=True)
    for change in CHANGES:
        changed = pool(champion, answer, month(change, change=CHANGE))
        for size in sizes:
            print(f"{change:<16}{size:>8,}{found_at(champion, calm, changed, size, arguments.windows)}", flush=True)
            if arguments.peers and size <= PEER_ROWS:
                peers.show(calm, changed, size)
    for size in sizes:
        found = measured(champion, calm, calm, 0.0, size, arguments.calm)
        print(f"calm, {size:,} rows, {arguments.calm} windows: {found.round(3).to_dict()}", flush=True)
    slow(champion, answer, calm, sizes[:2], arguments.windows)
    season(sizes[:2], arguments.windows)
    print(f"in all {time.process_time() - started:.0f} CPU seconds")


def slow(champion: Champion, answer, calm: Pool, sizes: list[int], windows: int) -> None:
    """Month by month of a change that comes over 180 days."""
    for month in range(1, 5):
        start = CHANGE + timedelta(days=30 * (month - 1))
        drawn = pool(champion, answer, simulate("slow", start, 30, max(sizes) // 30 + 1, CHANGE))
        for size in sizes:
            found = measured(champion, drawn, drawn, 0.0, size, windows)
            lost = 100 * (right(calm.rows) - found["accuracy"])
            print(
                f"slow, month {month}, {size:,} rows: {found['detected']:.2f} in alarm, {lost:.1f} points", flush=True
            )


def season(sizes: list[int], windows: int) -> None:
    """A December against a training that has seen one, and against one that has not."""
    start = CHANGE - timedelta(days=366)
    december = simulate("season", CHANGE, MONTH, max(sizes) // MONTH + 1, start)
    for seen in (True, False):
        champion, answer = crown(simulate("season" if seen else "calm", start, 366, TRAINED, start))
        drawn = pool(champion, answer, december)
        for size in sizes:
            found = measured(champion, drawn, drawn, 0.0, size, windows)
            print(
                f"a December, {'seen' if seen else 'unseen'} before, {size:,} rows: {found.round(2).to_dict()}",
                flush=True,
            )


if __name__ == "__main__":
    main()
