"""Model versions in MLflow: registered once per training, served only when intact. The ledger names the champion.

A version is identified by the training and the files that the ledger names; its number is just MLflow's name for it.
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from assets.addresses import address
from assets.display import markdown
from assets.evaluation.report import Evaluation
from assets.exceptions import BundleError, RegistryError
from assets.hashing import hash_bytes, hash_file
from assets.home import Home
from assets.registry.connection import unless_made
from assets.registry.ledger import Entry, Ledger
from assets.registry.mlmodel import BUNDLE, MLMODEL, MLMODEL_HASH
from assets.registry.model_card import NOTE, PAGE, shortened, with_verdict
from assets.registry.removed import why_gone
from assets.registry.rules import unlawful
from assets.registry.shared_ledger import ledger_of
from assets.registry.tracking import MODEL, TrackedTraining, Tracking
from assets.training.bundle import verify_bundle

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import RegisteredModel

__all__ = [
    "FOLLOWED",
    "LEDGER_BROKEN",
    "MODEL",
    "MODELS_SHOWN",
    "RegisteredVersion",
    "Registry",
    "tracking_of",
    "version_path",
    "version_url",
]

FOLLOWED = "ledger_entry"
"""The model's tag with the alias entry that MLflow's alias last followed: its number and hash."""

MODELS_SHOWN = "workflowType=machine_learning"
"""Ends an address of MLflow, which otherwise shows its pages for agents."""

LEDGER_BROKEN = "the ledger is not as it was written"
_REQUIRED = ("training_id", "snapshot_id", "as_of", "evaluation", "manifest_sha256")
_RULE = "`champion` scores; only a verdict moves it."
_PLACEHOLDER = "evergreen:/reserved"
"""The address of the files of a version that only takes a number."""


@dataclass(frozen=True)
class RegisteredVersion:
    """A version of the model, from one training, and evaluated."""

    version: str
    training_id: str
    snapshot_id: str
    as_of: str
    tags: dict[str, str]
    location: str
    """The URI of the folder of its files, local or remote."""
    refit_of: str | None = None
    """The training id of the version that it is a refit of; set only by `Registry.version_of`."""

    @property
    def manifest(self) -> str | None:
        """The hash of its bundle's manifest, which contains the hash of every file."""
        return self.tags.get("manifest_sha256")


