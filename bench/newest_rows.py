"""Three ways to use the newest labelled rows, compared by the accuracy on later records.

held out   the newest rows are the test part and are never trained on
refit      a challenger that passed is trained again, with the same settings and including its test rows, and serves if
           it is no worse on the reference rows; the gate continues to compare the evaluated versions
split      the newest rows are halved by their first words: one half is trained on, the other is the test part

There is one retraining a month, with the gate in configs; the encoder is frozen, and of each form letter only the
newest copy is trained on. The data are the real records and three simulated worlds whose seeds no setting was tuned on.
All ways are compared on the same records; standard errors are from a block bootstrap over months. A promotion counts as
wrong if, until the next one, the replaced champion would have been more accurate.
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from statistics import NormalDist

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import pandas as pd
import pyarrow as pa

from assets.evaluation.gate import count_reign, decide
from assets.evaluation.harm import paired_gain
from assets.features.duplicates import find_duplicates, hash_starts
from assets.features.snapshot import Snapshot
from assets.home import Home
from assets.replay.frozen import TextTable, train_frozen
from assets.replay.history import read_history, steps
from assets.replay.workshop import Trained, Workshop
from assets.settings import Settings, load_domain, load_settings
from assets.training.task import Predictor
from complaints.simulation import simulate

LABELS = tuple(load_domain().labels)

CFPB = Path(__file__).parents[2] / "shared" / "data" / "cfpb"
WAYS = ("held out", "refit", "split")
RATE = 20
SIMULATED, YEAR = (date(2023, 7, 1), date(2024, 12, 31)), ("2024-01-01", "2024-12-31", 30)
WORLDS = {"taxonomy-change": 7301, "new-vocabulary": 7302, "mix-shift": 7303}
"""Scenarios by their seeds."""
REAL = ("2023-02-01", "2026-04-01", 30)
DRAWS = 2000


@dataclass(frozen=True)
class Rows(Snapshot):
    """A snapshot of other rows than the lake has."""

    learned: pd.DataFrame
    judged: pd.DataFrame

    def train(self) -> pd.DataFrame:
        return self.learned

    def test(self) -> pd.DataFrame:
        return self.judged


@dataclass
class Reign:
    """A way on its way through history."""

    answered: list[pd.DataFrame] = field(default_factory=list)
    learned: list[pd.Series] = field(default_factory=list)
    """Training rows by label of what answered, step by step."""
    verdicts: list[dict] = field(default_factory=list)
    former: set[str] = field(default_factory=set)
    judged: Trained | None = None
    """What the gate compares with."""
    serving: Trained | None = None
    replaced: Trained | None = None
    seconds: float = 0.0
    promotions: int = 0
    wrong: list[tuple[int, int]] = field(default_factory=list)
    """For each promotion over another: answers right by the new one and by the old, until the next."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", choices=[*WORLDS, "real"], action="append")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--test-rows", type=int, default=1500)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for world in asked.world or (*WORLDS, "real"):
            go(world, asked.folder or Path(name), asked.test_rows)
    return 0


def go(world: str, folder: Path, test_rows: int) -> None:
    settings = load_settings("replay")
    rows = settings.snapshot.model_copy(update={"test_rows": test_rows, "max_copies": 1})
    settings = settings.model_copy(update={"snapshot": rows})
    home, days = Home(folder / f"home-{world}"), steps(*(REAL if world == "real" else YEAR))
    history = read_history(home, sources(world, folder), days, settings)
    texts = TextTable(settings.training, home.root / "cache" / "texts")
    shop = Workshop(history, teacher(settings, texts), lambda text: print(text, file=sys.stderr, flush=True))
    reigns = {way: Reign() for way in WAYS}
    for step, day in enumerate(days[:-1]):
        snapshot = history.snapshot(day)
        for way, reign in reigns.items():
            retrain(reign, way, snapshot, shop, settings)
            live(reign, shop, step + 1)
    show(world, days, reigns)


def sources(world: str, folder: Path) -> list[str]:
    if world == "real":
        return [str(path) for path in sorted(CFPB.glob("*.csv.gz"))]
    simulate(folder / world, *SIMULATED, RATE, WORLDS[world], world)
    return [str(folder / world)]


def teacher(settings: Settings, texts: TextTable) -> Callable[[Snapshot], tuple[Predictor, float]]:
    def learn(snapshot: Snapshot) -> tuple[Predictor, float]:
        started = time.process_time()
        model = train_frozen(snapshot.train(), snapshot.features, snapshot.domain, settings.training, texts)
        return model, time.process_time() - started

    return learn


