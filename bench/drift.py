"""False alarms and detection rate of drift, and the error of the estimated quality.

Each scenario is simulated for one year, with the change after 60% of it, and passes through the real ingestion,
warehouse and features. The reference is the time before the change; windows are drawn without replacement from one of
the four months after it (bench/doses.py has larger windows). The champion is the linear branch over hashed words,
fitted to the newest reference rows except the last ones, which evaluate it.

Goal: an alarm in at most 5% of calm windows, at any number of rows. Peers: Evidently's DataDriftPreset with its
defaults, on the first of the same windows against as many training rows (at most 10,000), and NannyML's estimate.

python bench/drift.py [--windows N] [--nannyml PYTHON]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ |= {"OMP_NUM_THREADS": "1", "DO_NOT_TRACK": "true", "FEAST_USAGE": "False"}

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import csr_matrix

from assets.features.kept_out import KeptOut
from assets.home import Home
from assets.monitoring.columns import sample_positions, spread
from assets.monitoring.comparison import Column, Side, judge, measure_columns, shares
from assets.monitoring.estimation import Answers, estimate_quality
from assets.monitoring.sides import TrainingSide, reference_of, window_of
from assets.monitoring.wording import hash_words, measure_wording
from assets.settings import load_domain, load_settings

DOMAIN = load_domain()
LABELS = tuple(DOMAIN.labels)

SCENARIOS = ("calm", "new-vocabulary", "mix-shift", "taxonomy-change", "schema-change")
START, END, RATE, CHANGE = date(2024, 1, 1), date(2024, 12, 31), 200, 220
"""A day's records, and the day of the year of the change: 60% of the range."""
MONTHS = 4
SIZES = (1_000, 3_000)
FITTED, TESTED, ESTIMATED, SHOWN = 12_000, 1_500, 2_000, 10_000
GROUPS = ("features", "text", "wording", "predictions", "labels")
STOCK, STOCK_SHIFTED = {1_000: 8, 3_000: 4}, {3_000: 1}
"""Windows that Evidently's preset is shown, by rows: it takes seconds for one."""
STOCK_GROUPS, STOCK_BOUND = ("features", "text", "predictions"), 0.5
"""What it is shown, and the share of drifted columns from which it speaks of dataset drift."""
SETTINGS = load_settings("full")
PEER = Path(__file__).parent / "peers" / "nannyml_cbpe.py"


@dataclass(frozen=True)
class Champion:
    """The reference side, the evaluation, and what it says about any row."""

    reference: TrainingSide
    words: csr_matrix
    evaluated: pd.DataFrame


@dataclass(frozen=True)
class Pool:
    """A month of a world: its rows as a window's sides are made of them."""

    groups: dict[str, pd.DataFrame]
    words: csr_matrix
    rows: pd.DataFrame


def simulate(folder: Path, scenario: str) -> pd.DataFrame:
    """Every record of a scenario's year with a text and a label, with its features, in order of time."""
    from assets.ingestion.landing import ingest
    from assets.validation.audit import audit, publish
    from assets.warehouse.project import build_marts
    from complaints.simulation import simulate

    home, as_of = Home(folder / scenario), (END + timedelta(days=40)).isoformat()
    simulate(folder / f"{scenario}-source", START, END, RATE, 7, scenario)
    ingest([str(folder / f"{scenario}-source")], home.lake, SETTINGS.ingestion, home.domain, as_of)
    build_marts(home)
    publish(home, audit(home, as_of, SETTINGS.warehouse), SETTINGS.warehouse)
    return _with_features(home)


