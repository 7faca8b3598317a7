"""The file `MLmodel`, by which `mlflow.pyfunc.load_model` loads a version with Evergreen's own code.

MLflow obeys it: it names the module that loads the files beside it. So its hash is kept on the version, as that of the
bundle's manifest is, and a changed one is found. Evergreen itself never reads it.
"""

import json
import platform
import shutil
from pathlib import Path

import yaml

from assets.hashing import hash_file
from assets.settings import Domain

__all__ = ["BUNDLE", "MLMODEL", "MLMODEL_HASH", "lay_out"]

MLMODEL, BUNDLE = "MLmodel", "bundle"
MLMODEL_HASH = "mlmodel_sha256"
"""The tag of a logged model and of a version with the file's hash; versions of an earlier Evergreen have neither."""

_LOADER = "assets.scoring.pyfunc"
_ANSWER = (("predicted", "string"), ("confidence", "double"), ("reason", "string"))


def lay_out(bundle: Path, folder: Path, domain: Domain) -> str:
    """Copy a bundle into a folder as a model that MLflow can load; returns the hash of its MLmodel."""
    shutil.copytree(bundle, folder / BUNDLE, dirs_exist_ok=True)
    (folder / MLMODEL).write_text(yaml.safe_dump(_described(hash_file(bundle / "MANIFEST.json"), domain)))
    return hash_file(folder / MLMODEL)


def _described(manifest: str, domain: Domain) -> dict[str, object]:
    columns = [(name, "string") for name in domain.source.fields]
    flavor = {"loader_module": _LOADER, "data": BUNDLE, "python_version": platform.python_version()}
    return {
        "flavors": {"python_function": flavor},
        "metadata": {"manifest_sha256": manifest},
        "signature": {"inputs": _schema(columns), "outputs": _schema(list(_ANSWER))},
    }


def _schema(columns: list[tuple[str, str]]) -> str:
    return json.dumps([{"name": name, "type": kind, "required": False} for name, kind in columns])