def trained(shop: Workshop, snapshot: Snapshot, reign: Reign) -> Trained:
    """The model of a snapshot; whoever asks pays, whether another way has had it before or not."""
    model = shop._once(("model", snapshot.id), lambda: shop._learn(snapshot))
    reign.seconds += model.seconds
    return model


def retrain(reign: Reign, way: str, snapshot: Snapshot, shop: Workshop, settings: Settings) -> None:
    challenger = trained(shop, halved(snapshot, settings) if way == "split" else snapshot, reign)
    now = reign.judged.id if reign.judged else None
    evaluation = shop.evaluation(challenger, reign.judged)
    nth = count_reign(reign.verdicts, evaluation, now)
    verdict = decide(evaluation, settings.gate, load_domain(), now, frozenset(reign.former), nth=nth)
    reign.verdicts.append(verdict.body())
    if verdict.decision != "promote":
        return
    reign.promotions += 1
    reign.former.add(challenger.id)
    reign.judged, reign.replaced, reign.serving = challenger, reign.serving, challenger
    if way == "refit":
        again = trained(shop, with_test_rows(snapshot, settings), reign)
        if no_worse(again, challenger, settings):
            reign.serving = again
    if reign.replaced:
        reign.wrong.append((0, 0))


def no_worse(again: Trained, judged: Trained, settings: Settings) -> bool:
    rows = judged.snapshot.reference()
    ours, theirs = (names(one, rows) == rows["label"].to_numpy() for one in (again, judged))
    gain, error = paired_gain(int((ours & ~theirs).sum()), int((theirs & ~ours).sum()), len(rows))
    agreed = float((names(again, rows) == names(judged, rows)).mean())
    print(f"  {judged.as_of}  refit: {gain:+.4f} on {len(rows)} reference rows, alike on {agreed:.3f}", file=sys.stderr)
    worst = -settings.gate.max_loss - NormalDist().inv_cdf(1 - settings.gate.significance) * error
    return gain >= worst and agreed >= settings.gate.min_refit_agreement


def names(one: Trained, rows: pd.DataFrame) -> np.ndarray:
    return np.array(LABELS, dtype=object)[one.model.predict_proba(rows).argmax(axis=1)]


def halved(snapshot: Snapshot, settings: Settings) -> Rows:
    """Half of the newest rows, by how they begin, learned from, but for what is like the other half or reserved."""
    newest = snapshot.test()
    judged = (starts(newest) & np.uint64(1)).astype(bool)
    others = pd.concat([newest[judged], snapshot.reference()])
    return other_rows(snapshot, "split", newest[~judged], others, newest[judged], settings)


def with_test_rows(snapshot: Snapshot, settings: Settings) -> Rows:
    return other_rows(snapshot, "refit", snapshot.test(), snapshot.reference(), snapshot.test(), settings)


def other_rows(
    snapshot: Snapshot, name: str, more: pd.DataFrame, others: pd.DataFrame, judged: pd.DataFrame, settings: Settings
) -> Rows:
    """Train rows and more of them, without what `others` repeat and what no training sees."""
    reserved = starts(more) < np.uint64(settings.snapshot.reference_share * 2**64)
    texts = (pa.table({"text": texts_of(rows), "start": starts(rows)}) for rows in (more, others))
    alike = find_duplicates(*texts, settings.snapshot.near_duplicate_similarity).any
    learned = pd.concat([snapshot.train(), more[~reserved & ~alike]], ignore_index=True)
    newest = pd.Series(starts(learned)).groupby(starts(learned)).cumcount(ascending=False) < 1
    learned = learned[newest.to_numpy()].reset_index(drop=True)
    about = vars(snapshot) | {"id": f"{snapshot.id}-{name}", "train_rows": len(learned), "test_rows": len(judged)}
    return Rows(**about, learned=learned, judged=judged.reset_index(drop=True))


def starts(rows: pd.DataFrame) -> np.ndarray:
    return hash_starts(texts_of(rows))


def texts_of(rows: pd.DataFrame) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(rows["text"], pa.large_string())])


def live(reign: Reign, shop: Workshop, step: int) -> None:
    if reign.serving is None:
        reign.answered.append(pd.DataFrame({"label": [], "predicted": []}))
        reign.learned.append(pd.Series(dtype=int))
        return
    rows = shop.answers(reign.serving, step)
    rows = rows[rows["label"].notna()]
    reign.answered.append(rows[["label", "predicted"]])
    reign.learned.append(reign.serving.snapshot.train()["label"].value_counts())
    if reign.replaced and reign.wrong:
        before = shop.answers(reign.replaced, step)
        before = before[before["label"].notna()]
        right = (int((one["label"] == one["predicted"]).sum()) for one in (rows, before))
        reign.wrong[-1] = tuple(a + b for a, b in zip(reign.wrong[-1], right, strict=True))