def _with_features(home: Home) -> pd.DataFrame:
    from assets.features.snapshot import with_features
    from assets.features.store import apply_definitions

    features = apply_definitions(home).features
    marts = home.lake.current("marts")
    records = pq.read_table(marts / "fct_records", columns=[*DOMAIN.columns, "known_until"])
    keep = [text is not None and bool(text.strip()) for text in records["text"].to_pylist()]
    keep = np.array(keep) & np.asarray(records["label"].is_valid()) & np.asarray(records["known_until"].is_null())
    rows = records.filter(pa.array(keep)).select(list(DOMAIN.columns))
    rows = rows.sort_by([("known_at", "ascending"), ("record_id", "ascending")])
    frame: pd.DataFrame = with_features(home, marts, rows, features).to_pandas()
    frame.attrs["features"] = list(features)
    return frame


def fit(train: pd.DataFrame, features: list[str]) -> Callable[[pd.DataFrame], np.ndarray]:
    """The linear branch of a challenger: a function from rows to probabilities [rows, labels]."""
    from tokenizers import Tokenizer, models

    from assets.training.tasks.classification.preprocessing import fit_preprocessing
    from assets.training.tasks.classification.words import fit_words

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    rows, settings = train.tail(FITTED), SETTINGS.training
    read = fit_preprocessing(rows, features, DOMAIN, 8, settings.model.hashed_words, settings.model.prior_labels)
    truth = np.array([LABELS.index(label) for label in rows["label"]])
    weights = fit_words(
        read.encode(rows, tokenizer), truth, np.ones(len(LABELS), np.float32), settings.model.hashed_words
    )

    def answer(asked: pd.DataFrame) -> np.ndarray:
        found = read.encode(asked, tokenizer)
        ends = np.append(0, np.cumsum(found.words))
        logits = csr_matrix((found.weights, found.buckets, ends), shape=(len(found), len(weights))) @ weights
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    return answer


def answered(rows: pd.DataFrame, probabilities: np.ndarray) -> pd.DataFrame:
    """Rows with the champion's answers: predicted, confidence, and a column for each label's probability."""
    names = np.array(LABELS)[probabilities.argmax(axis=1)]
    chances = {f"p_{label}": probabilities[:, place] for place, label in enumerate(LABELS)}
    return rows.assign(predicted=names, confidence=probabilities.max(axis=1), **chances)


def pools(world: pd.DataFrame, features: list[str], answer, reference: TrainingSide) -> list[Pool]:
    """The months after the change."""
    first = START + timedelta(days=CHANGE)
    found = []
    for month in range(MONTHS):
        start, end = (pd.Timestamp(first + timedelta(days=30 * (month + extra))) for extra in (0, 1))
        rows = world[(world["known_at"] >= start) & (world["known_at"] < end)].reset_index(drop=True)
        rows = answered(rows, answer(rows))
        arrived = rows["label_known_at"] <= end
        window = rows.assign(label=rows["label"].where(arrived))
        side = window_of(window, features, reference, SETTINGS.drift).side
        groups = {**side.groups, "labels": pd.DataFrame({"label": window["label"]})}
        found.append(Pool(groups, hash_words(rows["text"]), rows))
    return found


def draw(pool: Pool, size: int, seed: int) -> np.ndarray:
    """The rows of a window, in order of time."""
    return np.sort(np.random.default_rng(seed).choice(len(pool.rows), size, replace=False))


def measure(champion: Champion, pool: Pool, rows: np.ndarray, seed: int) -> tuple[Column, ...]:
    """A window's columns, of a sample by hashes of its ids, as `measure_drift` draws it."""
    ids = pd.Series([f"{seed}-{number}" for number in range(len(rows))])
    sample = rows[sample_positions(ids, SETTINGS.drift.sample_rows)]
    groups = {name: frame.iloc[sample].reset_index(drop=True) for name, frame in pool.groups.items()}
    groups["labels"] = groups["labels"].dropna()
    columns = measure_columns(champion.reference.side, Side(groups), SETTINGS.drift)
    words = pool.words[sample[spread(len(sample), SETTINGS.drift.wording_rows)]]
    wording = measure_wording(champion.words, words, champion.reference.side.stretches, SETTINGS.drift)
    assert wording is not None
    return (*columns, wording)