@dataclass(frozen=True)
class Registry:
    """The versions of `text-classifier` in a home, and which of them is champion."""

    home: Home

    @property
    def ledger(self) -> Ledger:
        return ledger_of(self.home)

    @property
    def client(self) -> "MlflowClient":
        return self.tracking.client

    @cached_property
    def tracking(self) -> Tracking:
        """MLflow, in the home or on a server."""
        return tracking_of(self.home)

    def versions(self) -> list[RegisteredVersion]:
        """Every version, oldest first."""
        if not self.tracking.exists:
            return []
        rows = self.client.search_model_versions(f"name = '{MODEL}'")
        parsed = [_parse(str(row.version), dict(row.tags), str(row.source)) for row in rows]
        return sorted(parsed, key=lambda version: int(version.version))

    def version(self, version: str) -> RegisteredVersion:
        """One version. Raises RegistryError when no version has this number."""
        versions = {registered.version: registered for registered in self.versions()}
        if version not in versions:
            raise RegistryError(f"{MODEL} has no version {version!r}; there are: {', '.join(versions) or 'none yet'}")
        return versions[version]

    def of_training(self, training_id: str) -> RegisteredVersion:
        """The one version of a training. Raises RegistryError when it is not registered."""
        version = self._of_training(training_id)
        if version is None:
            raise RegistryError(
                f"training {training_id} has no version of {MODEL} yet; materialize registered_model first"
            )
        return version

    def champion(self, as_of: str | None = None) -> RegisteredVersion | None:
        """The version that scores, or did as of an instant; None before the first promotion.

        Raises RegistryError when the ledger is not as it was written, and when MLflow lacks the version it names.
        """
        self.require_ledger()
        move = self.ledger.champion_at(as_of) if as_of else self.last_move()
        return self.version_of(move) if move else None

    def evaluated_champion(self, as_of: str | None = None) -> RegisteredVersion | None:
        """The champion, or the version it is a refit of: the one that has not learned from its test rows.

        Raises the same errors as `champion`.
        """
        champion = self.champion(as_of)
        return self.version_of(self.verdicts(champion.refit_of)[0]) if champion and champion.refit_of else champion

    def refit_of(self, training: str) -> str | None:
        """The training that this one is a refit of, by the verdicts on it; None if it is no refit."""
        evaluated = (verdict.body.get("refit_of") for verdict in self.verdicts(training))
        return next(filter(None, evaluated), None)

    def version_of(self, entry: Entry) -> RegisteredVersion:
        """The version that a verdict or an alias entry is about, by its training and its files.

        Raises RegistryError when MLflow has no such version.
        """
        training, manifest = entry.body["training_id"], entry.body.get("manifest_sha256")
        for version in self.versions():
            if version.training_id == training and manifest in (None, version.manifest):
                return replace(version, refit_of=self.refit_of(training))
        who = "the champion" if entry.kind == "alias" else "the version of the verdict"
        raise RegistryError(
            f"{who}, training {training} of {self._trained_on(training)}, is not in MLflow with the files that were "
            "judged; `evergreen rebuild-registry` restores it from the lake and the ledger"
        )

    def _trained_on(self, training: str) -> str:
        """The as-of day of a training, by the first verdict on it."""
        return next((entry.as_of for entry in self.verdicts(training)), "an unknown day")

    def verdicts(self, training: str) -> list[Entry]:
        """The verdicts on a training, oldest first."""
        return [entry for entry in self.ledger.entries("verdict") if entry.body["training_id"] == training]

    def challenger(self) -> RegisteredVersion | None:
        """The newest evaluated version; None when nothing is registered."""
        named = self.aliases().get("challenger")
        return self.version(named) if named else None

    def register(self, bundle: Path, evaluation: Evaluation, dagster_run: str | None = None) -> RegisteredVersion:
        """Create the one version of a training, or update it with a newer evaluation.

        Called again after a crash, it finishes the rest. Raises RegistryError for an evaluation that is not of this
        bundle or whose golden rows differ, and for a training that is registered with other files, and
        BundleError for a bundle that is not intact.
        """
        _require_evaluated(bundle, evaluation)
        with self.lock():
            known = self._of_training(evaluation.training_id)
            if known is None or known.tags.get("evaluation") != evaluation.id:
                verify_bundle(bundle)
                _require_same_files(known, bundle)
                record = self.tracking.record(bundle, evaluation, evaluation.folder(self.home.lake), dagster_run)
                self._write_version(known, record)
            version = self.of_training(evaluation.training_id)
            if evaluation.refit_of is None:
                self.point("challenger", version.version)
        return version

    def describe(self, version: RegisteredVersion, decision: str, reasons: Iterable[str]) -> None:
        """Put a verdict first on a version's page and on that of its run, unless it is there already."""
        page = self.client.get_model_version(MODEL, version.version)
        card = shortened(with_verdict(page.description or "", decision, reasons), PAGE)
        if card != page.description:
            if page.run_id:
                note = self.client.get_run(page.run_id).data.tags.get("mlflow.note.content", "")
                note = shortened(with_verdict(note, decision, reasons), NOTE)
                self.client.set_tag(page.run_id, "mlflow.note.content", note)
                self.client.set_tag(page.run_id, "verdict", decision)
            self.client.update_model_version(MODEL, version.version, description=card)

    def reserve(self, number: int) -> None:
        """Make MLflow assign this number to the next version, if it is still free: it counts deleted ones, too."""
        self._require_model()
        last = max((int(version.version) for version in self.versions()), default=0)
        for _ in range(last + 1, number):
            placeholder = self.client.create_model_version(MODEL, source=_PLACEHOLDER)
            self.client.delete_model_version(MODEL, placeholder.version)

    def fetch(self, version: str) -> Path:
        """The local folder of a version's bundle, every hash verified: MLflow's, or the lake's with the same hash.

        Files that MLflow keeps remotely are downloaded once. Raises RegistryError for an unknown version and
        BundleError when no copy is the registered one.
        """
        registered, problems = self.version(version), []
        for folder in self._copies(registered):
            try:
                _verify(registered, folder)
                return folder
            except BundleError as error:
                problems.append(error)
        bundle = self.home.lake.path(f"challenger/{registered.as_of}", registered.training_id)
        if why := why_gone(self.home, bundle, "rollbacks and trainings"):
            raise BundleError(f"the bundle of version {version} is gone: {why}")
        raise problems[0]

    def copy_here(self, version: RegisteredVersion) -> Path:
        """The folder of this machine for MLflow's files of a version: MLflow's own, or for a download from a server."""
        # A tag of MLflow is data, and no path.
        download = self._downloads / hash_bytes(version.training_id.encode())[:16]
        return self.tracking.local(version.location) or download

    def _copies(self, version: RegisteredVersion) -> Iterator[Path]:
        here, is_remote = self.copy_here(version), self.tracking.local(version.location) is None
        if not is_remote or here.exists():
            yield _bundle_in(here)
        if version.training_id and version.as_of:
            yield self.home.lake.path(f"challenger/{version.as_of}", version.training_id)
        if is_remote:
            yield _bundle_in(self._download(version, here))

    @property
    def _downloads(self) -> Path:
        return self.home.mlflow / "downloads"

    def problem(self) -> str | None:
        """Why the alias `champion` is not on the evaluated, intact version of the ledger; None when it is, or unset."""
        named = self.aliases().get("champion")
        try:
            champion = self.champion()
            if champion:
                self.require_servable(champion)
                self._require_loader(champion)
        except (RegistryError, BundleError) as error:
            return str(error)
        expected = champion.version if champion else None
        return None if named == expected else f"the alias points at version {named}, the ledger says {expected}"

    def last_move(self) -> Entry | None:
        """The ledger's newest entry about the alias `champion`."""
        moves = self.ledger.entries("alias")
        return moves[-1] if moves else None

    def ledger_problem(self) -> str | None:
        """How the ledger was altered since it was written: by its hashes, its rules, MLflow's tags and the lake."""
        if problem := self.ledger.problem():
            return problem
        # MLflow is read first: everything written to it was in the ledger before.
        judged = {version.version: version.tags.get("ledger_hash") for version in self.versions()}
        followed, entries = self.tags().get(FOLLOWED), self.ledger.entries()
        return unlawful(entries) or _forgotten(judged, followed, entries) or self._unjudged(entries)

    def require_ledger(self) -> None:
        """Raise RegistryError when the ledger is not as it was written: then there is no champion."""
        if problem := self.ledger_problem():
            raise RegistryError(f"{LEDGER_BROKEN} ({self.ledger}): {problem}; restore it from a backup")

    def _unjudged(self, entries: Sequence[Entry]) -> str | None:
        """A message if the lake has verdicts but the ledger has none."""
        judged = self.home.lake.tables("verdict")
        if judged and not any(entry.kind == "verdict" for entry in entries):
            return f"it holds no verdict, but the lake has {judged[-1]}"
        return None

    def point(self, alias: str, version: str) -> None:
        """Set an alias in MLflow, unless it is already there."""
        if self.aliases().get(alias) != version:
            self.client.set_registered_model_alias(MODEL, alias, version)

    def aliases(self) -> dict[str, str]:
        """MLflow's versions by alias."""
        model = self._model()
        return {alias: str(version) for alias, version in model.aliases.items()} if model else {}

    def tags(self) -> dict[str, str]:
        """MLflow's tags of the model."""
        model = self._model()
        return dict(model.tags) if model else {}

    def require_servable(self, version: RegisteredVersion) -> None:
        """Raises RegistryError for a version that was never evaluated, BundleError for files that are not intact."""
        if lacking := [name for name in _REQUIRED if not version.tags.get(name)]:
            raise RegistryError(f"version {version.version} was never evaluated: it has no tag {lacking[0]!r}")
        self.fetch(version.version)

    def lock(self) -> AbstractContextManager[None]:
        """Lets one process at a time change the registry.

        A process that has lost it does no harm: a version is its training, and of two rows the older one is used.
        """
        return self.home.exclusively("registry", "the registry")

    def _model(self) -> "RegisteredModel | None":
        if not self.tracking.exists:
            return None
        models = self.client.search_registered_models(f"name = '{MODEL}'")
        return models[0] if models else None

    def _require_model(self) -> None:
        if self._model() is None:
            with unless_made():
                self.client.create_registered_model(MODEL, description=f"{markdown(self.home.domain.purpose)} {_RULE}")

    def _of_training(self, training_id: str) -> RegisteredVersion | None:
        return next((version for version in self.versions() if version.training_id == training_id), None)

    def _write_version(self, known: RegisteredVersion | None, record: TrackedTraining) -> None:
        client = self.client
        self._require_model()
        if known is None:
            made = client.create_model_version(
                MODEL,
                source=record.location,
                run_id=record.run_id,
                tags=record.tags,
                description=shortened(record.card, PAGE),
                model_id=record.tags["model_id"],
            )
            if self.of_training(record.tags["training_id"]).version != str(made.version):
                client.delete_model_version(MODEL, made.version)  # the lock was lost: another process was faster
            return
        client.update_model_version(MODEL, known.version, description=shortened(record.card, PAGE))
        for name, value in record.tags.items():  # the evaluation's id comes last: it shows that the rest is there
            client.set_model_version_tag(MODEL, known.version, name, value)

    def _download(self, version: RegisteredVersion, folder: Path) -> Path:
        """Replace a folder by MLflow's files of a version, unless another process is faster."""
        self._downloads.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".download-", dir=self._downloads) as temporary:
            found = self.tracking.download(version.location, Path(temporary))
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                found.rename(folder)
        return folder

    def _require_loader(self, version: RegisteredVersion) -> None:
        """Raises BundleError when MLflow's programs would load a version by other code than Evergreen's."""
        wanted = version.tags.get(MLMODEL_HASH)
        if wanted and self._loader_hash(version) != wanted:
            raise BundleError(
                f"version {version.version} is not intact: {version.location}/{MLMODEL}, by which MLflow loads it, is "
                "not the file that was written; find out who changed it, and restore it from a backup"
            )

    def _loader_hash(self, version: RegisteredVersion) -> str | None:
        if local := self.tracking.local(version.location):
            return hash_file(local / MLMODEL) if (local / MLMODEL).is_file() else None
        with TemporaryDirectory() as folder:
            return hash_file(self.tracking.download(f"{version.location}/{MLMODEL}", Path(folder)))