def tables(answered: Sequence[pd.DataFrame], first: int) -> np.ndarray:
    """Rows by true and answered label, a table a step [steps, labels, labels]."""
    found = []
    for rows in answered[first:]:
        truth, said = (rows[name].map(LABELS.index).to_numpy(np.int64) for name in ("label", "predicted"))
        found.append(np.bincount(truth * len(LABELS) + said, minlength=len(LABELS) ** 2).reshape(len(LABELS), -1))
    return np.array(found)


def measures(counts: np.ndarray) -> np.ndarray:
    """[draws, labels] tables to accuracy, macro-F1 and the F1 of each label [draws, 2 + labels]."""
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    true, said = counts.sum(axis=-1), counts.sum(axis=-2)
    f1 = np.where(true > 0, 2 * right / np.maximum(true + said, 1), np.nan)
    whole = right.sum(axis=-1) / counts.sum(axis=(-2, -1))
    return np.concatenate([whole[..., None], np.nanmean(f1, axis=-1)[..., None], f1], axis=-1)


def show(world: str, days: Sequence[str], reigns: dict[str, Reign]) -> None:
    first = max(next(step for step, rows in enumerate(one.answered) if len(rows)) for one in reigns.values())
    steps_left = len(days) - 1 - first
    found = {way: tables(one.answered, first) for way, one in reigns.items()}
    drawn = np.random.default_rng(0).multinomial(steps_left, np.full(steps_left, 1 / steps_left), DRAWS)
    seen = {way: measures(counts.sum(axis=0)) for way, counts in found.items()}
    again = {way: measures(np.einsum("ds,sij->dij", drawn, counts)) for way, counts in found.items()}
    rows = found["held out"].sum(axis=(0, 2))
    print(f"\n{world}: {steps_left} steps from {days[first]}, {rows.sum():,} later records")
    print(f"{'':<18}{'records':>8}" + "".join(f"{way:>10}" for way in WAYS) + "".join(f"{way:>18}" for way in WAYS[1:]))
    for place, name in enumerate(("accuracy", "macro-F1", *LABELS)):
        count = rows.sum() if place < 2 else rows[place - 2]
        line = f"{name:<18}{count:>8}" + "".join(f"{seen[way][place]:>10.4f}" for way in WAYS)
        for way in WAYS[1:]:
            gain = seen[way][place] - seen["held out"][place]
            error = np.nanstd(again[way][:, place] - again["held out"][:, place])
            line += f"{100 * gain:>+10.2f} ± {100 * error:.2f}"
        print(line)
    for way, one in reigns.items():
        wrong = sum(new < old for new, old in one.wrong)
        gain, error = by_record(one, reigns["held out"], first)
        print(
            f"{way:<10} {100 * gain:+.2f} ± {100 * error:.2f} points by record, {len(one.verdicts)} challengers, "
            f"{one.promotions} promotions, {wrong} wrong of {len(one.wrong)}, {one.seconds:.0f} CPU seconds"
        )
    few(found["held out"], reigns["held out"].learned[first:])
    sys.stdout.flush()


def by_record(one: Reign, other: Reign, first: int) -> tuple[float, float]:
    """What one way's accuracy is above another's, and its standard error over the records that both have answered."""
    right = (pd.concat(way.answered[first:]).eval("label == predicted").to_numpy(float) for way in (one, other))
    differences = np.subtract(*right)
    return float(differences.mean()), float(differences.std() / np.sqrt(len(differences)))


def few(found: np.ndarray, learned: list[pd.Series]) -> None:
    """F1 on later records by how many training rows a label had."""
    print("F1 of a label by its training rows:", end=" ")
    for low, high in itertools.pairwise((0, 1, 10, 25, 50, 100, 200, 400, 10**6)):
        right = true = said = 0
        for table, rows in zip(found, learned, strict=True):
            for place, label in enumerate(LABELS):
                if low <= rows.get(label, 0) < high:
                    right, true = right + table[place, place], true + table[place].sum()
                    said += table[:, place].sum()
        if true:
            print(f"{low}+: {2 * right / (true + said):.3f} (recall {right / true:.3f}, {true} records)", end="; ")
    print()


if __name__ == "__main__":
    sys.exit(main())