def alarms(champion: Champion, pool: list[Pool], size: int, windows: range) -> pd.DataFrame:
    """A row a window: detected, and the share of drifted columns of each group."""
    found = []
    for seed in windows:
        month = pool[seed % len(pool)]
        columns = measure(champion, month, draw(month, size, seed), seed)
        found.append({"detected": judge(columns, SETTINGS.drift).detected, **shares(columns)})
    return pd.DataFrame(found)


def stock(train: pd.DataFrame, pool: list[Pool], size: int, windows: int) -> tuple[float, float, float]:
    """Shares of windows in alarm by Evidently's preset as it comes, of drifted columns, and seconds a window."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently import Dataset, Report
        from evidently.presets import DataDriftPreset

        found, started = [], time.perf_counter()
        for seed in range(windows):
            rows, groups = draw(pool[seed % len(pool)], size, seed), pool[seed % len(pool)].groups
            window = pd.concat([groups[name].iloc[rows].reset_index(drop=True) for name in STOCK_GROUPS], axis=1)
            sides = (window, train.iloc[spread(len(train), size)])
            run = Report([DataDriftPreset()]).run(*(Dataset.from_pandas(side) for side in sides))
            found.append(float(run.dict()["metrics"][0]["value"]["share"]))
    seconds = (time.perf_counter() - started) / len(found)
    return float(np.mean(np.array(found) >= STOCK_BOUND)), float(np.mean(found)), seconds


def estimates(found: dict[str, "Prepared"], windows: int, peer: Path) -> None:
    """Estimated against realised accuracy, window by window, beside NannyML's and the mean confidence itself."""
    if not peer.exists():
        print(f"NannyML is not installed at {peer}: `make bench` does that")
    print(f"\nmean absolute error of the estimated accuracy, {windows} windows of {ESTIMATED:,} rows each")
    print(f"{'':<18}{'realised':>10}{'CBPE':>18}{'ATC':>18}{'between':>18}{'mean confidence':>18}{'NannyML':>18}")
    for name, world in found.items():
        drawn = [world.pools[seed % MONTHS].rows for seed in range(windows)]
        drawn = [rows.iloc[draw(world.pools[seed % MONTHS], ESTIMATED, seed)] for seed, rows in enumerate(drawn)]
        evaluated = world.champion.evaluated
        realised = np.array([(window["predicted"] == window["label"]).mean() for window in drawn])
        truth, answers = evaluated["label"].to_numpy(), _answers(evaluated)
        ours = [estimate_quality(truth, answers, _answers(window)) for window in drawn]
        by = [np.array([one.accuracy for one in ours]), np.array([one.by_threshold for one in ours])]
        # Realised outside of the interval: how far from its nearer end.
        by.append(np.clip(realised, np.minimum(*by), np.maximum(*by)))
        by.append(np.array([window["confidence"].mean() for window in drawn]))
        by += [nannyml(evaluated, pd.concat(drawn), peer)] if peer.exists() else []
        errors = "".join(f"{np.abs(estimated - realised).mean():>18.4f}" for estimated in by)
        print(f"{name:<18}{realised.mean():>10.4f}{errors}", flush=True)


def _answers(rows: pd.DataFrame) -> Answers:
    return Answers(rows["predicted"].to_numpy(), rows["confidence"].to_numpy())


def nannyml(evaluated: pd.DataFrame, windows: pd.DataFrame, python: Path) -> np.ndarray:
    """NannyML's estimates, in an environment of its own: its requirements exclude ours."""
    columns = ["label", "predicted", *(f"p_{label}" for label in LABELS)]
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in (("evaluated", evaluated), ("windows", windows)):
            rows[columns].reset_index(drop=True).to_parquet(Path(folder) / f"{name}.parquet")
        done = subprocess.run([python, PEER, folder, str(ESTIMATED)], check=True, stdout=subprocess.PIPE, text=True)
    return np.array(json.loads(done.stdout.splitlines()[-1]))