def _bundle_in(folder: Path) -> Path:
    """The bundle among a version's files, which are the bundle itself in those of an earlier Evergreen."""
    return folder / BUNDLE if (folder / BUNDLE).is_dir() else folder


def tracking_of(home: Home) -> Tracking:
    """MLflow of a home."""
    return Tracking(home.mlflow, home.domain, address(home, "dagster", "runs"), home.environment.mlflow)


def version_url(home: Home, version: str) -> str:
    """The page of a version in MLflow."""
    return address(home, "mlflow", version_path(version))


def version_path(version: str) -> str:
    """The same, within MLflow."""
    return f"#/models/{MODEL}/versions/{version}?{MODELS_SHOWN}"


def _parse(version: str, tags: dict[str, str], location: str) -> RegisteredVersion:
    about = {name: tags.get(name, "") for name in ("training_id", "snapshot_id", "as_of")}
    return RegisteredVersion(version=version, tags=tags, location=location, **about)


def _forgotten(judged: Mapping[str, str | None], followed: str | None, entries: Sequence[Entry]) -> str | None:
    """A message about a last verdict on a version, or a last alias entry, that MLflow has and the ledger does not."""
    hashes = {None, "", *(entry.hash for entry in entries)}
    for version, hashed in judged.items():
        if hashed not in hashes:
            return f"the verdict on version {version} is not the one that MLflow knows"
    # Older homes have only the number, without the hash.
    if followed and not any(followed in (str(entry.seq), f"{entry.seq} {entry.hash}") for entry in entries):
        return f"MLflow has followed entry {followed.split(' ')[0]}, which is not in it"
    return None


def _require_evaluated(bundle: Path, evaluation: Evaluation) -> None:
    if bundle.name != evaluation.training_id:
        raise RegistryError(f"the evaluation is of training {evaluation.training_id}, the bundle is {bundle.name}")
    if not evaluation.golden.equal:
        raise RegistryError(f"training {bundle.name}: served and evaluated outputs differ; it cannot be registered")


def _require_same_files(known: RegisteredVersion | None, bundle: Path) -> None:
    if known and known.manifest != hash_file(bundle / "MANIFEST.json"):
        raise RegistryError(
            f"training {known.training_id} is version {known.version} in MLflow with other files than {bundle}; delete "
            "that version in MLflow if its files are not the ones you want"
        )


def _verify(version: RegisteredVersion, folder: Path) -> None:
    try:
        verify_bundle(folder)
    except BundleError as error:
        raise BundleError(f"version {version.version} is not intact: {error}") from None
    if hash_file(folder / "MANIFEST.json") != version.manifest:
        raise BundleError(f"version {version.version} is not intact: {folder}/MANIFEST.json is not the registered one")
