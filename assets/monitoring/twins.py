"""Would a new champion be better? Cheap twins answer that before the expense of a training.

A twin is the classifier's linear branch alone, a logistic regression over hashed words, trained in seconds. One learns
from the rows that a challenger would learn from now, the other from those of the champion's snapshot, and both answer
the same rows. These rows are blind for both: they are in the test part of the challenger's snapshot, so its twin
learned only from earlier days and from no near duplicates; and their labels became known after the champion's as-of, so
they are in no part of its snapshot, and neither the champion nor the gate that promoted it has seen them.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from assets.as_of import instant
from assets.exceptions import SnapshotError
from assets.features.snapshot import pick_rows, read_snapshot
from assets.hashing import hash_json
from assets.home import Home
from assets.registry.registry import RegisteredVersion
from assets.settings import Domain, RetrainingPolicy, Settings, SnapshotSettings, TrainingSettings
from assets.writing import replacing

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from assets.training.tasks.classification.preprocessing import Encoded

__all__ = ["Candidate", "Twin", "Twins", "ask", "candidate", "learn", "measure_twins"]

_BUCKETS = 65536


@dataclass(frozen=True)
class Candidate:
    """The newest rows that a challenger would learn from, in order of time, and the rows it would be tested on."""

    train: pd.DataFrame
    test: pd.DataFrame


@dataclass(frozen=True)
class Twins:
    """The results of two twins on the rows that are blind for both."""

    rows: int
    only_challenger: int
    """Rows that only the challenger's twin got right."""
    only_champion: int
    test_rows: int
    """Rows on which the gate would compare a challenger with the champion."""


@dataclass(frozen=True)
class Twin:
    """A linear branch: weights [buckets, labels] of hashed words."""

    domain: Domain
    weights: NDArray[np.float32]

    def answer(self, rows: pd.DataFrame) -> NDArray[np.object_]:
        """The label of each row."""
        from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

        encoded = _encode(rows, self.domain)
        ends = np.append(0, np.cumsum(encoded.words))
        matrix = csr_matrix((encoded.weights, encoded.buckets, ends), (len(rows), _BUCKETS))
        answers: NDArray[np.object_] = np.array(list(self.domain.labels), object)[
            (matrix @ self.weights).argmax(axis=1)
        ]
        return answers


def candidate(home: Home, as_of: str, settings: SnapshotSettings, policy: RetrainingPolicy) -> Candidate | None:
    """The rows of a challenger as of a day; None while there are too few."""
    newest = {"max_train_rows": min(settings.max_train_rows, policy.twin_rows)}
    smaller = settings.model_copy(update=newest)
    try:
        (train, test, _), _, _ = pick_rows(home.lake.current("marts"), as_of, smaller, home.domain.columns)
    except SnapshotError:
        return None
    return Candidate(train.to_pandas(), test.to_pandas())


def learn(rows: pd.DataFrame, domain: Domain, settings: TrainingSettings, policy: RetrainingPolicy) -> Twin:
    """A twin trained on the newest of some training rows, given in order of time with a domain's columns."""
    from assets.training.tasks.classification.labels import class_weights, places
    from assets.training.tasks.classification.words import fit_words

    newest, labels = rows[-policy.twin_rows :], list(domain.labels)
    truth = places(newest["label"], labels)
    counts = np.maximum(np.bincount(truth, minlength=len(labels)), 0.5)
    weights = class_weights(counts / counts.sum(), truth, settings.optimizer.class_weight_power)
    return Twin(domain, fit_words(_encode(newest, domain), truth, weights, _BUCKETS))


def ask(challenger: Twin, champion: Twin, test: pd.DataFrame, champion_as_of: str) -> Twins:
    """Compare both on those of the challenger's test rows that are also blind for the champion."""
    blind = test[test["label_known_at"] > instant(champion_as_of)]
    if blind.empty:
        return Twins(0, 0, 0, len(test))
    ours, theirs = (twin.answer(blind) == blind["label"].to_numpy() for twin in (challenger, champion))
    return Twins(len(blind), int((ours & ~theirs).sum()), int((theirs & ~ours).sum()), len(test))


def measure_twins(home: Home, as_of: str, champion: RegisteredVersion, settings: Settings) -> Twins | None:
    """The twins' results as of a day, published as `twins/<as_of>`; None while a challenger is not possible.

    The version is a function of the marts, the champion's snapshot and the settings; an existing one is reused.
    """
    lake, table, marts = home.lake, f"twins/{as_of}", home.lake.current("marts")
    sizes = [
        settings.snapshot.model_dump(),
        settings.retraining.twin_rows,
        settings.training.optimizer.class_weight_power,
    ]
    path = lake.path(table, hash_json([as_of, marts.name, champion.snapshot_id, sizes])[:16])
    if not path.exists():
        asked = candidate(home, as_of, settings.snapshot, settings.retraining)
        if asked is None:
            return None
        challenger = learn(asked.train, home.domain, settings.training, settings.retraining)
        twins = ask(challenger, _of_champion(home, champion, settings), asked.test, champion.as_of)
        with lake.staging(table) as staged:
            (staged / "twins.json").write_text(json.dumps(asdict(twins), indent=1))
            lake.publish(table, path.name, staged)
    else:
        lake.publish(table, path.name, path)
    return Twins(**json.loads((path / "twins.json").read_text()))


def _of_champion(home: Home, champion: RegisteredVersion, settings: Settings) -> Twin:
    """The champion's twin, trained once."""
    policy, power = settings.retraining, settings.training.optimizer.class_weight_power
    name = f"{champion.snapshot_id}-{hash_json([policy.twin_rows, power])[:8]}.npy"
    cached = home.root / "cache" / "twins" / name
    snapshot = read_snapshot(home.lake, champion.as_of, champion.snapshot_id)
    if not cached.exists():
        columns = ["text", "label", *snapshot.domain.known]
        rows = pd.read_parquet(snapshot.path / "train.parquet", columns=columns)
        _cache(cached, learn(rows, snapshot.domain, settings.training, policy).weights)
    return Twin(snapshot.domain, np.load(cached, allow_pickle=False))


def _cache(path: Path, weights: NDArray[np.float32]) -> None:
    """Replace all others: there is one champion."""
    for other in path.parent.glob("*"):
        other.unlink(missing_ok=True)
    with replacing(path) as file:
        np.save(file, weights)


def _encode(rows: pd.DataFrame, domain: Domain) -> "Encoded":
    from assets.training.tasks.classification.preprocessing import fit_preprocessing

    words = fit_preprocessing({"label": []}, (), domain, 1, _BUCKETS, 1.0)
    return words.encode(rows, cast("Tokenizer", _NoTokens()))


class _NoTokens:
    """Replaces the tokenizer: a twin reads no tokens."""

    ids: tuple[int, ...] = ()

    def encode_batch(self, texts: list[str]) -> list["_NoTokens"]:
        return [self] * len(texts)

    def enable_truncation(self, max_tokens: int) -> None:
        """Does nothing."""

    def no_padding(self) -> None:
        """Does nothing."""
