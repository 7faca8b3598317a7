"""Whether the champion still answers as it did when it was evaluated, with the current software and hardware."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from assets.evaluation.report import table
from assets.exceptions import RegistryError
from assets.lake import Lake
from assets.registry.registry import RegisteredVersion
from assets.settings import ScoringSettings
from assets.training.task import Predictor

__all__ = ["MAX_OTHERS", "GoldenAnswers", "answer_golden_rows", "compare", "golden_rows", "require_agreement"]

MAX_OTHERS = 1 / 1000
"""The largest share of golden rows whose best label may differ."""


@dataclass(frozen=True)
class GoldenAnswers:
    """The current answers to the golden rows of the champion's evaluation, compared with those at the time."""

    rows: int = 0
    """0 when the evaluation or its test rows are not in this home: then they do not agree."""
    others: int = 0
    """Rows whose best label differs."""
    max_difference: float = 0.0
    """The largest difference of a probability."""

    @property
    def agree(self) -> bool:
        return self.rows > 0 and self.others <= MAX_OTHERS * self.rows


def answer_golden_rows(
    lake: Lake, champion: RegisteredVersion, bundle: Predictor, settings: ScoringSettings
) -> GoldenAnswers:
    """Answer the golden rows as records will be answered, and compare with the evaluation."""
    golden = golden_rows(lake, champion)
    return GoldenAnswers() if golden is None else compare(golden, bundle, settings)


def golden_rows(lake: Lake, champion: RegisteredVersion) -> pd.DataFrame | None:
    """The golden rows, with the `probabilities` of the evaluation; None when either is not in this home."""
    evaluation = champion.tags.get("evaluation", "none")
    golden_path = lake.path(table(champion.as_of), evaluation) / "golden.parquet"
    part = "reference.parquet" if champion.refit_of else "test.parquet"
    test_path = lake.path(f"training_set/{champion.as_of}", champion.snapshot_id) / part
    if not (golden_path.exists() and test_path.exists()):
        return None
    golden = pd.read_parquet(golden_path)
    rows = pd.read_parquet(test_path).set_index("record_id", drop=False).loc[golden["record_id"]]
    return rows.assign(probabilities=golden["probabilities"].to_numpy())


def compare(golden: pd.DataFrame, bundle: Predictor, settings: ScoringSettings) -> GoldenAnswers:
    """Answer `golden_rows`, and compare.

    They are too few to have the encoder compiled, so that is requested here, before records are scored.
    """
    evaluated = np.stack(golden["probabilities"].tolist())
    bundle.compile(settings.precision)
    served = bundle.predict_proba(golden, settings.batch_tokens, settings.precision)
    others = int((served.argmax(axis=1) != evaluated.argmax(axis=1)).sum())
    return GoldenAnswers(len(golden), others, float(np.abs(served - evaluated).max()))


def require_agreement(golden: GoldenAnswers, champion: RegisteredVersion) -> None:
    """Raise RegistryError when the champion does not answer as it was evaluated, or that cannot be checked."""
    if not golden.rows:
        raise RegistryError(
            f"version {champion.version}: its evaluation or its test rows are not in this home, so its answers cannot "
            f"be checked; materialize training_set and challenger_evaluation as of {champion.as_of} again"
        )
    if not golden.agree:
        raise RegistryError(
            f"version {champion.version} gives {golden.others} of {golden.rows} golden rows another label than when it "
            "was evaluated; set scoring.precision to float32, or roll back"
        )
