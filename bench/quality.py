"""The full profile against TF-IDF with the company, on real records that neither was trained on.

A random 15% of the records with a known label are held out by near-duplicate group. They are removed from the source
first, so that no company statistic includes them. Both models are trained on the graph's training set of the other
records as of 2026-04-01. Features of held-out rows are as of the day they were received. Goals: five points of accuracy
and eight of macro-F1 above the baseline, with at most 15 minutes of training. `--ablations` also trains without each
choice of the recipe; `--seeds N` repeats with N random holdouts; `--epochs E` shortens training; `--folder F` keeps the
results.
"""

import argparse
import csv
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from assets.features.snapshot import Snapshot, build_training_set, with_features
from assets.home import Home
from assets.ingestion.landing import ingest
from assets.settings import load_domain, load_settings
from assets.training.bundle import load_bundle
from assets.training.launchers.launch import override, plan_training
from assets.training.launchers.processes import worker_command
from assets.validation.audit import audit, publish
from assets.warehouse.project import build_marts

DOMAIN = load_domain()
LABELS = tuple(DOMAIN.labels)

CFPB = Path(__file__).parents[2] / "shared" / "data" / "cfpb"
AS_OF, HELD_OUT, SIMILARITY = "2026-04-01", 0.15, 0.7
GOALS = {"accuracy": 0.05, "macro_f1": 0.08, "minutes": 15}

Change = Callable[[pd.DataFrame], pd.DataFrame]


def as_it_is(rows: pd.DataFrame) -> pd.DataFrame:
    return rows


def redactions_kept(rows: pd.DataFrame) -> pd.DataFrame:
    """In lower case they are the same tokens to the encoder, but are not collapsed."""
    return rows.assign(text=rows.text.str.replace("X{2,}", lambda found: found[0].lower(), regex=True))


def without_features(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[list(DOMAIN.columns)]


@dataclass(frozen=True)
class Recipe:
    """What is done otherwise than in the profile: to the settings of training and of the snapshot, and to all rows."""

    settings: dict[str, Any] = field(default_factory=dict)
    snapshot: dict[str, Any] = field(default_factory=dict)
    rows: Change = as_it_is


PROFILE = {"the recipe": Recipe()}
ABLATIONS = PROFILE | {
    "no class weights": Recipe({"class_weight_power": 0.0}),
    "balanced class weights": Recipe({"class_weight_power": 1.0}),
    "redactions as they are": Recipe(rows=redactions_kept),
    "form letters as they came": Recipe(snapshot={"max_copies": None}),
    "window of 64 tokens": Recipe({"max_tokens": 64}),
    "window of 256 tokens": Recipe({"max_tokens": 256}),
    "no linear branch": Recipe({"hashed_words": 0}),
    "only the linear branch": Recipe({"word_share": 1.0, "epochs": 0.1}),
    "no features": Recipe(rows=without_features),
}


def read(home: Home, sources: list[str]) -> None:
    """What the graph makes of some sources before it freezes a training set."""
    settings = load_settings("full")
    os.environ["EVERGREEN_HOME"] = str(home.root)
    ingest(sources, home.lake, settings.ingestion, home.domain, AS_OF)
    build_marts(home)
    publish(home, audit(home, AS_OF, settings.warehouse), settings.warehouse)


def freeze(home: Home, changes: dict[str, Any]) -> Snapshot:
    """All that is known as of the day, in one part."""
    everything = {"test_rows": 1, "max_train_rows": 1_000_000, "reference_share": 0}
    settings = load_settings("full").snapshot.model_copy(update=everything | changes)
    return build_training_set(home, AS_OF, settings)


def rows_of(snapshot: Snapshot) -> pd.DataFrame:
    return pd.concat([snapshot.train(), snapshot.test()], ignore_index=True)


def near_duplicates(texts: pd.Series) -> NDArray[np.int64]:
    """The group of each text: those that begin alike, or share most of their shingles, directly or over others."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from sklearn.feature_extraction.text import CountVectorizer

    words = [[w for w in re.findall(r"[^\W\d_]+", text.lower()) if set(w) != {"x"}] for text in texts]
    shingles = CountVectorizer(ngram_range=(5, 5), binary=True, analyzer="word", token_pattern=r"\S+", dtype=np.float32)
    found = shingles.fit_transform([" ".join(text) for text in words])
    sizes, shared = np.asarray(found.sum(axis=1)).ravel(), (found @ found.T).tocoo()
    similar = shared.data >= SIMILARITY * (sizes[shared.row] + sizes[shared.col] - shared.data)
    starts = pd.Series([" ".join(text)[:120] for text in words])
    first = pd.Series(range(len(words))).groupby(starts).transform("first").to_numpy()
    rows = np.concatenate([shared.row[similar], np.arange(len(words))])
    columns = np.concatenate([shared.col[similar], first])
    edges = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(words), len(words)))
    return np.asarray(connected_components(edges, directed=False)[1], np.int64)


def held_out(groups: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """Whole groups in random order, as many as make up the share of the rows that is held out."""
    order = np.random.default_rng(seed).permutation(groups.max() + 1)
    chosen = order[np.cumsum(np.bincount(groups)[order]) <= HELD_OUT * len(groups)]
    return np.isin(groups, chosen)


def write_without(sources: list[Path], records: set[str], path: Path) -> None:
    """The sources as one file, without some records."""
    csv.field_size_limit(1 << 30)
    with path.open("w", newline="") as file:
        for number, source in enumerate(sources):
            with gzip.open(source, "rt", newline="") as rows:
                reader = csv.reader(rows)
                header = next(reader)
                place = header.index("Complaint ID")
                kept = (row for row in reader if row[place] not in records)
                csv.writer(file).writerows(kept if number else [header, *kept])


def split(folder: Path, everything: pd.DataFrame, held: NDArray[np.bool_]) -> tuple[Snapshot, pd.DataFrame]:
    """The rows to train on, and those held out with what was known of their company and state when they came in."""
    source = folder / "source.csv"
    write_without(sorted(CFPB.glob("*.csv.gz")), set(everything.record_id[held]), source)
    home = Home(folder / "home")
    read(home, [str(source)])
    snapshot = freeze(home, {})
    bare = pa.Table.from_pandas(everything.loc[held, list(DOMAIN.columns)], preserve_index=False)
    schema = pq.read_schema(snapshot.path / "train.parquet")
    bare = bare.cast(pa.schema([schema.field(name) for name in DOMAIN.columns]))
    return snapshot, with_features(home, home.lake.current("marts"), bare, snapshot.features).to_pandas()


def scores(truth: pd.Series, labels: NDArray[Any]) -> dict[str, float]:
    """Accuracy, and macro-F1 over the labels that are present."""
    from sklearn.metrics import f1_score

    present = sorted(truth.unique())
    macro = f1_score(truth, labels, average="macro", labels=present)
    return {"accuracy": float((labels == truth).mean()), "macro_f1": float(macro)}


def baseline(train: pd.DataFrame, held: pd.DataFrame) -> dict[str, float]:
    """TF-IDF of words and word pairs, one column a company, a balanced logistic regression."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import OneHotEncoder

    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, max_features=50_000, sublinear_tf=True, dtype=np.float32)
    companies = OneHotEncoder(handle_unknown="ignore", min_frequency=2)
    fitted = [words.fit_transform(train.text), companies.fit_transform(train[["company"]])]
    model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(hstack(fitted), train.label)
    found = [words.transform(held.text), companies.transform(held[["company"]])]
    return scores(held.label, model.predict(hstack(found)))


