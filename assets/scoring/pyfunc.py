"""What `mlflow.pyfunc.load_model("models:/text-classifier@champion")` loads: the champion, for a notebook.

MLflow finds this module by the file MLmodel (assets/registry/mlmodel.py). The features of a record come from the online
store of `EVERGREEN_HOME` and `EVERGREEN_ENVIRONMENT`, as they do for `evergreen score`.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from assets.exceptions import BundleError, RegistryError, SettingsError
from assets.hashing import hash_file
from assets.home import Home
from assets.ingestion.records import Record, Reject, make_record
from assets.registry.mlmodel import MLMODEL, MLMODEL_HASH
from assets.registry.registry import RegisteredVersion, Registry
from assets.scoring.champion import Champion
from assets.settings import load_settings
from assets.training.bundle import load_bundle

__all__ = ["RecordClassifier"]


@dataclass(frozen=True)
class RecordClassifier:
    """A version that answers records given as a table."""

    champion: Champion

    def predict(self, records: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002 - MLflow's
        """predicted, confidence (0 to 1) and reason for each record, in order, with its index.

        `records` has the fields of the domain's source as text; those that are missing are empty. Raises SettingsError
        without any field of the text.
        """
        text = self.champion.home.domain.text.fields
        if not set(text) & set(records.columns):
            raise SettingsError(f"the records have no column {' or '.join(text)}, which the model reads")
        answers = self.champion.answer(list(self._rows(records)))
        return answers.set_index(records.index)[["predicted", "confidence", "reason"]]

    def _rows(self, records: pd.DataFrame) -> Iterator[Record | Reject]:
        domain = self.champion.home.domain
        fields = records.reindex(columns=list(domain.source.fields)).fillna("").astype(str)
        for line, row in enumerate(fields.itertuples(index=False), start=1):
            record = make_record(domain, row, line)
            yield Reject(line, record, "") if isinstance(record, str) else record


def _load_pyfunc(path: str) -> RecordClassifier:
    """MLflow's entry, with the folder of a bundle.

    Raises BundleError for files that are not those of a registered version, and RegistryError for a version that was
    never judged, or does not answer as it was evaluated.
    """
    home, folder = Home.from_environment(), Path(path)
    version = _registered(Registry(home), folder)
    settings = load_settings(os.environ.get("EVERGREEN_PROFILE", "quick")).scoring
    return RecordClassifier(Champion.of(home, version, load_bundle(folder), settings))


def _registered(registry: Registry, folder: Path) -> RegisteredVersion:
    """The version with exactly these files."""
    registry.require_ledger()
    manifest, mlmodel = hash_file(folder / "MANIFEST.json"), hash_file(folder.parent / MLMODEL)
    versions = (v for v in registry.versions() if (v.manifest, v.tags.get(MLMODEL_HASH)) == (manifest, mlmodel))
    if (version := next(versions, None)) is None:
        raise BundleError(f"{folder.parent}: not the files of a version that is registered in {registry.home.root}")
    if not any(verdict.body.get("manifest_sha256") == manifest for verdict in registry.verdicts(version.training_id)):
        raise RegistryError(f"version {version.version} was never judged; nothing unjudged answers")
    return version