@dataclass(frozen=True)
class Prepared:
    """A world's champion, of before the change, the months after it, and what Evidently's preset compares with."""

    champion: Champion
    pools: list[Pool]
    train: pd.DataFrame


def prepare(world: pd.DataFrame) -> Prepared:
    features = world.attrs["features"]
    before = world[world["known_at"] < pd.Timestamp(START + timedelta(days=CHANGE))]
    train, test = before.iloc[:-TESTED].reset_index(drop=True), before.iloc[-TESTED:].reset_index(drop=True)
    answer = fit(train, features)
    evaluated = answered(test, answer(test))
    reference = reference_of(
        train,
        frozenset(train["record_id"]),
        DOMAIN,
        features,
        evaluated,
        KeptOut(),
        SETTINGS.drift,
    )
    words = hash_words(reference.texts)
    champion = Champion(reference, words, evaluated)
    shown = train.iloc[spread(len(train), SHOWN)]
    shown = answered(shown, answer(shown))
    shown = shown.assign(label=None)
    groups = window_of(shown, features, reference, SETTINGS.drift).side.groups
    stocked = pd.concat([groups[name] for name in STOCK_GROUPS], axis=1)
    return Prepared(champion, pools(world, features, answer, reference), stocked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=200, help="calm windows of each size")
    parser.add_argument("--shifted", type=int, default=20, help="windows of each size and scenario")
    parser.add_argument("--nannyml", type=Path, default=Path(sys.prefix) / "nannyml" / "bin" / "python")
    arguments, started = parser.parse_args(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor() as several:
        worlds = list(several.map(partial(simulate, Path(folder)), SCENARIOS))
        print(f"{sum(map(len, worlds)):,} records with their features: {since(started)}", flush=True)
        found = dict(zip(SCENARIOS, several.map(prepare, worlds), strict=True))
        print(f"a champion and {MONTHS} months of each world: {since(started)}", flush=True)
        compare(several, found, arguments.windows, arguments.shifted)
    estimates(found, arguments.shifted, arguments.nannyml)
    print(f"\nin all {since(started)}")


def compare(several: ProcessPoolExecutor, found: dict[str, Prepared], windows: int, shifted: int) -> None:
    """Shares of windows in alarm: ours as a whole and by group, and Evidently's."""
    print(f"\n{'share in alarm':<18}{'rows':>8}{'windows':>9}{'ours':>8}", *(f"{name:>12}" for name in GROUPS), end="")
    print(f"{'Evidently':>12}{'windows':>9}{'columns':>9}{'s each':>8}")
    for name, world in found.items():
        for size in SIZES:
            few = STOCK[size] if name == "calm" else STOCK_SHIFTED.get(size, 0)
            count = windows if name == "calm" else shifted
            theirs = several.submit(stock, world.train, world.pools, size, few) if few else None
            parts = [range(start, min(start + 20, count)) for start in range(0, count, 20)]
            rows = pd.concat(several.map(partial(alarms, world.champion, world.pools, size), parts))
            shares_of = (f"{(rows[group] > SETTINGS.drift.share_threshold).mean():>12.3f}" for group in GROUPS)
            print(f"{name:<18}{size:>8,}{len(rows):>9}{rows['detected'].mean():>8.3f}", *shares_of, end="")
            print(
                "{:>12.2f}{:>9}{:>9.2f}{:>8.1f}".format(*_between(theirs.result(), few)) if theirs else "", flush=True
            )


def _between(theirs: tuple[float, float, float], windows: int) -> tuple[float, int, float, float]:
    alarm, columns, seconds = theirs
    return alarm, windows, columns, seconds


def since(started: float) -> str:
    return f"{time.perf_counter() - started:.0f} s"


if __name__ == "__main__":
    main()