def challenger(folder: Path, held: pd.DataFrame, recipe: Recipe, changes: dict[str, Any]) -> dict[str, float]:
    """What the worker makes of the rows by the profile `full`, with the recipe's changes and these."""
    output, settings = Path(tempfile.mkdtemp(dir=folder)), load_settings("full").training
    snapshot = freeze(Home(folder / "home"), recipe.snapshot)
    train = pa.Table.from_pandas(recipe.rows(rows_of(snapshot)), preserve_index=False)
    pq.write_table(train, output / "train.parquet")
    name = hashlib.sha256((output / "train.parquet").read_bytes()).hexdigest()[:16]
    features = tuple(feature for feature in snapshot.features if feature in train.column_names)
    rows = replace(snapshot, id=name, path=output, features=features, train_rows=len(train), test_rows=0)
    (output / "bundle").mkdir()
    changed = override(settings, changes | recipe.settings)
    plan = plan_training(rows, changed, output / "bundle", folder / "home")
    (output / "plan.json").write_text(plan.model_dump_json())
    with (output / "log").open("w") as log:
        subprocess.run(worker_command(output / "plan.json", plan.world_size, None), stderr=log, check=True)
    report = json.loads((plan.output / "training.json").read_text())
    probabilities = load_bundle(plan.output).predict_proba(recipe.rows(held))
    found = scores(held.label, np.array(LABELS)[probabilities.argmax(axis=1)])
    return found | {"minutes": report["seconds"] / 60, "tokens_per_second": report["tokens_per_second"]}


def show(name: str, found: list[dict[str, float]], peers: list[dict[str, float]]) -> None:
    """Mean and spread over the seeds, and how much more than the baseline's on the same rows."""
    line = f"{name:<24}"
    for metric in ("accuracy", "macro_f1"):
        values = np.array([one[metric] for one in found])
        more = values - [peer[metric] for peer in peers[: len(values)]]
        line += f"{values.mean():>8.3f} +-{values.std():.3f} {more.mean():>+7.3f}"
    print(line + f"{np.mean([one.get('minutes', 0) for one in found]):>8.1f}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--ablations", action="store_true")
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    if not CFPB.is_dir():
        print(f"skipped: the real records are not at {CFPB}")
        return 0
    epochs = {} if asked.epochs is None else {"epochs": asked.epochs}
    chosen = ABLATIONS if asked.ablations else PROFILE
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ("TF-IDF and company", *chosen)}
    with nullcontext(asked.folder) if asked.folder else tempfile.TemporaryDirectory() as name:
        Path(name).mkdir(exist_ok=True)
        everything = prepare(Path(name))
        groups = near_duplicates(everything.text)
        for seed in range(asked.seeds):
            folder = Path(name) / f"seed-{seed}"
            folder.mkdir()
            snapshot, held = split(folder, everything, held_out(groups, seed))
            print(f"seed {seed}: {snapshot.train_rows + snapshot.test_rows} rows to train on, {len(held)} held out")
            found["TF-IDF and company"].append(baseline(rows_of(snapshot), held))
            for title, recipe in chosen.items():
                found[title].append(challenger(folder, held, recipe, {"seed": seed} | epochs))
            for title, values in found.items():
                show(title, values, found["TF-IDF and company"])
    return 0


def prepare(folder: Path) -> pd.DataFrame:
    """Every record with a text and a label that is known as of the day, form letters as often as they came."""
    home = Home(folder / "everything")
    read(home, [str(path) for path in sorted(CFPB.glob("*.csv.gz"))])
    return rows_of(freeze(home, {"max_copies": None}))


if __name__ == "__main__":
    sys.exit(main())
