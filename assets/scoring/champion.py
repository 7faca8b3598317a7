"""The champion, loaded: what `evergreen score` answers with, and any program or notebook may."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from assets.exceptions import RegistryError
from assets.features.serving import online_features
from assets.home import Home
from assets.ingestion.inputs import model_inputs
from assets.ingestion.records import Record, Reject
from assets.registry.registry import RegisteredVersion, Registry
from assets.scoring.golden import answer_golden_rows, require_agreement
from assets.scoring.score import score_rows
from assets.settings import ScoringSettings
from assets.training.bundle import load_bundle
from assets.training.task import Predictor

__all__ = ["ANSWER", "Champion"]

ANSWER = ("record_id", "predicted", "confidence", "model_version", "reason")
"""The columns of an answer."""


@dataclass(frozen=True)
class Champion:
    """The version that scores, with its model and the home whose features it reads."""

    home: Home
    version: RegisteredVersion
    model: Predictor
    settings: ScoringSettings

    @classmethod
    def load(cls, home: Home, settings: ScoringSettings) -> "Champion":
        """The champion of the ledger, every file of it verified.

        Raises RegistryError without a champion or for one that does not answer as it was evaluated, and BundleError
        when no copy of its files is intact.
        """
        return cls.of(home, *_fetch(home), settings)

    @classmethod
    def of(cls, home: Home, version: RegisteredVersion, model: Predictor, settings: ScoringSettings) -> "Champion":
        """A version, once it has answered its golden rows as it was evaluated. Raises RegistryError."""
        require_agreement(answer_golden_rows(home.lake, version, model, settings), version)
        return cls(home, version, model, settings)

    def answer(self, rows: Sequence[Record | Reject]) -> pd.DataFrame:
        """One answer per row of a source, in order: record_id, predicted, confidence, model_version, reason.

        Confidence is the probability (0 to 1) of the label. A row without a label has the reason: the reader's, or
        `no-text`.
        """
        records = {place: row for place, row in enumerate(rows) if isinstance(row, Record)}
        rejects = {place: row.reason for place, row in enumerate(rows) if isinstance(row, Reject)}
        answers = pd.DataFrame(index=range(len(rows)), columns=list(ANSWER), dtype=object)
        answers.loc[list(rejects), "reason"] = list(rejects.values())
        answers["model_version"] = self.version.version
        if records:
            inputs = [model_inputs(self.home.domain, row) for row in records.values()]
            features = online_features(self.home, pd.DataFrame(inputs, index=list(records), dtype=object))
            scored = score_rows(self.model, features, self.version.version, self.settings)
            scored = scored.assign(record_id=features["record_id"])
            answers.loc[list(records)] = scored[list(ANSWER)].astype(object)
        return answers.astype({"confidence": "float64"})


def _fetch(home: Home) -> tuple[RegisteredVersion, Predictor]:
    registry = Registry(home)
    champion = registry.champion()
    if champion is None:
        raise RegistryError("there is no champion yet; `evergreen run` trains and promotes one")
    return champion, load_bundle(registry.fetch(champion.version))
